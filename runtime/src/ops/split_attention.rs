//! Split attention of ResNeSt (<https://arxiv.org/abs/2004.08955>), domain `ai.convc`.

use crate::{
    Dim, Fact, OpError, Tensor, attributes,
    ops::{
        InferCx, Operator, RunCx, Softmax, Split, Transpose, Variadic,
        binary::BinaryKind,
        compose::{Compose, Composer, convolution, evaluate},
        do_conv::check_group,
        ghost_module::Activation,
        helpers::{optional, required},
        planes::{output_shapes, shape_error},
        softmax::SoftmaxKind,
        unary::UnaryKind,
        variadic::VariadicKind,
    },
};

attributes! {
    /// `u = act(Conv(x, w, b)); s = mean of each plane of sum over r of u_r; a = Conv(relu(Conv(s, w1, b1)), w2, b2)` (1×1,
    /// `cardinality` groups); `y = sum over r of softmax_r(a)_r * u_r`, a sigmoid if R = 1.
    ///
    /// R = `radix`, K = `cardinality`. `u_r` are the R consecutive parts of u's channels; a is read as `[N, K, R, C/K]`.
    /// x `[N, I, D1..Dn]`; w `[R*C, I/group, K..]`; w1 `[J, C/K, 1..]`; w2 `[R*C, J/K, 1..]`; each bias optional;
    /// y `[N, C, ..]`.
    pub struct SplitAttention {
        /// Number of parts that are weighed against each other, R.
        pub radix: i64,
        /// Number of cardinal groups, K.
        pub cardinality: i64,
        /// What follows the convolution.
        pub activation: Activation,
        /// Step between outputs of the convolution, one per spatial axis.
        pub strides: Vec<i64>,
        /// Zeros before (first half) and after each spatial axis, of the convolution.
        pub pads: Vec<i64>,
        /// Step between taps of the convolution, one per spatial axis.
        pub dilations: Vec<i64>,
        /// Number of groups of the convolution; R*K in the paper.
        pub group: i64,
    }
}

impl SplitAttention {
    fn convolution(&self) -> super::Conv {
        convolution(&self.strides, &self.pads, &self.dilations, self.group)
    }

    fn pointwise(&self) -> super::Conv {
        let n = self.strides.len();
        convolution(&vec![1; n], &vec![0; 2 * n], &vec![1; n], self.cardinality)
    }

    /// Defines the operator by others. Means of sums are sums of means, so that with one cardinal group the squeeze takes the
    /// means of all parts at once; and a softmax of two is a sigmoid of their difference.
    ///
    /// # Errors
    /// If an operand is missing, or the sizes of w, or with two parts those of w2, are not known.
    pub fn compose<C: Composer>(&self, c: &mut C, operands: &[Option<C::Value>]) -> Result<C::Value, C::Error> {
        let (x, w) = (C::given(operands, 0, "X")?, C::given(operands, 1, "W")?);
        let (w1, w2) = (C::given(operands, 3, "W1")?, C::given(operands, 5, "W2")?);
        let at = |i: usize| operands.get(i).and_then(Option::as_ref);
        check_group(self.radix, "radix")?;
        check_group(self.cardinality, "cardinality")?;
        let sizes = c.sizes(&w, "W")?;
        let (all, spatial) = (sizes.at(0)?, sizes.spatial());
        let u = c.conv(self.convolution(), &x, &w, at(2))?;
        let u = self.activation.apply(c, u)?;
        let s = c.global_average(&u)?;
        let h = if self.cardinality == 1 {
            let parts = usize::try_from(self.radix).unwrap_or(1);
            let w1 = if parts == 1 { w1 } else { c.concat(&vec![w1; parts], 1)? };
            c.conv(self.pointwise(), &s, &w1, at(4))?
        } else {
            let s = if self.radix == 1 {
                s
            } else {
                let s = c.reshape(&s, &with_ones(&[0, self.radix, all / self.radix], spatial))?;
                c.sum_along(&s, 1)?
            };
            c.conv(self.pointwise(), &s, &w1, at(4))?
        };
        let h = c.unary(UnaryKind::Relu, &h)?;
        if self.radix == 2 {
            return self.weigh_two(c, &u, &h, &w2, at(6));
        }
        let a = c.conv(self.pointwise(), &h, &w2, at(6))?;
        let a = if self.radix == 1 {
            c.unary(UnaryKind::Sigmoid, &a)?
        } else {
            let width = all / self.radix / self.cardinality;
            let a = c.reshape(&a, &[0, self.cardinality, self.radix, width])?;
            let a = c.one(Transpose { perm: vec![0, 2, 1, 3] }, vec![Some(a)])?;
            let a = c.one(Softmax { kind: SoftmaxKind::Softmax, axis: 1, flatten: false }, vec![Some(a)])?;
            c.reshape(&a, &with_ones(&[0, all], spatial))?
        };
        let y = c.binary(BinaryKind::Mul, &u, &a)?;
        let parts: Vec<Option<C::Value>> = self.parts(c, y)?.into_iter().map(Some).collect();
        if self.radix == 1 {
            return C::given(&parts, 0, "Y");
        }
        c.one(Variadic { kind: VariadicKind::Sum }, parts)
    }

