//! Where (since opset 9).

use convc_runtime::ops::Where;

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{Movement, Operands, Properties},
};
use crate::ir::Value;

impl OnnxOperator for Where {
    const READS: &'static [&'static str] = &["Where"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Where", 9, types![F32, F64, F16, I8, I32, I64, U8, U32, Str]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let operands =
            vec![Some(node.required(0, "condition")?), Some(node.required(1, "X")?), Some(node.required(2, "Y")?)];
        node.emit(Where {}, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        if node.opset() < 9 {
            return Err(node.refuse("the operator exists since opset 9"));
        }
        node.emit("Where", Vec::new())
    }

    fn properties(&self) -> Properties {
        Properties {
            elementwise: true,
            monotone: false,
            ..Properties::moves(Movement::Joins, Operands::Sets(&[&[1, 2]]))
        }
    }
}
