//! NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss, new in opset 12.

use convc_runtime::{
    AttrValue, OpError,
    ops::{
        Loss, Operator,
        loss::{LossKind, Reduction},
    },
};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator};
use crate::ir::Value;

impl OnnxOperator for Loss {
    const READS: &'static [&'static str] = LossKind::TEXTS;

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let kind = LossKind::from_text(node.op_type()).ok_or_else(|| OpError::Unsupported(node.op_type().to_owned()))?;
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
}