    /// The parts of a value's channels.
    fn parts<C: Composer>(&self, c: &mut C, v: C::Value) -> Result<Vec<C::Value>, C::Error> {
        match self.radix {
            1 => Ok(vec![v]),
            n => c.apply(Split { axis: 1, num_outputs: n }.into(), vec![Some(v)], usize::try_from(n).unwrap_or(1)),
        }
    }

    /// `sigmoid(a_0 - a_1) * u_0 + sigmoid(a_1 - a_0) * u_1`, the differences taken of the excitation's weights.
    fn weigh_two<C: Composer>(
        &self,
        c: &mut C,
        u: &C::Value,
        h: &C::Value,
        w2: &C::Value,
        b2: Option<&C::Value>,
    ) -> Result<C::Value, C::Error> {
        let sizes = c.sizes(w2, "W2")?;
        let (all, inputs, spatial) = (sizes.at(0)?, sizes.at(1)?, sizes.spatial());
        let difference = |c: &mut C, v: &C::Value, inner: &[i64]| -> Result<(C::Value, C::Value), C::Error> {
            let shape = [&[self.cardinality, 2, all / 2 / self.cardinality], inner].concat();
            let v = c.reshape(v, &shape)?;
            let v: Vec<Option<C::Value>> = self.parts(c, v)?.into_iter().map(Some).collect();
            let (first, second) = (C::given(&v, 0, "part")?, C::given(&v, 1, "part")?);
            Ok((c.binary(BinaryKind::Sub, &first, &second)?, c.binary(BinaryKind::Sub, &second, &first)?))
        };
        let kernels = difference(c, w2, &[inputs])?;
        let biases = b2.map(|b| difference(c, b, &[])).transpose()?;
        if self.cardinality == 1 {
            let kernel = c.concat(&[kernels.0, kernels.1], 1)?;
            let kernel = c.reshape(&kernel, &with_ones(&[all, inputs], spatial))?;
            let bias = match biases {
                Some((p, n)) => {
                    let both = c.concat(&[p, n], 1)?;
                    Some(c.reshape(&both, &[all])?)
                }
                None => None,
            };
            let a = c.conv(self.pointwise(), h, &kernel, bias.as_ref())?;
            let a = c.unary(UnaryKind::Sigmoid, &a)?;
            let y = c.binary(BinaryKind::Mul, u, &a)?;
            let parts = self.parts(c, y)?;
            return c.sum(&parts);
        }
        let kernel = c.reshape(&kernels.0, &with_ones(&[all / 2, inputs], spatial))?;
        let bias = biases.map(|b| c.reshape(&b.0, &[all / 2])).transpose()?;
        let a = c.conv(self.pointwise(), h, &kernel, bias.as_ref())?;
        let a = c.unary(UnaryKind::Sigmoid, &a)?;
        let parts: Vec<Option<C::Value>> = self.parts(c, u.clone())?.into_iter().map(Some).collect();
        let (first, second) = (C::given(&parts, 0, "part")?, C::given(&parts, 1, "part")?);
        let difference = c.binary(BinaryKind::Sub, &first, &second)?;
        let weighed = c.binary(BinaryKind::Mul, &a, &difference)?;
        c.binary(BinaryKind::Add, &second, &weighed)
    }
}

/// A shape with sizes of 1 behind it.
fn with_ones(lead: &[i64], ones: usize) -> Vec<i64> {
    [lead, vec![1; ones].as_slice()].concat()
}

