//! Normalisation over the last axes: LayerNormalization from opset 17, RMSNormalization from 23.

use convc_runtime::{
    AttrValue, DType,
    ops::{LayerNormalization, RMSNormalization},
};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    batch_norm::{EPSILON, write_epsilon},
    concat::is_last,
    dtype_to_onnx,
    properties::{Operands, Properties},
};
use crate::ir::Value;

/// Takes `stash_type` out, f32 if it is not given.
pub(super) fn read_stash_type(node: &mut NodeReader<'_>) -> Result<DType, ImportError> {
    Ok(node.dtype("stash_type")?.unwrap_or(DType::F32))
}

/// Adds `stash_type` unless it is f32, ONNX's default.
pub(super) fn write_stash_type(dtype: DType, attrs: &mut Vec<(&'static str, AttrValue)>) {
    if dtype != DType::F32 {
        attrs.push(("stash_type", AttrValue::Int(dtype_to_onnx(dtype).into())));
    }
}

fn write_axis(node: &NodeWriter<'_>, axis: i64, attrs: &mut Vec<(&'static str, AttrValue)>) {
    if !is_last(node, axis) {
        attrs.push(("axis", AttrValue::Int(axis)));
    }
}

impl OnnxOperator for LayerNormalization {
    const READS: &'static [&'static str] = &["LayerNormalization"];
    const EXECUTED: &'static [super::Executed] = &[
        ("LayerNormalization", 1, types![F32, F64, F16, BF16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let operands = vec![Some(node.required(0, "X")?), Some(node.required(1, "Scale")?), node.operand(2)];
        let axis = node.axis("axis", -1)?;
        let epsilon = node.float("epsilon")?.unwrap_or(EPSILON);
        let stash_type = read_stash_type(node)?;
        node.emit(LayerNormalization { axis, epsilon, stash_type }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        if node.opset() < 17 {
            return Err(node.refuse("it needs opset 17"));
        }
        let mut attrs = write_epsilon(self.epsilon);
        write_axis(node, self.axis, &mut attrs);
        write_stash_type(self.stash_type, &mut attrs);
        node.emit("LayerNormalization", attrs)
    }

    fn properties(&self) -> Properties {
        Properties::linear(Operands::Sets(&[&[1, 2]]))
    }
}

impl OnnxOperator for RMSNormalization {
    const READS: &'static [&'static str] = &["RMSNormalization"];
    const EXECUTED: &'static [super::Executed] = &[
        ("RMSNormalization", 23, types![F32, F64, F16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let operands = vec![Some(node.required(0, "X")?), Some(node.required(1, "scale")?)];
        let axis = node.axis("axis", -1)?;
        let epsilon = node.float("epsilon")?.unwrap_or(EPSILON);
        let stash_type = read_stash_type(node)?;
        node.emit(RMSNormalization { axis, epsilon, stash_type }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        if node.opset() < 23 {
            return Err(node.refuse("it needs opset 23"));
        }
        let mut attrs = write_epsilon(self.epsilon);
        write_axis(node, self.axis, &mut attrs);
        write_stash_type(self.stash_type, &mut attrs);
        node.emit("RMSNormalization", attrs)
    }

    fn properties(&self) -> Properties {
        Properties::linear(Operands::Sets(&[&[1]]))
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::Fact;

    use super::*;
    use crate::ops::testing::{float, int, read, write};

    #[test]
    fn there_and_back() {
        let inputs = [&[3, 2, 9][..], &[2, 9]].map(|s| Fact::fixed(DType::F32, s));
        for (name, opset) in [("LayerNormalization", 17), ("RMSNormalization", 23)] {
            for attrs in [vec![], vec![float("epsilon", 0.5), int("axis", 1), int("stash_type", 16)]] {
                let (graph, y) = read(name, opset, &inputs, attrs.clone(), 1).unwrap();
                assert_eq!(write(&graph, y[0], opset).unwrap()[0].attrs, attrs);
                assert!(write(&graph, y[0], opset - 1).is_err());
            }
        }
    }

    #[test]
    fn statistics_are_outputs_too() {
        let inputs = [&[3, 2, 9][..], &[9]].map(|s| Fact::fixed(DType::F16, s));
        let (graph, y) = read("LayerNormalization", 17, &inputs, vec![], 3).unwrap();
        assert_eq!(graph.fact(y[2]).unwrap().to_string(), "f32[3, 2, 1]");
        assert_eq!(write(&graph, y[0], 17).unwrap()[0].outputs.len(), 3);
    }
}
