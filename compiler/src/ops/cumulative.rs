//! CumSum, new in opset 11, and CumProd, new in opset 26.

use convc_runtime::{
    AttrValue, OpError,
    ops::{Cumulative, Operator, cumulative::CumulativeKind},
};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{Nonnegative, Operands, Properties},
};
use crate::ir::Value;

impl OnnxOperator for Cumulative {
    const READS: &'static [&'static str] = CumulativeKind::TEXTS;
    const EXECUTED: &'static [super::Executed] = &[
        ("CumSum", 11, types![F32, F64, F16, I32, I64]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let kind =
            CumulativeKind::from_text(node.op_type()).ok_or_else(|| OpError::Unsupported(node.op_type().to_owned()))?;
        let exclusive = node.int("exclusive")?.unwrap_or(0) != 0;
        let reverse = node.int("reverse")?.unwrap_or(0) != 0;
        let operands = node.operands().to_vec();
        node.emit(Cumulative { kind, exclusive, reverse }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(if self.kind == CumulativeKind::CumSum { 11 } else { 26 })?;
        let attrs = [("exclusive", self.exclusive), ("reverse", self.reverse)]
            .into_iter()
            .filter(|(_, v)| *v)
            .map(|(name, _)| (name, AttrValue::Int(1)))
            .collect();
        node.emit(self.name(), attrs)
    }

    fn properties(&self) -> Properties {
        match self.kind {
            CumulativeKind::CumSum => Properties::averages(),
            CumulativeKind::CumProd => {
                Properties { nonnegative: Nonnegative::Where(Operands::FIRST), ..Properties::continuous() }
            }
        }
    }
}
