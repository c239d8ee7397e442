//! Softmax, LogSoftmax, Hardmax. Before opset 13 they run along all axes from `axis` on as one, and `axis` is 1 if it is not
//! given; from opset 13 on along one axis, the last if it is not given.

use convc_runtime::{
    AttrValue, Dim, OpError,
    ops::{Operator, Softmax, softmax::SoftmaxKind},
};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    concat::is_last,
    properties::{Nonnegative, Properties},
};
use crate::ir::Value;

/// Whether `axis` is in range and all axes behind it surely have size 1, so that both meanings are one.
fn alone(shape: Option<&[Dim]>, axis: i64) -> bool {
    let Some(shape) = shape else { return false };
    let front = if axis < 0 { axis + shape.len() as i64 } else { axis };
    let behind = usize::try_from(front).ok().and_then(|a| shape.get(a + 1..));
    behind.is_some_and(|b| b.iter().all(|d| d.as_fixed() == Some(1)))
}

impl OnnxOperator for Softmax {
    const READS: &'static [&'static str] = SoftmaxKind::TEXTS;
    const EXECUTED: &'static [super::Executed] = &[
        ("Softmax", 1, types![F32, F64, F16]),
        ("LogSoftmax", 1, types![F32, F64, F16]),
        ("Hardmax", 1, types![F32, F16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let kind =
            SoftmaxKind::from_text(node.op_type()).ok_or_else(|| OpError::Unsupported(node.op_type().to_owned()))?;
        let x = node.required(0, "input")?;
        let old = node.opset() < 13;
        let axis = node.axis("axis", if old { 1 } else { -1 })?;
        let flatten = old && !alone(node.fact(0).map(|f| &f.shape[..]), axis);
        node.emit(Softmax { kind, axis, flatten }, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let shape = node.operand(0).and_then(|o| Some(o.fact?.shape.clone()));
        let mut axis = [self.axis];
        if node.opset() >= 13 {
            if self.flatten && !alone(shape.as_deref(), self.axis) {
                return Err(node.refuse("it runs along several axes as one, which ended with opset 13"));
            }
            let attrs = if is_last(node, self.axis) { vec![] } else { vec![("axis", AttrValue::Int(self.axis))] };
            return node.emit(self.name(), attrs);
        }
        if node.opset() < 11 || !self.flatten {
            node.count_from_front(0, &mut axis)?;
        }
        let [axis] = axis;
        if self.flatten || alone(shape.as_deref(), axis) {
            return node.emit(self.name(), vec![("axis", AttrValue::Int(axis))]);
        }
        // The axis swaps places with the last one and back.
        let last = shape.map_or(0, |s| s.len() as i64 - 1);
        let swap = (0..=last)
            .map(|a| {
                if a == axis {
                    last
                } else if a == last {
                    axis
                } else {
                    a
                }
            })
            .collect();
        let perm = vec![("perm", AttrValue::Ints(swap))];
        let (x, y) = (node.operand_names(), node.output_names());
        let (turned, soft) = (node.fresh("transposed"), node.fresh("softmax"));
        node.node("Transpose", x, vec![turned.clone()], perm.clone());
        node.node(self.name(), vec![turned], vec![soft.clone()], vec![("axis", AttrValue::Int(last))]);
        node.node("Transpose", vec![soft], y, perm);
        Ok(())
    }

    fn properties(&self) -> Properties {
        match self.kind {
            SoftmaxKind::Softmax => Properties { nonnegative: Nonnegative::Always, ..Properties::continuous() },
            SoftmaxKind::LogSoftmax => Properties::continuous(),
            SoftmaxKind::Hardmax => Properties { nonnegative: Nonnegative::Always, ..Properties::unknown() },
        }
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{Fact, Tensor};

    use super::*;
    use crate::ops::testing::{Arg, int, rewritten};

    #[test]
    fn two_meanings_of_the_axis() {
        let x = Tensor::new([2, 3, 2, 1], (0..12).map(|v| (v * v % 7) as f32).collect()).unwrap();
        let (args, tensors) = ([Arg::Input(Fact::of(&x))], [x]);
        for &kind in SoftmaxKind::ALL {
            let write = |opset, written, axis| {
                let attrs = vec![int("axis", axis)];
                rewritten(kind.text(), (opset, written), &args, attrs, &tensors).map(|n| n.len())
            };
            for axis in -4..4 {
                // The old meaning survives only where one axis is meant.
                let single = matches!(axis, 2 | 3 | -1 | -2);
                for old in [7, 11, 12] {
                    assert_eq!(write(12, old, axis), Ok(1));
                    assert_eq!(write(13, old, axis), Ok(if single { 1 } else { 3 }));
                }
                assert_eq!(write(13, 13, axis), Ok(1));
                assert_eq!(write(12, 13, axis).is_ok(), single);
            }
            rewritten(kind.text(), (12, 7), &args, vec![], &tensors).unwrap();
            assert!(rewritten(kind.text(), (13, 13), &args, vec![], &tensors).unwrap()[0].attrs.is_empty());
        }
    }
}
