//! Clip. Its bounds are attributes before opset 11; integers are new in opset 12.

use convc_runtime::{AttrValue, DType, Tensor, ops::Clip};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{Effort, Nonnegative, Operands, Properties},
};
use crate::ir::Value;

impl OnnxOperator for Clip {
    const READS: &'static [&'static str] = &["Clip"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Clip", 6, types![F32, BF16]),
        ("Clip", 12, types![F64, F16, I8, I32, I64, U8, U32, U64]),
        ("Clip", 13, types![I16, U16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        if node.opset() >= 11 {
            let operands = node.operands().to_vec();
            return node.emit(Clip {}, operands);
        }
        let x = node.required(0, "input")?;
        let dtype = node.fact(0).map_or(DType::F32, |f| f.dtype);
        let bounds = [node.float("min")?.filter(|&v| v > f32::MIN), node.float("max")?.filter(|&v| v < f32::MAX)];
        let mut operands = vec![Some(x)];
        for bound in bounds {
            let tensor = bound.map(|v| Tensor::scalar(v).rounded_to(dtype));
            operands.push(tensor.map(|t| node.add_constant(&t)).transpose()?);
        }
        node.emit(Clip {}, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        if node.opset() < 12 && node.dtype(0).is_some_and(DType::is_integer) {
            return Err(node.refuse("its operand is of integers, which it takes from opset 12 on"));
        }
        if node.opset() >= 11 {
            return node.emit("Clip", vec![]);
        }
        let mut attrs = Vec::new();
        for (i, name) in [(1, "min"), (2, "max")] {
            if let Some(v) = node.constant_float(i, name)? {
                attrs.push((name, AttrValue::Float(v)));
            }
        }
        let x = node.operand_names().into_iter().take(1).collect();
        let y = node.output_names();
        node.node("Clip", x, y, attrs);
        Ok(())
    }

    fn properties(&self) -> Properties {
        Properties {
            nonnegative: Nonnegative::Where(Operands::Sets(&[&[1, 2], &[0, 2]])),
            monotone: true,
            effort: Effort::FUSES,
            ..Properties::elementwise()
        }
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact, Tensor};

    use crate::ops::testing::{Arg, float, read, read_args, rewritten, write};

    #[test]
    fn bounds_are_attributes_before_opset_11() {
        let x = Tensor::vector(vec![-1f32, 0.5, 7.0]);
        let args = [Arg::Input(Fact::of(&x))];
        for attrs in
            [vec![], vec![float("min", 0.0)], vec![float("max", 6.0)], vec![float("min", 0.0), float("max", 6.0)]]
        {
            let tensors = std::slice::from_ref(&x);
            let old = rewritten("Clip", (6, 10), &args, attrs.clone(), tensors).unwrap();
            assert_eq!((&old[0].attrs, old[0].inputs.len()), (&attrs, 1));
            let new = rewritten("Clip", (6, 13), &args, attrs.clone(), tensors).unwrap();
            assert!(new[0].attrs.is_empty());
        }
        let whole = vec![float("min", f32::MIN), float("max", f32::MAX)];
        let (graph, y) = read("Clip", 6, &[Fact::of(&x)], whole, 1).unwrap();
        assert_eq!(write(&graph, y[0], 13).unwrap()[0].inputs.len(), 1);
    }

    #[test]
    fn what_old_opsets_cannot_say() {
        let f = || Arg::Input(Fact::fixed(DType::F32, &[]));
        let (graph, y) = read_args("Clip", 11, &[f(), f()], vec![], 1).unwrap();
        assert!(write(&graph, y[0], 10).is_err() && write(&graph, y[0], 11).is_ok());
        let i = Arg::Input(Fact::fixed(DType::I32, &[2]));
        let (graph, y) = read_args("Clip", 12, &[i], vec![], 1).unwrap();
        assert!(write(&graph, y[0], 11).is_err() && write(&graph, y[0], 12).is_ok());
    }
}
