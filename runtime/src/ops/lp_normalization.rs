//! Division by a norm: <https://onnx.ai/onnx/operators/onnx__LpNormalization.html>.

use crate::{
    Element, Fact, OpError, Tensor, attributes,
    attrs::Attrs,
    ops::{
        InferCx, Operator, RunCx,
        helpers::{normalize_axis, required},
        lp_pool::{power, root},
        planes::{accumulating, expect_float, for_each_plane, output_shapes},
        widened,
    },
    scalar::Scalar,
};

attributes! {
    /// `y = x / norm(x)`, the norm being that of the elements along `axis`, `sum |x|` or `sqrt(sum x^2)`; 0 where it is 0.
    ///
    /// x, y of any shape.
    pub struct LpNormalization {
        /// The axis; negative ones count from the back.
        pub axis: i64,
        /// Which norm: 1 or 2.
        pub p: i64,
    }
}

impl Operator for LpNormalization {
    const NAMES: &'static [&'static str] = &["LpNormalization"];

    fn name(&self) -> &'static str {
        "LpNormalization"
    }

    fn to_attrs(&self) -> Attrs {
        LpNormalization::to_attrs(self)
    }

    fn from_attrs(_: &str, attrs: &mut Attrs) -> Result<Self, OpError> {
        LpNormalization::from_attrs(attrs)
    }

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "input")?;
        expect_float(x, 0, "input")?;
        normalize_axis(self.axis, x.rank(), "axis")?;
        if !matches!(self.p, 1 | 2) {
            return Err(OpError::Attribute { name: "p", problem: format!("{} is neither 1 nor 2", self.p) });
        }
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        widened(inputs, |inputs| {
            let x = required(inputs, 0, "input")?;
            output_shapes(self, &[Some(x)])?;
            let axis = normalize_axis(self.axis, x.rank(), "axis")?;
            let inner: usize = x.shape()[axis + 1..].iter().product();
            accumulating!(x, "input", S, v => {
                let y = normalized::<S>(cx, v, x.shape()[axis], inner, self.p);
                Ok(vec![Tensor::new(x.shape(), y)?])
            })
        })
    }
}

fn normalized<S: Scalar + Element>(cx: &RunCx<'_>, x: &[S], along: usize, inner: usize, p: i64) -> Vec<S> {
    let mut y = x.to_vec();
    for_each_plane(cx, &mut y, along * inner, 3 * along * inner, |_, y| {
        let mut norms = vec![S::ZERO; inner];
        for row in y.chunks(inner) {
            norms.iter_mut().zip(row).for_each(|(n, &x)| *n = n.add(power(x, p)));
        }
        norms.iter_mut().for_each(|n| *n = root(*n, p));
        for row in y.chunks_mut(inner) {
            for (y, &n) in row.iter_mut().zip(&norms) {
                *y = if n == S::ZERO { S::ZERO } else { y.div(n) };
            }
        }
    });
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{self, close, check_symbolic, random_f64};

    #[test]
    fn agrees_with_the_formula() {
        let shape = [3, 4, 5];
        let x = random_f64(&shape, 1);
        let v = x.to_f64s().unwrap();
        for axis in -3..3 {
            for p in [1, 2] {
                let op = LpNormalization { axis, p };
                let y = testing::run_threads(&op, &[Some(&x)]).unwrap().swap_remove(0);
                let a = (axis + 3) as usize % 3;
                let line = |index: &[usize]| {
                    let mut i = index.to_vec();
                    i[a] = 0;
                    i
                };
                let expected: Vec<f64> = testing::indices(&shape).into_iter()
                    .zip(&v)
                    .map(|(i, x)| {
                        let mates = testing::indices(&shape).into_iter().zip(&v).filter(|(j, _)| line(j) == line(&i));
                        let norm: f64 = mates.map(|(_, v)| v.abs().powi(p as i32)).sum();
                        x / norm.powf(1.0 / p as f64)
                    })
                    .collect();
                close(&y, &Tensor::new(shape, expected).unwrap(), 1e-13);
                check_symbolic(&op, &[Some(&x)]);
            }
        }
    }

    #[test]
    fn nothing_stays_nothing() {
        let x = Tensor::new([2], vec![0.0f32; 2]).unwrap();
        assert_eq!(testing::run_threads(&LpNormalization { axis: 0, p: 2 }, &[Some(&x)]).unwrap()[0], x);
    }
}
