//! OneHot (since opset 9).

use convc_runtime::ops::OneHot;

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator, properties::Properties};
use crate::ir::Value;

impl OnnxOperator for OneHot {
    const READS: &'static [&'static str] = &["OneHot"];
    const EXECUTED: &'static [super::Executed] = &[
        ("OneHot", 9, types![F32, F16, I32, I64]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let operands = vec![
            Some(node.required(0, "indices")?),
            Some(node.required(1, "depth")?),
            Some(node.required(2, "values")?),
        ];
        let axis = node.int("axis")?.unwrap_or(-1);
        // The result has one axis more than the indices.
        let axis = node.from_front(axis, 1);
        node.emit(OneHot { axis }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(9)?;
        let attrs = if self.axis == -1 { Vec::new() } else { vec![("axis", convc_runtime::AttrValue::Int(self.axis))] };
        node.emit("OneHot", attrs)
    }

    fn properties(&self) -> Properties {
        Properties::unknown()
    }
}
