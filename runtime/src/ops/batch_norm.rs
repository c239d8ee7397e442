//! Normalisation by given statistics: <https://onnx.ai/onnx/operators/onnx__BatchNormalization.html>.

use crate::{
    Dim, Element, Fact, OpError, Tensor, attributes,
    attrs::Attrs,
    ops::{
        InferCx, Operator, RunCx,
        helpers::required,
        planes::{accumulating, expect_float, expect_rank, expect_vector, for_each_plane, parameters, sqrt},
        widened,
    },
    scalar::Scalar,
};

attributes! {
    /// `y[n,c,..] = (x[n,c,..] - mean[c]) * scale[c] / sqrt(var[c] + epsilon) + b[c]`: inference only.
    ///
    /// x, y `[N, C, D1..Dn]` (or `[N]`, with C = 1); scale, b, mean, var `[C]`, of any floating-point types.
    pub struct BatchNormalization {
        /// Added to the variance.
        pub epsilon: f32,
    }
}

const PARAMETERS: [(usize, &str); 4] = [(1, "scale"), (2, "B"), (3, "input_mean"), (4, "input_var")];

impl Operator for BatchNormalization {
    const NAMES: &'static [&'static str] = &["BatchNormalization"];

    fn name(&self) -> &'static str {
        "BatchNormalization"
    }

    fn to_attrs(&self) -> Attrs {
        BatchNormalization::to_attrs(self)
    }

    fn from_attrs(_: &str, attrs: &mut Attrs) -> Result<Self, OpError> {
        BatchNormalization::from_attrs(attrs)
    }

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "X")?;
        expect_float(x, 0, "X")?;
        expect_rank(x, 1, 0, "X")?;
        let channels = x.shape.get(1).cloned().unwrap_or(Dim::from(1));
        for (index, name) in PARAMETERS {
            let p = required(inputs, index, name)?;
            expect_float(p, index, name)?;
            expect_vector(p, &channels, index, name)?;
        }
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0, "X")?;
        let channels = x.shape().get(1).copied().unwrap_or(1);
        for (index, name) in PARAMETERS {
            let p = required(inputs, index, name)?;
            expect_vector(&Fact::fixed(p.dtype(), p.shape()), &Dim::from(channels), index, name)?;
        }
        widened(&[Some(x)], |x| {
            let x = required(x, 0, "X")?;
            accumulating!(x, "X", S, v => {
                let [scale, bias, mean, var] = PARAMETERS.map(|(i, name)| parameters::<S>(required(inputs, i, name)?, i, name));
                let (bias, mean, epsilon) = (bias?, mean?, S::from_f64(self.epsilon.into()));
                let factor: Vec<S> = scale?.iter().zip(var?).map(|(s, v)| s.div(sqrt(v.add(epsilon)))).collect();
                let plane: usize = x.shape().iter().skip(2).product();
                let y = affine(cx, v, plane, |i, x| {
                    let c = i % channels;
                    x.sub(mean[c]).mul(factor[c]).add(bias[c])
                });
                Ok(vec![Tensor::new(x.shape(), y)?])
            })
        })
    }
}

/// `y = f(plane, x)` for each element of each plane.
fn affine<S: Scalar + Element>(cx: &RunCx<'_>, x: &[S], plane: usize, f: impl Fn(usize, S) -> S + Sync) -> Vec<S> {
    let mut y = x.to_vec();
    for_each_plane(cx, &mut y, plane, plane, |i, y| y.iter_mut().for_each(|y| *y = f(i, *y)));
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Real,
        ops::testing::{self, close, check_symbolic, random_f64},
        scalar::Field,
    };

    #[test]
    fn agrees_with_the_formula() {
        for shape in [vec![3, 4, 5, 3], vec![2, 3], vec![5], vec![1, 2, 3, 2, 2], vec![0, 3, 2]] {
            let x = random_f64(&shape, 1);
            let channels = shape.get(1).copied().unwrap_or(1);
            let [scale, bias, mean, var] = [2, 3, 4, 5].map(|seed| random_f64(&[channels], seed));
            let var = Tensor::vector(var.to_f64s().unwrap().iter().map(|v| v.abs()).collect::<Vec<_>>());
            let op = BatchNormalization { epsilon: 1e-3 };
            let inputs = [Some(&x), Some(&scale), Some(&bias), Some(&mean), Some(&var)];
            let y = testing::run_threads(&op, &inputs).unwrap().swap_remove(0);
            let at = |t: &Tensor, c: usize| t.as_slice::<f64>().unwrap()[c];
            let expected = testing::indices(&shape).into_iter()
                .enumerate()
                .map(|(i, index)| {
                    let c = index.get(1).copied().unwrap_or(0);
                    let e = f64::from(1e-3f32);
                    (at(&x, i) - at(&mean, c)) / (at(&var, c) + e).sqrt() * at(&scale, c) + at(&bias, c)
                })
                .collect::<Vec<_>>();
            close(&y, &Tensor::new(shape, expected).unwrap(), 1e-12);
            check_symbolic(&op, &inputs);
        }
    }

    #[test]
    fn a_scaled_shift_in_the_field() {
        let field = |t: Tensor| t.to_real(Real::Field);
        let (x, one) = (field(random_f64(&[2, 1, 3], 1)), field(Tensor::vector(vec![1.0f64])));
        let (scale, mean) = (field(Tensor::vector(vec![0.5f64])), field(Tensor::vector(vec![0.25f64])));
        let op = BatchNormalization { epsilon: 0.5 };
        let inputs = [Some(&x), Some(&scale), Some(&one), Some(&mean), Some(&one)];
        let y = testing::run_threads_as(&op, &inputs, Real::Field).unwrap().swap_remove(0);
        let factor = Field::from_f64(0.5).div(sqrt(Field::from_f64(1.5)));
        for (&x, &y) in x.as_slice::<Field>().unwrap().iter().zip(y.as_slice::<Field>().unwrap()) {
            assert_eq!(y, x.mul(factor).add(Field::ONE.sub(Field::from_f64(0.25).mul(factor))));
        }
    }

    #[test]
    fn mixed_precision_keeps_the_type_of_x() {
        let one = Tensor::vector(vec![half::f16::ONE]);
        let x = Tensor::new([1, 1, 1], vec![1.0f32 / 3.0]).unwrap();
        let op = BatchNormalization { epsilon: 0.0 };
        let run = |x: &Tensor, p: &Tensor| {
            let zero = p.to_f64s().unwrap().iter().map(|_| half::f16::ZERO).collect::<Vec<_>>();
            let zero = Tensor::vector(zero);
            testing::run_threads(&op, &[Some(x), Some(p), Some(&zero), Some(&zero), Some(p)]).unwrap().swap_remove(0)
        };
        assert_eq!(run(&x, &one), x);
        let half = x.rounded_to(crate::DType::F16);
        assert_eq!(run(&half, &Tensor::vector(vec![half::f16::ONE])), half);
    }
}
