//! Einsum, new in opset 12.

use convc_runtime::{AttrValue, ops::Einsum};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator};
use crate::ir::Value;

impl OnnxOperator for Einsum {
    const READS: &'static [&'static str] = &["Einsum"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Einsum", 12, types![F32, F64, F16, I32, I64]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let equation =
            node.string("equation")?.ok_or_else(|| ImportError::Invalid("attribute equation is missing".into()))?;
        let operands = node.operands().to_vec();
        node.emit(Einsum { equation }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(12)?;
        node.emit("Einsum", vec![("equation", AttrValue::Str(self.equation.clone()))])
    }
}
