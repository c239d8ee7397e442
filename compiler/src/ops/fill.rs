//! ConstantOfShape (since opset 9), Range (11), EyeLike (9). Range has `stash_type` since opset 27.

use convc_runtime::{
    AttrValue, Tensor,
    ops::{ConstantOfShape, EyeLike, Range},
};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    cast::dtype_attr,
    properties::{Nonnegative, Properties},
};
use crate::ir::Value;

impl OnnxOperator for ConstantOfShape {
    const READS: &'static [&'static str] = &["ConstantOfShape"];
    const EXECUTED: &'static [super::Executed] = &[
        ("ConstantOfShape", 9, types![F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64, Bool]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let shape = node.required(0, "input")?;
        let value = match node.take("value") {
            None => Tensor::vector(vec![0.0f32]),
            Some(AttrValue::Tensor(t)) => t,
            Some(other) => return Err(ImportError::Invalid(format!("attribute value is {other}, a tensor is needed"))),
        };
        node.emit(ConstantOfShape { value }, vec![Some(shape)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        if node.opset() >= 9 {
            let value = self.value.reshaped([1]).map_err(|e| node.refuse(e.to_string()))?;
            return node.emit("ConstantOfShape", vec![("value", AttrValue::Tensor(value))]);
        }
        if node.opset() < 8 {
            return Err(node.refuse("the operator exists since opset 9"));
        }
        let value = self.value.reshaped([]).map_err(|e| node.refuse(e.to_string()))?;
        let mut inputs = vec![node.constant("value", value)];
        inputs.extend(node.operand_names());
        node.node("Expand", inputs, node.output_names(), Vec::new());
        Ok(())
    }

    fn properties(&self) -> Properties {
        Properties::continuous()
    }
}

impl OnnxOperator for Range {
    const READS: &'static [&'static str] = &["Range"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Range", 11, types![F32, F64, I16, I32, I64]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        if let Some(stash) = node.int("stash_type")?.filter(|&s| s != 1) {
            return Err(ImportError::Unsupported(format!("attribute stash_type ({stash}) of Range")));
        }
        let operands =
            vec![Some(node.required(0, "start")?), Some(node.required(1, "limit")?), Some(node.required(2, "delta")?)];
        node.emit(Range {}, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        if node.opset() < 11 {
            return Err(node.refuse("the operator exists since opset 11"));
        }
        node.emit("Range", Vec::new())
    }

    fn properties(&self) -> Properties {
        Properties::unknown()
    }
}

impl OnnxOperator for EyeLike {
    const READS: &'static [&'static str] = &["EyeLike"];
    const EXECUTED: &'static [super::Executed] = &[
        ("EyeLike", 9, types![F32, F64, F16, I32, I64, U64]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "input")?;
        let (dtype, k) = (node.dtype("dtype")?, node.int("k")?.unwrap_or(0));
        node.emit(EyeLike { dtype, k }, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        if node.opset() < 9 {
            return Err(node.refuse("the operator exists since opset 9"));
        }
        let mut attrs: Vec<_> = self.dtype.map(|d| ("dtype", dtype_attr(d))).into_iter().collect();
        if self.k != 0 {
            attrs.push(("k", AttrValue::Int(self.k)));
        }
        node.emit("EyeLike", attrs)
    }

    fn properties(&self) -> Properties {
        Properties { nonnegative: Nonnegative::Always, ..Properties::continuous() }
    }
}
