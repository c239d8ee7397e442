//! Comparisons. Equal takes floats from opset 11 and strings from opset 19 on, Less and Greater integers from opset 9 on.

use convc_runtime::{
    DType, OpError,
    ops::{Operator, Compare, compare::CompareKind},
};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator};
use crate::ir::Value;

impl OnnxOperator for Compare {
    const READS: &'static [&'static str] = CompareKind::TEXTS;

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let kind = CompareKind::from_text(node.op_type()).ok_or_else(|| OpError::Unsupported(node.op_type().to_owned()))?;
        let operands = node.operands().to_vec();
        node.emit(Compare { kind }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let equal = self.kind == CompareKind::Equal;
        let (opset, dtype) = (node.opset(), node.dtype(0));
        match (self.kind, dtype) {
            (CompareKind::GreaterOrEqual | CompareKind::LessOrEqual, _) => node.since(12)?,
            (_, Some(DType::Str)) if opset < 19 => {
                return Err(node.refuse("its operands are strings, which it takes from opset 19 on"));
            }
            (_, Some(d)) if equal && opset < 11 && !matches!(d, DType::Bool | DType::I32 | DType::I64) => {
                return Err(node.refuse(format!("its operands are {d}, which it takes from opset 11 on")));
            }
            (_, Some(d)) if !equal && opset < 9 && d.is_integer() => {
                return Err(node.refuse("its operands are integers, which it takes from opset 9 on"));
            }
            _ => {}
        }
        node.emit(self.name(), vec![])
    }
}
