//! BitShift, new in opset 11.

use convc_runtime::{
    AttrValue,
    ops::{BitShift, bit_shift::Direction},
};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator};
use crate::ir::Value;

impl OnnxOperator for BitShift {
    const READS: &'static [&'static str] = &["BitShift"];

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
        node.emit("BitShift", vec![("direction", AttrValue::Str(self.direction.text().into()))])
    }
}
