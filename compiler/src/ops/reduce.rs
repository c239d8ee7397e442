//! Reductions. The axes are an attribute before opset 13 (ReduceSum) or 18 (the others).

use convc_runtime::{
    AttrValue, OpError,
    ops::{Operator, Reduce, reduce::ReduceKind},
};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{Nonnegative, Operands, Properties},
};
use crate::ir::Value;

/// The opset from which on the axes are an operand.
fn operand_since(kind: ReduceKind) -> i64 {
    if kind == ReduceKind::ReduceSum { 13 } else { 18 }
}

impl OnnxOperator for Reduce {
    const READS: &'static [&'static str] = ReduceKind::TEXTS;
    const EXECUTED: &'static [super::Executed] = &[
        ("ReduceSum", 1, types![F32, F64, F16, I32, I64]),
        ("ReduceMean", 1, types![F32, F64, F16, I32, I64]),
        ("ReduceMax", 1, types![F32, F64, F16, I32, I64]),
        ("ReduceMax", 12, types![I8, U8]),
        ("ReduceMax", 20, types![Bool]),
        ("ReduceMin", 1, types![F32, F64, F16, I32, I64]),
        ("ReduceMin", 12, types![I8, U8]),
        ("ReduceMin", 20, types![Bool]),
        ("ReduceProd", 1, types![F32, F64, F16, I32, I64]),
        ("ReduceL1", 1, types![F32, F64, F16, I32, I64]),
        ("ReduceL2", 1, types![F32, F64, F16, I32, I64]),
        ("ReduceLogSum", 1, types![F32, F64, F16, I32, I64]),
        ("ReduceLogSumExp", 1, types![F32, F64, F16, I32, I64]),
        ("ReduceSumSquare", 1, types![F32, F64, F16, I32, I64]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let kind =
            ReduceKind::from_text(node.op_type()).ok_or_else(|| OpError::Unsupported(node.op_type().to_owned()))?;
        let x = node.required(0, "data")?;
        let keepdims = node.int("keepdims")?.unwrap_or(1) != 0;
        let (mut axes, mut noop_with_empty_axes) = (None, false);
        if node.opset() >= operand_since(kind) {
            axes = node.operand(1);
            noop_with_empty_axes = node.int("noop_with_empty_axes")?.unwrap_or(0) != 0;
        } else if let Some(list) = node.ints("axes")?.filter(|a| !a.is_empty()) {
            axes = Some(node.add_ints(&list)?);
        }
        node.emit(Reduce { kind, keepdims, noop_with_empty_axes }, vec![Some(x), axes])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let mut attrs = Vec::new();
        if !self.keepdims {
            attrs.push(("keepdims", AttrValue::Int(0)));
        }
        if node.opset() >= operand_since(self.kind) {
            if self.noop_with_empty_axes {
                attrs.push(("noop_with_empty_axes", AttrValue::Int(1)));
            }
            return node.emit(self.name(), attrs);
        }
        let mut axes = node.constant_ints(1, "axes")?.unwrap_or_default();
        if axes.is_empty() && self.noop_with_empty_axes {
            use ReduceKind as K;
            return match self.kind {
                K::ReduceL1 | K::ReduceL2 => node.emit_first("Abs"),
                K::ReduceLogSum => node.emit_first("Log"),
                K::ReduceSumSquare => {
                    let x = node.operand_names().first().cloned().unwrap_or_default();
                    let y = node.output_names();
                    node.node("Mul", vec![x.clone(), x], y, vec![]);
                    Ok(())
                }
                _ => node.emit_first("Identity"),
            };
        }
        if node.opset() < 11 {
            node.count_from_front(0, &mut axes)?;
        }
        if !axes.is_empty() {
            attrs.push(("axes", AttrValue::Ints(axes)));
        }
        let x = node.operand_names().into_iter().take(1).collect();
        let y = node.output_names();
        node.node(self.name(), x, y, attrs);
        Ok(())
    }

    fn properties(&self) -> Properties {
        use ReduceKind as K;
        match self.kind {
            K::ReduceSum | K::ReduceMean => Properties::averages(),
            // A maximum of nothing is the least number of all.
            K::ReduceMax => Properties { monotone: true, ..Properties::continuous() },
            K::ReduceMin => Properties {
                nonnegative: Nonnegative::Where(Operands::FIRST),
                monotone: true,
                ..Properties::continuous()
            },
            K::ReduceProd => {
                Properties { nonnegative: Nonnegative::Where(Operands::FIRST), ..Properties::continuous() }
            }
            K::ReduceL1 | K::ReduceL2 | K::ReduceSumSquare => {
                Properties { zeros: Operands::FIRST, nonnegative: Nonnegative::Always, ..Properties::continuous() }
            }
            K::ReduceLogSum | K::ReduceLogSumExp => Properties { monotone: true, ..Properties::continuous() },
        }
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{Fact, Tensor};

    use super::*;
    use crate::ops::testing::{Arg, int, ints, rewritten};

    #[test]
    fn axes_move_between_attribute_and_operand() {
        let x = Tensor::new([2, 3, 2], (1..13).map(|v| v as f32).collect()).unwrap();
        let (data, tensors) = (Arg::Input(Fact::of(&x)), [x]);
        for &kind in ReduceKind::ALL {
            let (name, first) = (kind.text(), operand_since(kind));
            let attrs = vec![int("keepdims", 0), ints("axes", &[-1, 0])];
            let node = &rewritten(name, (11, 28), std::slice::from_ref(&data), attrs.clone(), &tensors).unwrap()[0];
            assert_eq!((node.inputs.len(), node.attrs.len()), (2, 1));
            let node = &rewritten(name, (11, first - 1), std::slice::from_ref(&data), attrs, &tensors).unwrap()[0];
            assert_eq!((node.inputs.len(), node.attrs.len()), (1, 2));
            let args = [data.clone(), Arg::Constant(Tensor::vector(vec![-1i64]))];
            let node = &rewritten(name, (28, 7), &args, vec![], &tensors).unwrap()[0];
            assert_eq!(node.attrs, [ints("axes", &[2])]);
            // No axes mean all, or none.
            let args = [data.clone(), Arg::Constant(Tensor::vector(Vec::<i64>::new()))];
            for noop in [0, 1] {
                let attrs = vec![int("noop_with_empty_axes", noop)];
                for opset in [7, 12, first - 1, first] {
                    rewritten(name, (28, opset), &args, attrs.clone(), &tensors).unwrap();
                }
            }
            let args = [data.clone(), Arg::Input(Fact::of(&Tensor::vector(vec![1i64])))];
            let both = [tensors[0].clone(), Tensor::vector(vec![1i64])];
            assert!(rewritten(name, (28, first), &args, vec![], &both).is_ok());
            assert!(rewritten(name, (28, first - 1), &args, vec![], &both).is_err());
        }
    }
}
