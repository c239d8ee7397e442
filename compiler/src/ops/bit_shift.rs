//! BitShift, new in opset 11; signed integers came with opset 28.

use convc_runtime::{
    AttrValue, DType,
    ops::{BitShift, bit_shift::Direction},
};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator, properties::Properties};
use crate::ir::Value;

impl OnnxOperator for BitShift {
    const READS: &'static [&'static str] = &["BitShift"];
    const EXECUTED: &'static [super::Executed] = &[
        ("BitShift", 11, types![U8, U16, U32, U64]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let text = node.string("direction")?.unwrap_or_default();
        let direction = Direction::from_text(&text).ok_or_else(|| {
            ImportError::Invalid(format!("attribute direction is {text:?}, which is neither LEFT nor RIGHT"))
        })?;
        let operands = node.operands().to_vec();
        node.emit(BitShift { direction }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(11)?;
        let signed = |d| matches!(d, DType::I8 | DType::I16 | DType::I32 | DType::I64);
        if node.opset() < 28 && node.dtype(0).is_some_and(signed) {
            return Err(node.refuse("its operands are signed, which it takes from opset 28 on"));
        }
        node.emit("BitShift", vec![("direction", AttrValue::Str(self.direction.text().into()))])
    }

    fn properties(&self) -> Properties {
        Properties::elementwise()
    }
}
