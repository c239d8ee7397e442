//! Functions of one argument. The opsets of each differ in element types only; those that came late are written as
//! compositions before.

use convc_runtime::{
    AttrValue, OpError,
    ops::{Operator, Unary, unary::UnaryKind},
};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator, properties::Properties};
use crate::ir::Value;

/// ONNX's names of the parameters.
fn parameters(kind: UnaryKind) -> (&'static str, &'static str) {
    match kind {
        UnaryKind::Selu => ("alpha", "gamma"),
        UnaryKind::Shrink => ("lambd", "bias"),
        _ => ("alpha", "beta"),
    }
}

/// The opset that introduced the operator.
fn first_opset(kind: UnaryKind) -> i64 {
    use UnaryKind as K;
    match kind {
        K::Erf | K::Sign | K::Sinh | K::Cosh | K::Asinh | K::Acosh | K::Atanh | K::Shrink => 9,
        K::ThresholdedRelu => 10,
        K::Round => 11,
        K::Celu => 12,
        K::HardSwish => 14,
        K::Mish => 18,
        K::Swish => 24,
        _ => 7,
    }
}

impl OnnxOperator for Unary {
    const READS: &'static [&'static str] = UnaryKind::TEXTS;
    const EXECUTED: &'static [super::Executed] = &[
        ("Relu", 6, types![F32, F64, F16]),
        ("Relu", 14, types![I8, I32]),
        ("LeakyRelu", 6, types![F32, F16]),
        ("Elu", 6, types![F32, F16]),
        ("Selu", 6, types![F32, F16]),
        ("Celu", 12, types![F32]),
        ("ThresholdedRelu", 1, types![F32, F16]),
        ("HardSigmoid", 6, types![F32, F16]),
        ("HardSwish", 14, types![F32, F16]),
        ("Sigmoid", 6, types![F32, F64, F16]),
        ("Softplus", 1, types![F32, F16]),
        ("Softsign", 1, types![F32, F16]),
        ("Tanh", 6, types![F32, F64, F16]),
        ("Mish", 18, types![F32, F16]),
        ("Swish", 24, types![F32, F64, F16]),
        ("Erf", 9, types![F32, F16]),
        ("Exp", 6, types![F32, F64, F16]),
        ("Log", 6, types![F32, F64, F16]),
        ("Sqrt", 6, types![F32, F64, F16]),
        ("Reciprocal", 6, types![F32, F64, F16]),
        ("Neg", 6, types![F32, F64, F16, I8, I16, I32, I64]),
        ("Abs", 6, types![F32, F64, F16, I8, I16, I32, I64, U8, U16, U32, U64]),
        ("Sign", 9, types![F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64]),
        ("Floor", 6, types![F32, F64, F16]),
        ("Ceil", 6, types![F32, F64, F16]),
        ("Round", 11, types![F32, F64, F16]),
        ("Sin", 7, types![F32, F64, F16]),
        ("Cos", 7, types![F32, F64, F16]),
        ("Tan", 7, types![F32, F16]),
        ("Asin", 7, types![F32, F16]),
        ("Acos", 7, types![F32, F16]),
        ("Atan", 7, types![F32, F16]),
        ("Sinh", 9, types![F32, F16]),
        ("Cosh", 9, types![F32, F16]),
        ("Asinh", 9, types![F32, F16]),
        ("Acosh", 9, types![F32, F16]),
        ("Atanh", 9, types![F32, F16]),
        ("Shrink", 9, types![F32, F64, F16, I8, I16, I32, I64, U8, U16, U32, U64]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let kind =
            UnaryKind::from_text(node.op_type()).ok_or_else(|| OpError::Unsupported(node.op_type().to_owned()))?;
        let x = node.required(0, "X")?;
        let mut op = Unary::new(kind);
        let (alpha, beta) = parameters(kind);
        for (name, parameter) in [(alpha, &mut op.alpha), (beta, &mut op.beta)] {
            if parameter.is_some() {
                *parameter = node.float(name)?.or(*parameter);
            }
        }
        node.emit(op, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        if node.opset() >= first_opset(self.kind) {
            let ((alpha, beta), (a, b)) = (parameters(self.kind), self.kind.defaults());
            let attrs = [(alpha, self.alpha, a), (beta, self.beta, b)]
                .into_iter()
                .filter(|(_, v, default)| v != default)
                .filter_map(|(name, v, _)| Some((name, AttrValue::Float(v?))))
                .collect();
            return node.emit(self.name(), attrs);
        }
        let (x, y) = (node.operand_names(), node.output_names());
        let x0 = x.first().cloned().unwrap_or_default();
        match self.kind {
            UnaryKind::HardSwish => {
                let gate = node.fresh("gate");
                let attrs = vec![("alpha", AttrValue::Float(1.0 / 6.0)), ("beta", AttrValue::Float(0.5))];
                node.node("HardSigmoid", x, vec![gate.clone()], attrs);
                node.node("Mul", vec![x0, gate], y, vec![]);
            }
            UnaryKind::Mish => {
                let (soft, gate) = (node.fresh("softplus"), node.fresh("gate"));
                node.node("Softplus", x, vec![soft.clone()], vec![]);
                node.node("Tanh", vec![soft], vec![gate.clone()], vec![]);
                node.node("Mul", vec![x0, gate], y, vec![]);
            }
            UnaryKind::Swish => {
                let gate = node.fresh("gate");
                let alpha = self.alpha.unwrap_or(1.0);
                let mut scaled = x0.clone();
                if alpha != 1.0 {
                    let a = node.float_like(0, "alpha", alpha.into());
                    scaled = node.fresh("scaled");
                    node.node("Mul", vec![a, x0.clone()], vec![scaled.clone()], vec![]);
                }
                node.node("Sigmoid", vec![scaled], vec![gate.clone()], vec![]);
                node.node("Mul", vec![x0, gate], y, vec![]);
            }
            kind => return node.since(first_opset(kind)),
        }
        Ok(())
    }

    fn properties(&self) -> Properties {
        super::functions::properties(self)
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{Fact, Tensor};

    use super::*;
    use crate::ops::testing::{Arg, float, rewritten};

    #[test]
    fn every_function_is_written_or_refused_at_every_opset() {
        let x = Tensor::vector(vec![-3.7f32, -0.5, 0.0, 0.3, 0.9, 5.5]);
        let args = [Arg::Input(Fact::of(&x))];
        for &kind in UnaryKind::ALL {
            let (alpha, beta) = parameters(kind);
            let (a, b) = kind.defaults();
            let mut given: Vec<_> =
                [(alpha, a), (beta, b)].into_iter().filter_map(|(n, v)| Some(float(n, v? * 0.75 + 0.0625))).collect();
            for attrs in [vec![], std::mem::take(&mut given)] {
                for opset in 7..=28 {
                    let composed = matches!(kind, UnaryKind::HardSwish | UnaryKind::Mish | UnaryKind::Swish);
                    let nodes = rewritten(kind.text(), (28, opset), &args, attrs.clone(), std::slice::from_ref(&x));
                    assert_eq!(nodes.is_ok(), composed || opset >= first_opset(kind), "{kind:?} at opset {opset}");
                    if opset >= first_opset(kind) {
                        let nodes = nodes.unwrap();
                        assert_eq!((nodes.len(), nodes[0].attrs.len()), (1, attrs.len()), "{kind:?}");
                    }
                }
            }
        }
    }
}
