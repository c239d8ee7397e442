//! MatMul. Integers are new in opset 9.

use convc_runtime::{DType, ops::MatMul};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{MultiplyAdds, Operands, Properties},
};
use crate::ir::Value;

impl OnnxOperator for MatMul {
    const READS: &'static [&'static str] = &["MatMul"];
    const EXECUTED: &'static [super::Executed] = &[
        ("MatMul", 1, types![F32, F64, F16]),
        ("MatMul", 9, types![I32, I64, U32, U64]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let operands = node.operands().to_vec();
        node.emit(MatMul {}, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        if node.opset() < 9 && node.dtype(0).is_some_and(DType::is_integer) {
            return Err(node.refuse("its operands are integers, which it takes from opset 9 on"));
        }
        node.emit("MatMul", vec![])
    }

    fn properties(&self) -> Properties {
        Properties { multiply_adds: MultiplyAdds::Along(-1), ..Properties::linear(Operands::Sets(&[&[0], &[1]])) }
    }
}
