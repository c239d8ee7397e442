//! Expand (since opset 8) and Tile.

use convc_runtime::ops::{Expand, Tile};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{Movement, Operands, Properties},
};
use crate::ir::Value;

impl OnnxOperator for Expand {
    const READS: &'static [&'static str] = &["Expand"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Expand", 8, types![F32, F64, F16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Str]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let (x, shape) = (node.required(0, "input")?, node.required(1, "shape")?);
        node.emit(Expand {}, vec![Some(x), Some(shape)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        if node.opset() < 8 {
            return Err(node.refuse("the operator exists since opset 8"));
        }
        node.emit("Expand", Vec::new())
    }

    fn properties(&self) -> Properties {
        Properties::moves(Movement::Picks, Operands::FIRST)
    }
}

impl OnnxOperator for Tile {
    const READS: &'static [&'static str] = &["Tile"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Tile", 6, types![F32, F64, F16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Str]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let (x, repeats) = (node.required(0, "input")?, node.required(1, "repeats")?);
        node.emit(Tile {}, vec![Some(x), Some(repeats)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.emit("Tile", Vec::new())
    }

    fn properties(&self) -> Properties {
        Properties::moves(Movement::Picks, Operands::FIRST)
    }
}
