//! Classification losses: <https://onnx.ai/onnx/operators/onnx__NegativeLogLikelihoodLoss.html>,
//! <https://onnx.ai/onnx/operators/onnx__SoftmaxCrossEntropyLoss.html>.

use crate::{
    DType, Data, Dim, Fact, OpError, Tensor, attribute_enum, attributes,
    ops::{
        InferCx, Operator, RunCx, Softmax,
        elementwise::{same_type, shape_error},
        helpers::{elements, expect_dtype, expect_float, facts, optional, required},
        reduce::Accumulate,
        softmax::SoftmaxKind,
        widened,
    },
    scalar::{Field, Scalar},
};

attribute_enum! {
    /// Of what.
    pub enum LossKind {
        /// Of log-probabilities.
        NegativeLogLikelihoodLoss = "NegativeLogLikelihoodLoss",
        /// Of scores: LogSoftmax along axis 1 comes first, and is a second output.
        SoftmaxCrossEntropyLoss = "SoftmaxCrossEntropyLoss",
    }
}

attribute_enum! {
    /// How samples are put together.
    pub enum Reduction {
        /// Not at all.
        None = "none",
        /// Their sum.
        Sum = "sum",
        /// Their sum divided by the sum of their weights.
        Mean = "mean",
    }
}

attributes! {
    /// `loss[n, d..] = -w[t] * x[n, t, d..]` with `t = target[n, d..]`. Operands: x `[N, C, D..]`, target `[N, D..]` (int32 or int64), w `[C]`
    /// (optional, otherwise 1). Sums of f32 are carried in f64, ascending.
    pub struct Loss {
        /// Of what.
        pub kind: LossKind,
        /// How samples are put together.
        pub reduction: Reduction,
        /// The class of samples that count nothing, their weight included.
        pub ignore_index: Option<i64>,
    }
}

impl Loss {
    fn evaluate<S: Accumulate>(&self, x: &Tensor, target: &Tensor, weight: Option<&Tensor>) -> Result<Tensor, OpError> {
        let v = elements::<S>(x, 0, "input")?;
        let w = weight.map(|w| elements::<S>(w, 2, "weight")).transpose()?;
        let classes = x.shape()[1];
        let inner: usize = x.shape()[2..].iter().product();
        let wrong = || OpError::InputType { index: 1, name: "target", dtype: target.dtype(), expected: "i32 or i64" };
        let targets = target.to_i64s().ok_or_else(wrong)?;
        let mut losses = Vec::with_capacity(targets.len());
        let (mut sum, mut weights) = (S::Acc::ZERO, S::Acc::ZERO);
        for (i, &t) in targets.iter().enumerate() {
            if Some(t) == self.ignore_index {
                losses.push(S::ZERO);
                continue;
            }
            let class = usize::try_from(t).ok().filter(|&c| c < classes).ok_or_else(|| {
                let problem = format!("class {t} is not one of {classes}");
                OpError::InputValue { index: 1, name: "target", problem }
            })?;
            let (n, d) = (i / inner, i % inner);
            let weight = w.map_or(S::ONE, |w| w[class]);
            let loss = weight.mul(v[(n * classes + class) * inner + d]).neg();
            losses.push(loss);
            sum = sum.add(loss.widen());
            weights = weights.add(weight.widen());
        }
        Ok(match self.reduction {
            Reduction::None => Tensor::new(target.shape(), losses)?,
            Reduction::Sum => Tensor::scalar(S::narrow(sum)),
            Reduction::Mean => Tensor::scalar(S::narrow(sum.div(weights))),
        })
    }
}

