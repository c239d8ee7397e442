//! Reshape, Flatten, Squeeze, Unsqueeze, Identity. Squeeze and Unsqueeze name their axes in an attribute before opset 13;
//! `allowzero` exists since opset 14. Dropout is read here too: outside training it is the identity.

use convc_runtime::{
    AttrValue, DType, Tensor,
    ops::{ConstantOfShape, Flatten, Identity, Reshape, Shape, Squeeze, Unsqueeze},
};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator, properties::Properties};
use crate::ir::Value;

/// The axes of an operator that names them in an attribute before opset `since`, as an operand.
pub(super) fn axes_operand(node: &mut NodeReader<'_>, since: i64) -> Result<Option<Value>, ImportError> {
    if node.opset() >= since {
        return Ok(node.operand(1));
    }
    match node.ints("axes")? {
        Some(axes) => Ok(Some(node.add_ints(&axes)?)),
        None => Ok(None),
    }
}

/// The name of operand 0, for opsets that have other operands as attributes.
pub(super) fn first_name(node: &NodeWriter<'_>) -> Vec<String> {
    node.operand_names().into_iter().take(1).collect()
}

/// The inverse of [`axes_operand`]: writes the node with axes as attribute or operand.
pub(super) fn write_axes(node: &mut NodeWriter<'_>, op_type: &str, since: i64) -> Result<(), ExportError> {
    if node.opset() >= since {
        return node.emit(op_type, Vec::new());
    }
    let axes = node.constant_ints(1, "axes")?;
    let attrs = axes.map(|a| ("axes", AttrValue::Ints(a))).into_iter().collect();
    node.node(op_type, first_name(node), node.output_names(), attrs);
    Ok(())
}

impl OnnxOperator for Reshape {
    const READS: &'static [&'static str] = &["Reshape"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Reshape", 1, types![F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Str]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let (x, shape) = (node.required(0, "data")?, node.required(1, "shape")?);
        let allowzero = node.int("allowzero")?.unwrap_or(0) != 0;
        node.emit(Reshape { allowzero }, vec![Some(x), Some(shape)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        if !self.allowzero {
            return node.emit("Reshape", Vec::new());
        }
        if node.opset() < 14 {
            // Without a 0 the attribute says nothing.
            let shape = node.operand(1).and_then(|o| o.fact?.dims());
            if !shape.is_some_and(|d| d.iter().all(|d| d.at_least(1) == Some(true) || d.as_fixed() == Some(-1))) {
                return Err(node.refuse("a shape that may hold literal zeros"));
            }
            return node.emit("Reshape", Vec::new());
        }
        node.emit("Reshape", vec![("allowzero", AttrValue::Int(1))])
    }

    fn properties(&self) -> Properties {
        Properties::view()
    }
}

impl OnnxOperator for Flatten {
    const READS: &'static [&'static str] = &["Flatten"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Flatten", 1, types![F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Str]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "input")?;
        let axis = node.axis("axis", 1)?;
        node.emit(Flatten { axis }, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let rank = node.operand(0).and_then(|o| o.fact).map(|f| f.rank() as i64);
        let axis = match (self.axis, rank) {
            (a, _) if a >= 0 || node.opset() >= 11 => a,
            (a, Some(r)) => a + r,
            _ => return Err(node.refuse("a negative axis")),
        };
        node.emit("Flatten", vec![("axis", AttrValue::Int(axis))])
    }

    fn properties(&self) -> Properties {
        Properties::view()
    }
}

impl OnnxOperator for Squeeze {
    const READS: &'static [&'static str] = &["Squeeze"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Squeeze", 1, types![F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Str]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "data")?;
        let axes = axes_operand(node, 13)?;
        node.emit(Squeeze {}, vec![Some(x), axes])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        write_axes(node, "Squeeze", 13)
    }

    fn properties(&self) -> Properties {
        Properties::view()
    }
}

impl OnnxOperator for Unsqueeze {
    const READS: &'static [&'static str] = &["Unsqueeze"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Unsqueeze", 1, types![F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Str]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "data")?;
        let axes = axes_operand(node, 13)?;
        node.emit(Unsqueeze {}, vec![Some(x), axes])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        write_axes(node, "Unsqueeze", 13)
    }

    fn properties(&self) -> Properties {
        Properties::view()
    }
}

impl OnnxOperator for Identity {
    const READS: &'static [&'static str] = &["Identity", "Dropout"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Identity", 1, types![F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Str]),
        ("Dropout", 7, types![F32, F64, F16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "input")?;
        if node.op_type() == "Identity" {
            return node.emit(Identity {}, vec![Some(x)]);
        }
        dropout(node, x)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.emit("Identity", Vec::new())
    }

    fn properties(&self) -> Properties {
        Properties::view()
    }
}

