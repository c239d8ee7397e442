//! Pow. The exponent's type may differ from opset 12 on.

use convc_runtime::ops::Pow;

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator, properties::Properties};
use crate::ir::Value;

impl OnnxOperator for Pow {
    const READS: &'static [&'static str] = &["Pow"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Pow", 7, types![F32, F64, F16]),
        ("Pow", 12, types![I32, I64]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let operands = node.operands().to_vec();
        node.emit(Pow {}, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        if node.opset() < 12 && node.dtype(0) != node.dtype(1) {
            return Err(node.refuse("base and exponent have different types, which is possible from opset 12 on"));
        }
        node.emit("Pow", vec![])
    }

    fn properties(&self) -> Properties {
        Properties { jumps: true, ..Properties::elementwise() }
    }
}
