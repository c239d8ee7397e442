//! Trilu (since opset 14).

use convc_runtime::{AttrValue, ops::Trilu};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{Movement, Operands, Properties},
};
use crate::ir::Value;

impl OnnxOperator for Trilu {
    const READS: &'static [&'static str] = &["Trilu"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Trilu", 14, types![F32, F64, F16, I32, I64, Bool]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let operands = vec![Some(node.required(0, "input")?), node.operand(1)];
        let upper = node.int("upper")?.unwrap_or(1) != 0;
        node.emit(Trilu { upper }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(14)?;
        let attrs = if self.upper { Vec::new() } else { vec![("upper", AttrValue::Int(0))] };
        node.emit("Trilu", attrs)
    }

    fn properties(&self) -> Properties {
        Properties::moves(Movement::Pads, Operands::FIRST)
    }
}
