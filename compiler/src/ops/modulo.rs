//! Mod, new in opset 10. Of floats it needs `fmod` before opset 28.

use convc_runtime::{AttrValue, DType, ops::Mod};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator, properties::Properties};
use crate::ir::Value;

impl OnnxOperator for Mod {
    const READS: &'static [&'static str] = &["Mod"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Mod", 10, types![F32, F64, F16, I8, I16, I32, I64, U8, U16, U32, U64]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let fmod = node.int("fmod")?.unwrap_or(0) != 0;
        if !fmod && node.opset() < 28 && node.fact(0).is_some_and(|f| f.dtype.is_float()) {
            return Err(ImportError::Invalid("attribute fmod is 0, but floats need 1 before opset 28".into()));
        }
        let operands = node.operands().to_vec();
        node.emit(Mod { fmod }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(10)?;
        if !self.fmod && node.opset() < 28 && node.dtype(0).is_some_and(DType::is_float) {
            return Err(node.refuse("its operands are floats and fmod is 0, which is possible from opset 28 on"));
        }
        node.emit("Mod", if self.fmod { vec![("fmod", AttrValue::Int(1))] } else { vec![] })
    }

    fn properties(&self) -> Properties {
        Properties { jumps: true, ..Properties::elementwise() }
    }
}
