//! BitCast (since opset 26).

use convc_runtime::ops::BitCast;

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator, cast::dtype_attr, properties::Properties};
use crate::ir::Value;

impl OnnxOperator for BitCast {
    const READS: &'static [&'static str] = &["BitCast"];
    const EXECUTED: &'static [super::Executed] = &[];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "input")?;
        let to = node.dtype("to")?.ok_or_else(|| ImportError::Invalid("attribute to is missing".into()))?;
        node.emit(BitCast { to }, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(26)?;
        node.emit("BitCast", vec![("to", dtype_attr(self.to))])
    }

    fn properties(&self) -> Properties {
        Properties::unknown()
    }
}
