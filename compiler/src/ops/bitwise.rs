//! And, Or, Xor, and those of bits, new in opset 18.

use convc_runtime::{
    OpError,
    ops::{Bitwise, Operator, bitwise::BitwiseKind},
};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator, properties::Properties};
use crate::ir::Value;

impl OnnxOperator for Bitwise {
    const READS: &'static [&'static str] = BitwiseKind::TEXTS;
    const EXECUTED: &'static [super::Executed] = &[
        ("And", 7, types![Bool]),
        ("Or", 7, types![Bool]),
        ("Xor", 7, types![Bool]),
        ("BitwiseAnd", 18, types![I8, I16, I32, I64, U8, U16, U32, U64]),
        ("BitwiseOr", 18, types![I8, I16, I32, I64, U8, U16, U32, U64]),
        ("BitwiseXor", 18, types![I8, I16, I32, I64, U8, U16, U32, U64]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let kind =
            BitwiseKind::from_text(node.op_type()).ok_or_else(|| OpError::Unsupported(node.op_type().to_owned()))?;
        let operands = node.operands().to_vec();
        node.emit(Bitwise { kind }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        if !matches!(self.kind, BitwiseKind::And | BitwiseKind::Or | BitwiseKind::Xor) {
            node.since(18)?;
        }
        node.emit(self.name(), vec![])
    }

    fn properties(&self) -> Properties {
        Properties { commutative: true, ..Properties::elementwise() }
    }
}
