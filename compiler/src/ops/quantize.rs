//! QuantizeLinear and DequantizeLinear, new in opset 10; axes came with opset 13, blocks and `output_dtype` of the first with 21,
//! `precision` and `output_dtype` of the second with 23. DynamicQuantizeLinear is new in opset 11.

use convc_runtime::{
    AttrValue, DType,
    ops::{DequantizeLinear, DynamicQuantizeLinear, QuantizeLinear},
};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator, dtype_to_onnx, properties::Properties};
use crate::ir::Value;

/// An element type that is an attribute, 0 standing for none.
fn optional_dtype(node: &mut NodeReader<'_>, name: &str) -> Result<Option<DType>, ImportError> {
    let Some(n) = node.int(name)?.filter(|&n| n != 0) else { return Ok(None) };
    match i32::try_from(n).ok().and_then(super::dtype_from_onnx) {
        Some(d) => Ok(Some(d)),
        None => Err(ImportError::Invalid(format!("attribute {name} is {n}, which is not an element type"))),
    }
}

/// The attributes that both directions share.
fn write(
    node: &NodeWriter<'_>,
    axis: i64,
    block_size: i64,
    dtypes: [(&'static str, Option<DType>, i64); 2],
) -> Result<Vec<(&'static str, AttrValue)>, ExportError> {
    node.since(10)?;
    let mut attrs = Vec::new();
    // Of one scale the axis says nothing.
    let single = node.operand(1).and_then(|o| o.fact?.fixed_shape()).is_some_and(|s| s.iter().product::<usize>() == 1);
    if axis != 1 && !(single && block_size == 0) {
        if node.opset() < 13 {
            return Err(node.refuse("its scales vary along an axis, which is possible from opset 13 on"));
        }
        attrs.push(("axis", AttrValue::Int(axis)));
    } else if !single && node.opset() < 13 {
        return Err(node.refuse("its scales vary along an axis, which is possible from opset 13 on"));
    }
    if block_size != 0 {
        if node.opset() < 21 {
            return Err(node.refuse("its scales vary by block, which is possible from opset 21 on"));
        }
        attrs.push(("block_size", AttrValue::Int(block_size)));
    }
    for (name, dtype, first) in dtypes {
        let Some(d) = dtype else { continue };
        if node.opset() < first {
            return Err(node.refuse(format!("attribute {name} is new in opset {first}")));
        }
        attrs.push((name, AttrValue::Int(dtype_to_onnx(d).into())));
    }
    Ok(attrs)
}

/// The axis: 1, unless it is given. It says nothing where there is one scale, as before opset 13 always.
fn axis(node: &mut NodeReader<'_>) -> Result<i64, ImportError> {
    node.axis("axis", 1)
}

impl OnnxOperator for QuantizeLinear {
    const READS: &'static [&'static str] = &["QuantizeLinear"];
    const EXECUTED: &'static [super::Executed] = &[
        ("QuantizeLinear", 10, types![I8, I16, U8, U16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let axis = axis(node)?;
        let block_size = node.int("block_size")?.unwrap_or(0);
        let output_dtype = optional_dtype(node, "output_dtype")?;
        let precision = optional_dtype(node, "precision")?;
        // It matters for 8-bit floats only, which are not executed.
        node.int("saturate")?;
        let operands = node.operands().to_vec();
        node.emit(QuantizeLinear { axis, block_size, output_dtype, precision }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let dtypes = [("output_dtype", self.output_dtype, 21), ("precision", self.precision, 23)];
        let attrs = write(node, self.axis, self.block_size, dtypes)?;
        node.emit("QuantizeLinear", attrs)
    }

    fn properties(&self) -> Properties {
        Properties::unknown()
    }
}

impl OnnxOperator for DequantizeLinear {
    const READS: &'static [&'static str] = &["DequantizeLinear"];
    const EXECUTED: &'static [super::Executed] = &[
        ("DequantizeLinear", 10, types![F32, F16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let axis = axis(node)?;
        let block_size = node.int("block_size")?.unwrap_or(0);
        let output_dtype = optional_dtype(node, "output_dtype")?;
        let operands = node.operands().to_vec();
        node.emit(DequantizeLinear { axis, block_size, output_dtype }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let dtypes = [("output_dtype", self.output_dtype, 23), ("", None, 0)];
        let attrs = write(node, self.axis, self.block_size, dtypes)?;
        node.emit("DequantizeLinear", attrs)
    }

    fn properties(&self) -> Properties {
        Properties::continuous()
    }
}

impl OnnxOperator for DynamicQuantizeLinear {
    const READS: &'static [&'static str] = &["DynamicQuantizeLinear"];
    const EXECUTED: &'static [super::Executed] = &[
        ("DynamicQuantizeLinear", 11, types![U8]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let operands = node.operands().to_vec();
        node.emit(DynamicQuantizeLinear {}, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(11)?;
        node.emit("DynamicQuantizeLinear", vec![])
    }

    fn properties(&self) -> Properties {
        Properties::unknown()
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{Fact, Tensor};

    use crate::ops::testing::{Arg, int, rewritten};

    #[test]
    fn granularity_by_opset() {
        let x = Tensor::new([2, 4], (0..8).map(|v| v as f32).collect()).unwrap();
        let q = Tensor::new([2, 4], (0..8).collect::<Vec<u8>>()).unwrap();
        let scales = [
            (Tensor::scalar(0.5f32), vec![], 10),
            (Tensor::vector(vec![0.5f32, 0.25]), vec![int("axis", 0)], 13),
            (Tensor::vector(vec![0.5f32, 0.25, 1.0, 2.0]), vec![], 13),
            (Tensor::new([2, 2], vec![0.5f32, 0.25, 1.0, 2.0]).unwrap(), vec![int("block_size", 2)], 21),
        ];
        for (name, x) in [("QuantizeLinear", &x), ("DequantizeLinear", &q)] {
            for (scale, attrs, first) in &scales {
                let args = [Arg::Input(Fact::of(x)), Arg::Constant(scale.clone())];
                let at = |opset| rewritten(name, (28, opset), &args, attrs.clone(), std::slice::from_ref(x));
                assert_eq!((7..=28).find(|&opset| at(opset).is_ok()), Some(*first), "{name} {attrs:?}");
                assert_eq!(&at(28).unwrap()[0].attrs, attrs);
            }
        }
    }
}
