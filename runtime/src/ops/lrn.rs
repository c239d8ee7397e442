//! Local response normalisation: <https://onnx.ai/onnx/operators/onnx__LRN.html>.

use crate::{
    Fact, OpError, Tensor, attributes,
    attrs::Attrs,
    ops::{
        InferCx, Operator, RunCx,
        helpers::required,
        planes::{accumulating, expect_float, expect_rank, for_each_plane, output_shapes},
        widened,
    },
    scalar::Scalar,
};

attributes! {
    /// `y[n,c,..] = x[n,c,..] / (bias + alpha / size * sum over i of x[n,i,..]^2)^beta`, i running over the channels from
    /// `c - floor((size - 1) / 2)` to `c + ceil((size - 1) / 2)` that there are.
    ///
    /// x, y `[N, C, D1..Dn]`.
    pub struct LRN {
        /// Weight of the squares.
        pub alpha: f32,
        /// The exponent.
        pub beta: f32,
        /// Added to the sum.
        pub bias: f32,
        /// Number of channels summed over, at least 1.
        pub size: i64,
    }
}

impl Operator for LRN {
    const NAMES: &'static [&'static str] = &["LRN"];

    fn name(&self) -> &'static str {
        "LRN"
    }

    fn to_attrs(&self) -> Attrs {
        LRN::to_attrs(self)
    }

    fn from_attrs(_: &str, attrs: &mut Attrs) -> Result<Self, OpError> {
        LRN::from_attrs(attrs)
    }

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "X")?;
        expect_float(x, 0, "X")?;
        expect_rank(x, 2, 0, "X")?;
        if !(1..=i64::from(i32::MAX)).contains(&self.size) {
            let problem = format!("{} is not a positive 32-bit number", self.size);
            return Err(OpError::Attribute { name: "size", problem });
        }
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        widened(inputs, |inputs| {
            let x = required(inputs, 0, "X")?;
            output_shapes(self, &[Some(x)])?;
            let (channels, plane): (usize, usize) = (x.shape()[1], x.shape()[2..].iter().product());
            let size = self.size as usize;
            let (before, after) = ((size - 1) / 2, size / 2);
            accumulating!(x, "X", S, v => {
                let weight = S::from_f64(f64::from(self.alpha) / self.size as f64);
                let (bias, beta) = (S::from_f64(self.bias.into()), S::from_f64(self.beta.into()));
                let mut y = vec![S::ZERO; v.len()];
                for_each_plane(cx, &mut y, plane, plane.saturating_mul(size.min(channels) + 16), |i, y| {
                    let (n, c) = (i / channels, i % channels);
                    let last = c.saturating_add(after).min(channels - 1);
                    for mate in c.saturating_sub(before)..=last {
                        let x = &v[(n * channels + mate) * plane..][..plane];
                        y.iter_mut().zip(x).for_each(|(y, &x)| *y = y.add(x.mul(x)));
                    }
                    for (y, x) in y.iter_mut().zip(&v[i * plane..][..plane]) {
                        *y = x.div(bias.add(weight.mul(*y)).apply2(beta, "Pow", libm::pow));
                    }
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
        for (shape, size) in [(vec![2, 7, 3, 2], 3), (vec![1, 5, 4], 4), (vec![3, 2], 5), (vec![1, 1, 2, 2], 1)] {
            let x = random_f64(&shape, 1);
            let v = x.to_f64s().unwrap();
            let op = LRN { alpha: 0.5, beta: 0.75, bias: 1.5, size };
            let y = testing::run_threads(&op, &[Some(&x)]).unwrap().swap_remove(0);
            let plane: usize = shape[2..].iter().product();
            let expected: Vec<f64> = testing::indices(&shape).into_iter()
                .enumerate()
                .map(|(at, index)| {
                    let (c, channels) = (index[1] as i64, shape[1] as i64);
                    let (low, high) = ((c - (size - 1) / 2).max(0), (c + (size - 1 + 1) / 2).min(channels - 1));
                    let base = at as i64 - c * plane as i64;
                    let sum: f64 = (low..=high).map(|i| v[(base + i * plane as i64) as usize].powi(2)).sum();
                    v[at] / (1.5 + 0.5 / size as f64 * sum).powf(0.75)
                })
                .collect();
            close(&y, &Tensor::new(shape, expected).unwrap(), 1e-12);
            check_symbolic(&op, &[Some(&x)]);
        }
    }
}
