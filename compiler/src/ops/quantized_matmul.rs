//! MatMulInteger and QLinearMatMul, new in opset 10; the second takes 8-bit numbers with f32 scales, others from opset 21 on.

use convc_runtime::{
    DType,
    ops::{MatMulInteger, QLinearMatMul},
};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{MultiplyAdds, Properties},
};
use crate::ir::Value;

impl OnnxOperator for MatMulInteger {
    const READS: &'static [&'static str] = &["MatMulInteger"];
    const EXECUTED: &'static [super::Executed] = &[
        ("MatMulInteger", 10, types![I32]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let operands = node.operands().to_vec();
        node.emit(MatMulInteger {}, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(10)?;
        node.emit("MatMulInteger", vec![])
    }

    fn properties(&self) -> Properties {
        Properties { multiply_adds: MultiplyAdds::Along(-1), ..Properties::unknown() }
    }
}

impl OnnxOperator for QLinearMatMul {
    const READS: &'static [&'static str] = &["QLinearMatMul"];
    const EXECUTED: &'static [super::Executed] = &[
        ("QLinearMatMul", 10, types![I8, U8]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let operands = node.operands().to_vec();
        node.emit(QLinearMatMul {}, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(10)?;
        if node.opset() < 21 && node.dtype(1).is_some_and(|d| d != DType::F32) {
            return Err(node.refuse("its scales are not f32, which is possible from opset 21 on"));
        }
        node.emit("QLinearMatMul", vec![])
    }

    fn properties(&self) -> Properties {
        Properties { multiply_adds: MultiplyAdds::Along(-1), ..Properties::unknown() }
    }
}
