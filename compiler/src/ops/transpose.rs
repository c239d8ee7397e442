//! Transpose. All opsets say the same; a missing `perm` reverses the axes.

use convc_runtime::{AttrValue, ops::Transpose};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{Effort, Movement, Operands, Properties},
};
use crate::ir::Value;

impl OnnxOperator for Transpose {
    const READS: &'static [&'static str] = &["Transpose"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Transpose", 1, types![F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Str]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "data")?;
        let rank = node.fact(0).map(convc_runtime::Fact::rank);
        let perm = match (node.ints("perm")?, rank) {
            (Some(p), _) => p,
            (None, Some(r)) => (0..r as i64).rev().collect(),
            (None, None) => return Err(ImportError::Unsupported("Transpose of a tensor of unknown rank".into())),
        };
        node.emit(Transpose { perm }, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.emit("Transpose", vec![("perm", AttrValue::Ints(self.perm.clone()))])
    }

    fn properties(&self) -> Properties {
        Properties { effort: Effort::PICKS, ..Properties::moves(Movement::Permutes, Operands::FIRST) }
    }
}