impl Operator for Loss {
    family!(Loss, LossKind);

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, target) = (required(inputs, 0, "input")?, required(inputs, 1, "target")?);
        expect_float(x, 0, "input")?;
        expect_dtype(target, 1, "target", "i32 or i64", |d| matches!(d, DType::I32 | DType::I64))?;
        if x.rank() < 2 {
            return Err(shape_error(0, "input", x, "at least 2 dimensions are needed"));
        }
        let samples: Vec<Dim> = x.shape[..1].iter().chain(&x.shape[2..]).cloned().collect();
        let fits = target.rank() == samples.len()
            && target.shape.iter().zip(&samples).all(|(t, s)| t.equals(s) != Some(false));
        if !fits {
            return Err(shape_error(1, "target", target, "that of the input without axis 1 is needed"));
        }
        if let Some(w) = optional(inputs, 2) {
            same_type(x.dtype, w.dtype, 2, "weight")?;
            if w.rank() != 1 || w.shape[0].equals(&x.shape[1]) == Some(false) {
                return Err(shape_error(2, "weight", w, format!("[{}] is needed", x.shape[1])));
            }
        }
        let shape = if self.reduction == Reduction::None { target.shape.clone() } else { Vec::new() };
        let mut y = vec![Fact::new(x.dtype, shape)];
        if self.kind == LossKind::SoftmaxCrossEntropyLoss {
            y.push(Fact::new(x.dtype, x.shape.clone()));
        }
        Ok(y)
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        widened(inputs, |inputs| {
            let known = facts(inputs);
            let refs: Vec<Option<&Fact>> = known.iter().map(Option::as_ref).collect();
            self.infer(&refs, &mut InferCx::new(&mut || Dim::from(0)))?;
            let (x, target, weight) = (required(inputs, 0, "input")?, required(inputs, 1, "target")?, optional(inputs, 2));
            cx.count(x.shape())?;
            let mut outputs = Vec::new();
            let log = if self.kind == LossKind::SoftmaxCrossEntropyLoss {
                outputs = Softmax { kind: SoftmaxKind::LogSoftmax, axis: 1, flatten: false }.run(&[Some(x)], cx)?;
                outputs.first().unwrap_or(x)
            } else {
                x
            };
            let loss = match log.data() {
                Data::F32(_) => self.evaluate::<f32>(log, target, weight)?,
                Data::F64(_) => self.evaluate::<f64>(log, target, weight)?,
                Data::Field(_) => self.evaluate::<Field>(log, target, weight)?,
                _ => {
                    let expected = "a floating-point type";
                    return Err(OpError::InputType { index: 0, name: "input", dtype: x.dtype(), expected });
                }
            };
            outputs.insert(0, loss);
            Ok(outputs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{close, numbers, run};

    #[test]
    fn weights_and_ignored_samples() {
        let x = numbers(&[2, 3, 2], 5);
        let v = x.to_f64s().unwrap();
        let target = Tensor::new([2, 2], vec![2i64, 0, 1, -1]).unwrap();
        let w = Tensor::vector(vec![0.5f32, 2.0, 3.0]);
        let log = |n: usize, c: usize, d: usize, soft: bool| {
            let at = |c| v[(n * 3 + c) * 2 + d];
            at(c) - if soft { (0..3).map(|c| at(c).exp()).sum::<f64>().ln() } else { 0.0 }
        };
        for kind in [LossKind::NegativeLogLikelihoodLoss, LossKind::SoftmaxCrossEntropyLoss] {
            let soft = kind == LossKind::SoftmaxCrossEntropyLoss;
            let each = [-3.0 * log(0, 2, 0, soft), -0.5 * log(0, 0, 1, soft), -2.0 * log(1, 1, 0, soft), 0.0];
            let of = |reduction| run(&Loss { kind, reduction, ignore_index: Some(-1) }, &[&x, &target, &w]).unwrap();
            let scalar = |v: f64| Tensor::scalar(v as f32);
            let none = Tensor::new([2, 2], each.iter().map(|&v| v as f32).collect()).unwrap();
            close(&of(Reduction::None)[0], &none, 1e-6);
            close(&of(Reduction::Sum)[0], &scalar(each.iter().sum()), 1e-6);
            close(&of(Reduction::Mean)[0], &scalar(each.iter().sum::<f64>() / 5.5), 1e-6);
            assert!(run(&Loss { kind, reduction: Reduction::Sum, ignore_index: None }, &[&x, &target]).is_err());
        }
    }
}
