//! NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss, new in opset 12.

use convc_runtime::{
    AttrValue, OpError,
    ops::{
        Loss, Operator,
        loss::{LossKind, Reduction},
    },
};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator, properties::Properties};
use crate::ir::Value;

impl OnnxOperator for Loss {
    const READS: &'static [&'static str] = LossKind::TEXTS;
    const EXECUTED: &'static [super::Executed] = &[
        ("NegativeLogLikelihoodLoss", 12, types![F32, F64, F16]),
        ("SoftmaxCrossEntropyLoss", 12, types![F32, F64, F16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let kind =
            LossKind::from_text(node.op_type()).ok_or_else(|| OpError::Unsupported(node.op_type().to_owned()))?;
        let text = node.string("reduction")?.unwrap_or_else(|| "mean".into());
        let reduction = Reduction::from_text(&text).ok_or_else(|| {
            ImportError::Invalid(format!("attribute reduction is {text:?}, which is not one of none, sum, mean"))
        })?;
        let ignore_index = node.int("ignore_index")?;
        let operands = node.operands().to_vec();
        node.emit(Loss { kind, reduction, ignore_index }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(12)?;
        let mut attrs = Vec::new();
        if let Some(i) = self.ignore_index {
            attrs.push(("ignore_index", AttrValue::Int(i)));
        }
        if self.reduction != Reduction::Mean {
            attrs.push(("reduction", AttrValue::Str(self.reduction.text().into())));
        }
        node.emit(self.name(), attrs)
    }

    fn properties(&self) -> Properties {
        Properties::unknown()
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{Fact, Tensor};

    use super::*;
    use crate::ops::testing::{Arg, int, rewritten, string};

    #[test]
    fn attributes_come_back() {
        let x = Tensor::new([2, 3], vec![0.1f32, 0.2, 0.3, -1.0, 0.0, 1.0]).unwrap();
        let target = Tensor::vector(vec![1i64, 2]);
        let args = [Arg::Input(Fact::of(&x)), Arg::Constant(target)];
        for &kind in LossKind::ALL {
            for attrs in [vec![], vec![int("ignore_index", 1), string("reduction", "sum")]] {
                let nodes = rewritten(kind.text(), (13, 12), &args, attrs.clone(), std::slice::from_ref(&x)).unwrap();
                assert_eq!(nodes[0].attrs, attrs);
            }
            assert!(rewritten(kind.text(), (13, 11), &args, vec![], std::slice::from_ref(&x)).is_err());
        }
    }
}