/// Dropout outside training: the data, and a mask that is true everywhere.
fn dropout(node: &mut NodeReader<'_>, x: Value) -> Result<Vec<Value>, ImportError> {
    let mut ratio = node.float("ratio")?.map(f64::from);
    node.int("seed")?;
    if let Some(r) = node.operand(1) {
        ratio = node.fact_of(r).and_then(|f| f.f64s()?.first().copied());
    }
    if node.operand(2).is_some() {
        let training = node.constant(2).and_then(|t| t.to_i64s()?.first().copied());
        if training != Some(0) && ratio != Some(0.0) {
            return Err(ImportError::Unsupported("Dropout in training mode".into()));
        }
    }
    node.finish()?;
    let mut outputs = node.add(Identity {}, vec![Some(x)], 1)?;
    if node.outputs() > 1 {
        // Before opset 10 the mask has the type of the data.
        let value = if node.opset() >= 10 {
            Tensor::vector(vec![true])
        } else {
            let dtype = node.fact_of(x).map(|f| f.dtype);
            let ones = Tensor::vector(vec![1.0f32]);
            match dtype {
                Some(d @ (DType::F32 | DType::F16 | DType::F64)) => ones.rounded_to(d),
                _ => return Err(ImportError::Unsupported("the mask of Dropout for data of unknown type".into())),
            }
        };
        let shape = node.add(Shape { start: 0, end: None }, vec![Some(x)], 1)?;
        outputs.extend(node.add(ConstantOfShape { value }, vec![shape.first().copied()], 1)?);
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use convc_runtime::{AttrValue, DType, Fact, Tensor};

    use crate::ops::testing::{Arg, float, int, ints, read, read_args, write};

    #[test]
    fn axes_move_between_attribute_and_operand() {
        let x = Fact::fixed(DType::F32, &[1, 3, 1]);
        for (op, shape) in [("Squeeze", vec![3]), ("Unsqueeze", vec![1, 1, 3, 1, 1])] {
            let axes = if op == "Squeeze" { [0, 2] } else { [0, 4] };
            let (graph, y) = read(op, 11, std::slice::from_ref(&x), vec![ints("axes", &axes)], 1).unwrap();
            assert_eq!(graph.fact(y[0]).and_then(Fact::fixed_shape), Some(shape));
            let old = write(&graph, y[0], 7).unwrap().remove(0);
            assert_eq!((old.inputs.len(), old.attrs), (1, vec![ints("axes", &axes)]));
            let new = write(&graph, y[0], 13).unwrap().remove(0);
            assert_eq!((new.inputs.len(), new.attrs.len()), (2, 0));
        }
        let unknown = [x, Fact::fixed(DType::I64, &[1])];
        let (graph, y) = read("Squeeze", 13, &unknown, vec![], 1).unwrap();
        assert!(write(&graph, y[0], 13).is_ok() && write(&graph, y[0], 12).unwrap_err().problem.contains("axes"));
    }

    #[test]
    fn literal_zeros_need_their_attribute() {
        let args = |shape: &[i64]| {
            [Arg::Input(Fact::fixed(DType::F32, &[0, 3])), Arg::Constant(Tensor::vector(shape.to_vec()))]
        };
        let zero = vec![int("allowzero", 1)];
        let (graph, y) = read_args("Reshape", 14, &args(&[3, 0]), zero.clone(), 1).unwrap();
        assert_eq!(write(&graph, y[0], 14).unwrap()[0].attrs, zero);
        assert!(write(&graph, y[0], 13).is_err());
        let (graph, y) = read_args("Reshape", 14, &args(&[-1, 3]), zero, 1).unwrap();
        assert!(write(&graph, y[0], 13).unwrap()[0].attrs.is_empty());
    }

    #[test]
    fn flatten_counts_from_the_front_where_it_must() {
        let (graph, y) = read("Flatten", 11, &[Fact::fixed(DType::F32, &[2, 3, 4])], vec![int("axis", -1)], 1).unwrap();
        assert_eq!(write(&graph, y[0], 11).unwrap()[0].attrs, [int("axis", 2)]);
        assert_eq!(write(&graph, y[0], 9).unwrap()[0].attrs, [int("axis", 2)]);
    }

    #[test]
    fn dropout_is_the_identity_outside_training() {
        let x = Fact::fixed(DType::F32, &[2]);
        let (graph, y) = read("Dropout", 10, std::slice::from_ref(&x), vec![float("ratio", 0.5)], 2).unwrap();
        assert_eq!(graph.node(y[0].node).op().map(convc_runtime::Op::name), Some("Identity"));
        assert_eq!(graph.fact(y[1]).map(|f| f.dtype), Some(DType::Bool));
        let (graph, y) = read("Dropout", 7, std::slice::from_ref(&x), vec![], 2).unwrap();
        assert_eq!(graph.fact(y[1]).map(|f| f.dtype), Some(DType::F32));
        let training = |ratio: f32, on: bool| {
            let args = [Arg::Input(x.clone()), Arg::Constant(Tensor::scalar(ratio)), Arg::Constant(Tensor::scalar(on))];
            read_args("Dropout", 13, &args, vec![], 1).is_ok()
        };
        assert!(training(0.5, false) && training(0.0, true) && !training(0.5, true));
        let constant = AttrValue::Int(1);
        assert!(read("Dropout", 13, &[x], vec![("other".into(), constant)], 1).is_err());
    }
}
