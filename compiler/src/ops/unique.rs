//! Unique (since opset 11).

use convc_runtime::{AttrValue, ops::Unique};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator, properties::Properties};
use crate::ir::Value;

impl OnnxOperator for Unique {
    const READS: &'static [&'static str] = &["Unique"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Unique", 11, types![F32, F64, F16, I8, I64, Str]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "X")?;
        let axis = node.int("axis")?.map(|a| node.from_front(a, 0));
        let sorted = node.int("sorted")?.unwrap_or(1) != 0;
        node.emit(Unique { axis, sorted }, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(11)?;
        let mut attrs: Vec<_> = self.axis.map(|a| ("axis", AttrValue::Int(a))).into_iter().collect();
        if !self.sorted {
            attrs.push(("sorted", AttrValue::Int(0)));
        }
        node.emit("Unique", attrs)
    }

    fn properties(&self) -> Properties {
        Properties::unknown()
    }
}
