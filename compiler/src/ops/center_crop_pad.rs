//! CenterCropPad (since opset 18).

use convc_runtime::{AttrValue, ops::CenterCropPad};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{Movement, Operands, Properties},
};
use crate::ir::Value;

impl OnnxOperator for CenterCropPad {
    const READS: &'static [&'static str] = &["CenterCropPad"];
    const EXECUTED: &'static [super::Executed] = &[
        ("CenterCropPad", 18, types![F32, F64, F16, BF16, I8, I32, I64, U8, U32, U64, Bool]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let operands = vec![Some(node.required(0, "input_data")?), Some(node.required(1, "shape")?)];
        let axes = node.ints("axes")?.map(|a| node.all_from_front(a, 0));
        node.emit(CenterCropPad { axes }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(18)?;
        let axes = self.axes.clone().map(|a| ("axes", AttrValue::Ints(a)));
        node.emit("CenterCropPad", axes.into_iter().collect())
    }

    fn properties(&self) -> Properties {
        Properties::moves(Movement::Pads, Operands::FIRST)
    }
}
