//! Not, and BitwiseNot of opset 18.

use convc_runtime::{
    OpError,
    ops::{Negation, Operator, negation::NegationKind},
};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator, properties::Properties};
use crate::ir::Value;

impl OnnxOperator for Negation {
    const READS: &'static [&'static str] = NegationKind::TEXTS;
    const EXECUTED: &'static [super::Executed] = &[
        ("Not", 1, types![Bool]),
        ("BitwiseNot", 18, types![I8, I16, I32, I64, U8, U16, U32, U64]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let kind =
            NegationKind::from_text(node.op_type()).ok_or_else(|| OpError::Unsupported(node.op_type().to_owned()))?;
        let operands = node.operands().to_vec();
        node.emit(Negation { kind }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        if self.kind == NegationKind::BitwiseNot {
            node.since(18)?;
        }
        node.emit(self.name(), vec![])
    }

    fn properties(&self) -> Properties {
        Properties::elementwise()
    }
}
