//! Normalisation over any axes: <https://onnx.ai/onnx/operators/onnx__MeanVarianceNormalization.html>.

use crate::{
    Element, Fact, OpError, Tensor, attributes,
    attrs::Attrs,
    ops::{
        InferCx, Operator, RunCx,
        helpers::{normalize_axis, required},
        planes::{accumulating, expect_float, number, output_shapes, sqrt},
        widened,
    },
    scalar::Scalar,
};

attributes! {
    /// `y = (x - mean) / (sqrt(var) + 1e-9)`, the mean and (biased) variance being those over `axes`.
    ///
    /// x, y of any shape.
    pub struct MeanVarianceNormalization {
        /// The axes; negative ones count from the back.
        pub axes: Vec<i64>,
    }
}

impl Operator for MeanVarianceNormalization {
    const NAMES: &'static [&'static str] = &["MeanVarianceNormalization"];

    fn name(&self) -> &'static str {
        "MeanVarianceNormalization"
    }

    fn to_attrs(&self) -> Attrs {
        MeanVarianceNormalization::to_attrs(self)
    }

    fn from_attrs(_: &str, attrs: &mut Attrs) -> Result<Self, OpError> {
        MeanVarianceNormalization::from_attrs(attrs)
    }

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "X")?;
        expect_float(x, 0, "X")?;
        for &axis in &self.axes {
            normalize_axis(axis, x.rank(), "axes")?;
        }
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn run(&self, inputs: &[Option<&Tensor>], _: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        widened(inputs, |inputs| {
            let x = required(inputs, 0, "X")?;
            output_shapes(self, &[Some(x)])?;
            let mut reduced = vec![false; x.rank()];
            for &axis in &self.axes {
                reduced[normalize_axis(axis, x.rank(), "axes")?] = true;
            }
            accumulating!(x, "X", S, v => Ok(vec![Tensor::new(x.shape(), normalized::<S>(v, x.shape(), &reduced))?]))
        })
    }
}

/// For each element in order the number of the statistic it belongs to; and how many statistics there are.
fn groups(shape: &[usize], reduced: &[bool]) -> (Vec<usize>, usize) {
    let mut groups = vec![0usize];
    let mut count = 1;
    for (&n, &reduced) in shape.iter().zip(reduced) {
        let of = |g: &usize, i: usize| if reduced { *g } else { g * n + i };
        groups = groups.iter().flat_map(|g| (0..n).map(move |i| of(g, i))).collect();
        count *= if reduced { 1 } else { n };
    }
    (groups, count)
}

fn normalized<S: Scalar + Element>(x: &[S], shape: &[usize], reduced: &[bool]) -> Vec<S> {
    let (groups, count) = groups(shape, reduced);
    if x.is_empty() {
        return Vec::new();
    }
    let n = number::<S>(x.len() / count);
    let averages = |f: &dyn Fn(usize, S) -> S| {
        let mut sums = vec![S::ZERO; count];
        for (&g, &x) in groups.iter().zip(x) {
            sums[g] = sums[g].add(f(g, x));
        }
        sums.iter_mut().for_each(|s| *s = s.div(n));
        sums
    };
    let means = averages(&|_, x| x);
    let deviations: Vec<S> = averages(&|g, x| x.sub(means[g]).mul(x.sub(means[g])))
        .into_iter()
        .map(|v| sqrt(v).add(S::from_f64(f64::from(1e-9f32))))
        .collect();
    groups.iter().zip(x).map(|(&g, &x)| x.sub(means[g]).div(deviations[g])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{self, close, check_symbolic, random_f64};

    #[test]
    fn agrees_with_the_formula() {
        let shape = [2, 3, 4, 2];
        let x = random_f64(&shape, 1);
        let v = x.to_f64s().unwrap();
        for axes in [vec![0, 2, 3], vec![1], vec![-1, 0], vec![0, 1, 2, 3]] {
            let op = MeanVarianceNormalization { axes: axes.clone() };
            let y = testing::run_threads(&op, &[Some(&x)]).unwrap().swap_remove(0);
            let kept = |index: &[usize]| -> Vec<usize> {
                (0..4).filter(|&a| !axes.iter().any(|x| x.rem_euclid(4) == a as i64)).map(|a| index[a]).collect()
            };
            let expected: Vec<f64> = testing::indices(&shape).into_iter()
                .zip(&v)
                .map(|(i, x)| {
                    let mates: Vec<f64> =
                        testing::indices(&shape).into_iter().zip(&v).filter(|(j, _)| kept(j) == kept(&i)).map(|(_, v)| *v).collect();
                    let mean = mates.iter().sum::<f64>() / mates.len() as f64;
                    let var = mates.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / mates.len() as f64;
                    (x - mean) / (var.sqrt() + 1e-9)
                })
                .collect();
            close(&y, &Tensor::new(shape, expected).unwrap(), 1e-9);
            check_symbolic(&op, &[Some(&x)]);
        }
    }
}
