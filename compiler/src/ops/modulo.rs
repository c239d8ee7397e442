//! Mod, new in opset 10.

use convc_runtime::{AttrValue, ops::Mod};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator};
use crate::ir::Value;

impl OnnxOperator for Mod {
    const READS: &'static [&'static str] = &["Mod"];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let fmod = node.int("fmod")?.unwrap_or(0) != 0;
        let operands = node.operands().to_vec();
        node.emit(Mod { fmod }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(10)?;
        node.emit("Mod", if self.fmod { vec![("fmod", AttrValue::Int(1))] } else { vec![] })
    }
}
