//! Max, Min, Sum, Mean. They broadcast from opset 8 on; Max and Min take integers from opset 12 on.

use convc_runtime::{
    DType, OpError,
    ops::{Operator, Variadic, variadic::VariadicKind},
};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{Nonnegative, Operands, Properties},
};
use crate::ir::Value;

/// Whether all operands surely have the same shape.
fn same_shapes(node: &NodeWriter<'_>) -> bool {
    let shape = |i| node.operand(i).and_then(|o| Some(&o.fact?.shape));
    (1..node.operand_names().len()).all(|i| shape(0).is_some() && shape(i) == shape(0))
}

impl OnnxOperator for Variadic {
    const READS: &'static [&'static str] = VariadicKind::TEXTS;
    const EXECUTED: &'static [super::Executed] = &[
        ("Max", 6, types![F32]),
        ("Max", 8, types![F64]),
        ("Max", 12, types![F16, I8, I32, I64, U8, U32, U64]),
        ("Min", 6, types![F32]),
        ("Min", 8, types![F64]),
        ("Min", 12, types![F16, I8, I32, I64, U8, U32, U64]),
        ("Sum", 6, types![F32, F64, F16]),
        ("Mean", 6, types![F32, F16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let kind =
            VariadicKind::from_text(node.op_type()).ok_or_else(|| OpError::Unsupported(node.op_type().to_owned()))?;
        let operands = node.operands().to_vec();
        node.emit(Variadic { kind }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        if node.opset() < 12 && node.dtype(0).is_some_and(DType::is_integer) {
            return Err(node.refuse("its operands are integers, which it takes from opset 12 on"));
        }
        if node.opset() < 8 && !same_shapes(node) {
            return Err(node.refuse("its operands have different shapes, and it broadcasts from opset 8 on"));
        }
        node.emit(self.name(), vec![])
    }

    fn properties(&self) -> Properties {
        let linear = |sets| Properties { elementwise: true, monotone: true, ..Properties::linear(sets) };
        let nonnegative = |sets| Nonnegative::Where(sets);
        match self.kind {
            VariadicKind::Max => {
                Properties { linear: Operands::None, nonnegative: nonnegative(Operands::Each), ..linear(Operands::All) }
            }
            VariadicKind::Min => {
                Properties { linear: Operands::None, nonnegative: nonnegative(Operands::All), ..linear(Operands::All) }
            }
            // In another order a sum of three is rounded elsewhere.
            VariadicKind::Sum | VariadicKind::Mean => {
                Properties { nonnegative: nonnegative(Operands::All), ..linear(Operands::All) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{Fact, Tensor};

    use super::*;
    use crate::ops::testing::{Arg, rewritten};

    #[test]
    fn broadcasting_and_integers_by_opset() {
        let (a, b) = (Tensor::vector(vec![1f32, -2.0]), Tensor::scalar(0.5f32));
        let i = Tensor::vector(vec![1i64, 2]);
        let first = |kind: VariadicKind, x: &[Tensor]| {
            let args: Vec<Arg> = x.iter().map(|x| Arg::Input(Fact::of(x))).collect();
            (7..=28).find(|&opset| rewritten(kind.text(), (28, opset), &args, vec![], x).is_ok())
        };
        for &kind in VariadicKind::ALL {
            assert_eq!(first(kind, std::slice::from_ref(&a)), Some(7));
            assert_eq!(first(kind, &[a.clone(), a.clone(), a.clone()]), Some(7));
            assert_eq!(first(kind, &[a.clone(), b.clone()]), Some(8));
        }
        assert_eq!(first(VariadicKind::Max, &[i.clone(), i.clone()]), Some(12));
    }
}
