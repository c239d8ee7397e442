//! ReverseSequence (since opset 10).

use convc_runtime::{AttrValue, ops::ReverseSequence};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{Movement, Operands, Properties},
};
use crate::ir::Value;

impl OnnxOperator for ReverseSequence {
    const READS: &'static [&'static str] = &["ReverseSequence"];
    const EXECUTED: &'static [super::Executed] = &[
        ("ReverseSequence", 10, types![F32, F64, F16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Str]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let operands = vec![Some(node.required(0, "input")?), Some(node.required(1, "sequence_lens")?)];
        let batch_axis = node.axis("batch_axis", 1)?;
        let time_axis = node.axis("time_axis", 0)?;
        node.emit(ReverseSequence { batch_axis, time_axis }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(10)?;
        let attrs =
            vec![("batch_axis", AttrValue::Int(self.batch_axis)), ("time_axis", AttrValue::Int(self.time_axis))];
        node.emit("ReverseSequence", attrs)
    }

    fn properties(&self) -> Properties {
        Properties::moves(Movement::Permutes, Operands::FIRST)
    }
}