impl Operator for SplitAttention {
    single!(SplitAttention, "SplitAttention");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, w) = (required(inputs, 0, "X")?, required(inputs, 1, "W")?);
        let (w1, w2) = (required(inputs, 3, "W1")?, required(inputs, 5, "W2")?);
        check_group(self.radix, "radix")?;
        check_group(self.cardinality, "cardinality")?;
        let mut y = self.convolution().infer(&[Some(x), Some(w), optional(inputs, 2)], cx)?.swap_remove(0);
        let parts = self.radix.saturating_mul(self.cardinality);
        let all = y.shape[1].as_fixed().filter(|n| *n > 0 && n % parts == 0).ok_or_else(|| {
            let expected = format!("a known multiple of {parts} of output channels is needed (radix times cardinality)");
            shape_error(w, 1, "W", expected)
        })?;
        let mut pooled = vec![y.shape[0].clone(), Dim::from(all / self.radix)];
        pooled.resize(y.rank(), Dim::from(1));
        let pooled = Fact::new(y.dtype, pooled);
        let h = self.pointwise().infer(&[Some(&pooled), Some(w1), optional(inputs, 4)], cx)?.swap_remove(0);
        let a = self.pointwise().infer(&[Some(&h), Some(w2), optional(inputs, 6)], cx)?.swap_remove(0);
        if a.shape[1].equals(&Dim::from(all)) == Some(false) {
            return Err(shape_error(w2, 5, "W2", format!("{all} output channels are needed")));
        }
        for (f, index, name) in [(w1, 3, "W1"), (w2, 5, "W2")] {
            if f.shape[2..].iter().any(|k| k.as_fixed() != Some(1)) {
                return Err(shape_error(f, index, name, "kernels of one tap are needed".into()));
            }
        }
        y.shape[1] = Dim::from(all / self.radix);
        Ok(vec![y])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        output_shapes(self, inputs)?;
        evaluate(inputs, cx, |c, operands| self.compose(c, operands))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_symbolic, close, indices, random_f64, run_threads};

    /// Dense sums with the groups' zeros left out by index arithmetic, for kernels of one tap.
    #[test]
    fn agrees_with_the_formula() {
        for (radix, cardinality, activation) in [(2, 1, Activation::Relu), (2, 2, Activation::Relu), (3, 2, Activation::Identity), (1, 2, Activation::Relu)] {
            let (n, channels, hidden, plane) = (2, 4, 6, 5);
            let all = channels * radix;
            let x = random_f64(&[n, 3, plane], 1);
            let (w, b) = (random_f64(&[all, 3, 1], 2), random_f64(&[all], 3));
            let (w1, b1) = (random_f64(&[hidden, channels / cardinality, 1], 4), random_f64(&[hidden], 5));
            let (w2, b2) = (random_f64(&[all, hidden / cardinality, 1], 6), random_f64(&[all], 7));
            let op = SplitAttention {
                radix: radix as i64,
                cardinality: cardinality as i64,
                activation,
                strides: vec![1],
                pads: vec![0, 0],
                dilations: vec![1],
                group: 1,
            };
            let at = |t: &Tensor, i: usize| t.as_slice::<f64>().unwrap()[i];
            let grouped = |w: &Tensor, b: &Tensor, x: &[f64]| -> Vec<f64> {
                let (outs, ins) = (w.shape()[0], w.shape()[1]);
                (0..outs)
                    .map(|o| {
                        let first = o / (outs / cardinality) * ins;
                        (0..ins).map(|i| at(w, o * ins + i) * x[first + i]).sum::<f64>() + at(b, o)
                    })
                    .collect()
            };
            let mut expected = vec![0.0; n * channels * plane];
            for s in 0..n {
                let u = |o: usize, p: usize| {
                    let v = (0..3).map(|i| at(&w, o * 3 + i) * at(&x, (s * 3 + i) * plane + p)).sum::<f64>() + at(&b, o);
                    if activation == Activation::Relu { v.max(0.0) } else { v }
                };
                let pooled: Vec<f64> = (0..channels)
                    .map(|c| (0..radix).flat_map(|r| (0..plane).map(move |p| (r, p))).map(|(r, p)| u(r * channels + c, p)).sum::<f64>() / plane as f64)
                    .collect();
                let h: Vec<f64> = grouped(&w1, &b1, &pooled).iter().map(|v| v.max(0.0)).collect();
                let a = grouped(&w2, &b2, &h);
                let width = channels / cardinality;
                for c in 0..channels {
                    let logit = |r: usize| a[(c / width * radix + r) * width + c % width];
                    let total: f64 = (0..radix).map(|r| logit(r).exp()).sum();
                    for p in 0..plane {
                        expected[(s * channels + c) * plane + p] = (0..radix)
                            .map(|r| {
                                let weight =
                                    if radix == 1 { 1.0 / (1.0 + (-logit(0)).exp()) } else { logit(r).exp() / total };
                                weight * u(r * channels + c, p)
                            })
                            .sum();
                    }
                }
            }
            let inputs = [Some(&x), Some(&w), Some(&b), Some(&w1), Some(&b1), Some(&w2), Some(&b2)];
            let y = run_threads(&op, &inputs).unwrap().swap_remove(0);
            close(&y, &Tensor::new([n, channels, plane], expected).unwrap(), 1e-13);
            check_symbolic(&op, &inputs);
            assert_eq!(indices(y.shape()).len(), y.len());
            let refused = run_threads(&SplitAttention { radix: 5, ..op }, &inputs);
            assert!(matches!(refused, Err(OpError::InputShape { index: 1, .. })));
        }
    }
}
