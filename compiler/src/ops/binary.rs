//! Add, Sub, Mul, Div, PRelu. From opset 7 on, opsets differ in element types only.

use convc_runtime::{
    OpError,
    ops::{Operator, Binary, binary::BinaryKind},
};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator};
use crate::ir::Value;

impl OnnxOperator for Binary {
    const READS: &'static [&'static str] = BinaryKind::TEXTS;

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let kind = BinaryKind::from_text(node.op_type()).ok_or_else(|| OpError::Unsupported(node.op_type().to_owned()))?;
        let operands = node.operands().to_vec();
        node.emit(Binary { kind }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {

        node.emit(self.name(), vec![])
    }
}
