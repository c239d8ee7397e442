//! Functions of one argument.

use convc_runtime::{
    AttrValue, OpError,
    ops::{Operator, Unary, unary::UnaryKind},
};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator};
use crate::ir::Value;

impl OnnxOperator for Unary {
    const READS: &'static [&'static str] = UnaryKind::TEXTS;

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let kind = UnaryKind::from_text(node.op_type()).ok_or_else(|| OpError::Unsupported(node.op_type().to_owned()))?;
        let x = node.required(0, "X")?;
        node.emit(Unary::new(kind), vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let attrs = self.alpha.map(|a| ("alpha", AttrValue::Float(a))).into_iter().collect();
        node.emit(self.name(), attrs)
    }
}
