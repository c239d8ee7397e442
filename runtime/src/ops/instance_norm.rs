//! Normalisation of each plane: <https://onnx.ai/onnx/operators/onnx__InstanceNormalization.html>.

use crate::{
    Fact, OpError, Tensor, attributes,
    attrs::Attrs,
    ops::{
        InferCx, Operator, RunCx,
        helpers::required,
        planes::{
            accumulating, expect_float, expect_rank, expect_vector, for_each_plane, mean_and_variance, output_shapes,
            parameters, sqrt,
        },
        widened,
    },
    scalar::Scalar,
};

attributes! {
    /// `y[n,c,..] = scale[c] * (x[n,c,..] - mean(n,c)) / sqrt(var(n,c) + epsilon) + b[c]`, the mean and (biased) variance
    /// being those of the plane `x[n,c,..]`.
    ///
    /// x, y `[N, C, D1..Dn]`; scale, b `[C]`.
    pub struct InstanceNormalization {
        /// Added to the variance.
        pub epsilon: f32,
    }
}

impl Operator for InstanceNormalization {
    const NAMES: &'static [&'static str] = &["InstanceNormalization"];

    fn name(&self) -> &'static str {
        "InstanceNormalization"
    }

    fn to_attrs(&self) -> Attrs {
        InstanceNormalization::to_attrs(self)
    }

    fn from_attrs(_: &str, attrs: &mut Attrs) -> Result<Self, OpError> {
        InstanceNormalization::from_attrs(attrs)
    }

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "input")?;
        expect_float(x, 0, "input")?;
        expect_rank(x, 2, 0, "input")?;
        for (index, name) in [(1, "scale"), (2, "B")] {
            expect_vector(required(inputs, index, name)?, &x.shape[1], index, name)?;
        }
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        output_shapes(self, inputs)?;
        let (scale, bias) = (required(inputs, 1, "scale")?, required(inputs, 2, "B")?);
        widened(&inputs[..1], |x| {
            let x = required(x, 0, "input")?;
            accumulating!(x, "input", S, v => {
                let (scale, bias) = (parameters::<S>(scale, 1, "scale")?, parameters::<S>(bias, 2, "B")?);
                let (channels, plane) = (x.shape()[1], x.shape()[2..].iter().product());
                let mut y = v.to_vec();
                for_each_plane(cx, &mut y, plane, 4 * plane, |i, y| {
                    let (mean, variance) = mean_and_variance(y);
                    let c = i % channels;
                    let factor = scale[c].div(sqrt(variance.add(S::from_f64(self.epsilon.into()))));
                    y.iter_mut().for_each(|y| *y = y.sub(mean).mul(factor).add(bias[c]));
                });
                Ok(vec![Tensor::new(x.shape(), y)?])
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{self, close, check_symbolic, random_f64};

    #[test]
    fn agrees_with_the_formula() {
        for shape in [vec![3, 2, 5, 4], vec![1, 3, 19], vec![2, 1, 2, 3, 2]] {
            let x = random_f64(&shape, 1);
            let (scale, bias) = (random_f64(&[shape[1]], 2), random_f64(&[shape[1]], 3));
            let op = InstanceNormalization { epsilon: 1e-3 };
            let y = testing::run_threads(&op, &[Some(&x), Some(&scale), Some(&bias)]).unwrap().swap_remove(0);
            let (s, b) = (scale.to_f64s().unwrap(), bias.to_f64s().unwrap());
            let expected: Vec<f64> = x
                .to_f64s()
                .unwrap()
                .chunks(shape[2..].iter().product())
                .enumerate()
                .flat_map(|(i, p)| {
                    let n = p.len() as f64;
                    let mean = p.iter().sum::<f64>() / n;
                    let var = p.iter().map(|v| v * v).sum::<f64>() / n - mean * mean;
                    let (s, b) = (s[i % shape[1]], b[i % shape[1]]);
                    p.iter().map(move |v| s * (v - mean) / (var + f64::from(1e-3f32)).sqrt() + b).collect::<Vec<_>>()
                })
                .collect();
            close(&y, &Tensor::new(shape, expected).unwrap(), 1e-12);
            check_symbolic(&op, &[Some(&x), Some(&scale), Some(&bias)]);
        }
    }

    #[test]
    fn parameters_must_fit() {
        let (x, p, one) = (random_f64(&[1, 2, 3], 1), random_f64(&[3], 2), random_f64(&[2], 2));
        let op = InstanceNormalization { epsilon: 1e-3 };
        let refused = testing::run_threads(&op, &[Some(&x), Some(&p), Some(&one)]);
        assert!(matches!(refused, Err(OpError::InputShape { index: 1, .. })), "{refused:?}");
    }
}
