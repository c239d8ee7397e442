//! Normalisation of groups of planes: <https://onnx.ai/onnx/operators/onnx__GroupNormalization.html>.

use crate::{
    DType, Fact, OpError, Tensor, attributes,
    attrs::Attrs,
    ops::{
        InferCx, Operator, RunCx,
        helpers::required,
        planes::{
            accumulating, expect_float, expect_rank, expect_vector, for_each_plane, mean_and_variance, output_shapes,
            parameters, shape_error, sqrt,
        },
        widened,
    },
    scalar::Scalar,
};

attributes! {
    /// `y[n,c,..] = scale[c] * (x[n,c,..] - mean(n,g)) / sqrt(var(n,g) + epsilon) + b[c]`, the mean and (biased) variance
    /// being those of the `C / num_groups` planes of c's group g.
    ///
    /// x, y `[N, C, D1..Dn]`; scale, b `[C]`.
    pub struct GroupNormalization {
        /// Added to the variance.
        pub epsilon: f32,
        /// Number of groups, which divides C.
        pub num_groups: i64,
        /// The type in which half precision is normalised.
        pub stash_type: DType,
    }
}

impl Operator for GroupNormalization {
    const NAMES: &'static [&'static str] = &["GroupNormalization"];

    fn name(&self) -> &'static str {
        "GroupNormalization"
    }

    fn to_attrs(&self) -> Attrs {
        GroupNormalization::to_attrs(self)
    }

    fn from_attrs(_: &str, attrs: &mut Attrs) -> Result<Self, OpError> {
        GroupNormalization::from_attrs(attrs)
    }

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "X")?;
        expect_float(x, 0, "X")?;
        expect_rank(x, 2, 0, "X")?;
        if self.num_groups < 1 {
            let problem = format!("{} is not positive", self.num_groups);
            return Err(OpError::Attribute { name: "num_groups", problem });
        }
        if x.shape[1].divisible_by(self.num_groups) == Some(false) {
            return Err(shape_error(x, 0, "X", format!("channels must divide into {} groups", self.num_groups)));
        }
        for (index, name) in [(1, "scale"), (2, "bias")] {
            expect_vector(required(inputs, index, name)?, &x.shape[1], index, name)?;
        }
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        output_shapes(self, inputs)?;
        let (scale, bias) = (required(inputs, 1, "scale")?, required(inputs, 2, "bias")?);
        widened(&inputs[..1], |x| {
            let x = required(x, 0, "X")?;
            accumulating!(x, "X", S, v => {
                let (scale, bias) = (parameters::<S>(scale, 1, "scale")?, parameters::<S>(bias, 2, "bias")?);
                let (channels, plane): (usize, usize) = (x.shape()[1], x.shape()[2..].iter().product());
                let groups = usize::try_from(self.num_groups).unwrap_or(1);
                let per_group = channels / groups;
                let mut y = v.to_vec();
                for_each_plane(cx, &mut y, per_group * plane, 4 * per_group * plane, |i, y| {
                    let (mean, variance) = mean_and_variance(y);
                    let deviation = sqrt(variance.add(S::from_f64(self.epsilon.into())));
                    let first = i % groups * per_group;
                    for (y, (s, b)) in y.chunks_mut(plane).zip(scale[first..].iter().zip(&bias[first..])) {
                        let factor = s.div(deviation);
                        y.iter_mut().for_each(|y| *y = y.sub(mean).mul(factor).add(*b));
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

    fn op(num_groups: i64) -> GroupNormalization {
        GroupNormalization { epsilon: 1e-2, num_groups, stash_type: DType::F32 }
    }

    #[test]
    fn agrees_with_the_formula() {
        for (shape, groups) in [(vec![3, 6, 2, 3], 3), (vec![2, 4], 2), (vec![1, 5, 7], 1), (vec![2, 3, 4], 3)] {
            let x = random_f64(&shape, 1);
            let (scale, bias) = (random_f64(&[shape[1]], 2), random_f64(&[shape[1]], 3));
            let y = testing::run_threads(&op(groups), &[Some(&x), Some(&scale), Some(&bias)]).unwrap().swap_remove(0);
            let (v, s, b) = (x.to_f64s().unwrap(), scale.to_f64s().unwrap(), bias.to_f64s().unwrap());
            let per_group = shape[1] / groups as usize;
            let group = |index: &[usize]| (index[0], index[1] / per_group);
            let expected: Vec<f64> = testing::indices(&shape).into_iter()
                .zip(&v)
                .map(|(i, x)| {
                    let mates: Vec<f64> =
                        testing::indices(&shape).into_iter().zip(&v).filter(|(j, _)| group(j) == group(&i)).map(|(_, v)| *v).collect();
                    let mean = mates.iter().sum::<f64>() / mates.len() as f64;
                    let var = mates.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / mates.len() as f64;
                    s[i[1]] * (x - mean) / (var + f64::from(1e-2f32)).sqrt() + b[i[1]]
                })
                .collect();
            close(&y, &Tensor::new(shape, expected).unwrap(), 1e-12);
            check_symbolic(&op(groups), &[Some(&x), Some(&scale), Some(&bias)]);
        }
    }

    #[test]
    fn groups_must_divide_the_channels() {
        let (x, p) = (random_f64(&[1, 4, 3], 1), random_f64(&[4], 2));
        for groups in [3, 0, -2] {
            assert!(testing::run_threads(&op(groups), &[Some(&x), Some(&p), Some(&p)]).is_err());
        }
    }
}
