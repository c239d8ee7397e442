//! Depthwise over-parameterised convolution (<https://arxiv.org/abs/2006.12030>), domain `ai.convc`.

use crate::{
    Dim, Fact, OpError, Tensor, attributes,
    ops::{
        InferCx, Operator, RunCx, Transpose,
        compose::{Compose, Composer, convolution, evaluate},
        helpers::{optional, required},
        planes::{expect_float, output_shapes, shape_error},
    },
};

attributes! {
    /// `y = Conv(x, W', b)` with `W'[o, i, t] = sum over s of D[c, t, s] * W''[o', c, s]`: `W''` is W read as
    /// `[O/group, C, S]`, and `W'`, `[O/group, C, T]` in that reading, is read as `[O, C/group, kernel_shape..]`.
    ///
    /// x `[N, C, D1..Dn]`; D `[C, T, S]`, the whole factor (the diagonal added), T the product of `kernel_shape`;
    /// W `[O, C/group, S]`; b `[O]` (optional).
    pub struct DOConv {
        /// Taps along each spatial axis.
        pub kernel_shape: Vec<i64>,
        /// Step between outputs, one per spatial axis.
        pub strides: Vec<i64>,
        /// Zeros before (first half) and after each spatial axis.
        pub pads: Vec<i64>,
        /// Step between taps, one per spatial axis.
        pub dilations: Vec<i64>,
        /// Number of groups.
        pub group: i64,
    }
}

/// The number of taps of a kernel, if it is one.
///
/// # Errors
/// [`OpError::Attribute`].
pub(crate) fn check_kernel(kernel: &[i64]) -> Result<i64, OpError> {
    let taps = kernel.iter().try_fold(1i64, |n, &k| n.checked_mul(k).filter(|_| k > 0));
    taps.filter(|_| !kernel.is_empty())
        .ok_or_else(|| OpError::Attribute { name: "kernel_shape", problem: format!("{kernel:?} is not a kernel") })
}

/// Requires a number of groups.
///
/// # Errors
/// [`OpError::Attribute`].
pub(crate) fn check_group(group: i64, name: &'static str) -> Result<(), OpError> {
    if group >= 1 { Ok(()) } else { Err(OpError::Attribute { name, problem: format!("{group} is not positive") }) }
}

impl DOConv {
    /// Defines the operator by others.
    ///
    /// # Errors
    /// If an operand is missing, or the sizes of W and D are not known.
    pub fn compose<C: Composer>(&self, c: &mut C, operands: &[Option<C::Value>]) -> Result<C::Value, C::Error> {
        let (x, d, w) = (C::given(operands, 0, "X")?, C::given(operands, 1, "D")?, C::given(operands, 2, "W")?);
        let b = operands.get(3).cloned().flatten();
        check_group(self.group, "group")?;
        let sizes = c.sizes(&w, "W")?;
        let (o, per_group, s) = (sizes.at(0)?, sizes.at(1)?, sizes.at(2)?);
        let w = c.reshape(&w, &[o / self.group, per_group * self.group, s])?;
        let w = c.one(Transpose { perm: vec![1, 2, 0] }, vec![Some(w)])?;
        let kernel = c.matmul(&d, &w)?;
        let kernel = c.one(Transpose { perm: vec![2, 0, 1] }, vec![Some(kernel)])?;
        let mut shape = vec![o, per_group];
        shape.extend(&self.kernel_shape);
        let kernel = c.reshape(&kernel, &shape)?;
        c.conv(convolution(&self.strides, &self.pads, &self.dilations, self.group), &x, &kernel, b.as_ref())
    }
}

impl Operator for DOConv {
    single!(DOConv, "DOConv");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, d, w) = (required(inputs, 0, "X")?, required(inputs, 1, "D")?, required(inputs, 2, "W")?);
        let taps = check_kernel(&self.kernel_shape)?;
        check_group(self.group, "group")?;
        for (i, name, f) in [(0, "X", x), (1, "D", d), (2, "W", w)] {
            expect_float(f, i, name)?;
        }
        if w.rank() != 3 {
            return Err(shape_error(w, 2, "W", "[O, C/group, S] is needed".into()));
        }
        let expected = [&w.shape[1] * self.group, Dim::from(taps), w.shape[2].clone()];
        if d.rank() != 3 || d.shape.iter().zip(&expected).any(|(a, b)| a.equals(b) == Some(false)) {
            return Err(shape_error(d, 1, "D", format!("{} is needed", crate::fact::Shape(&expected))));
        }
        let mut kernel = w.shape[..2].to_vec();
        kernel.extend(self.kernel_shape.iter().map(|&k| Dim::from(k)));
        let kernel = Fact::new(x.dtype, kernel);
        let conv = convolution(&self.strides, &self.pads, &self.dilations, self.group);
        conv.infer(&[Some(x), Some(&kernel), optional(inputs, 3)], cx)
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

    /// The kernel by the paper's formula with its reshapes spelt out: W flat as `[O/G, C, S]`, W' flat as `[O/G, C, T]`.
    #[test]
    fn agrees_with_the_paper() {
        for (o, channels, group, s) in [(4, 6, 1, 4), (6, 4, 2, 5), (8, 8, 8, 4)] {
            let x = random_f64(&[3, channels, 5, 4], 1);
            let d = random_f64(&[channels, 4, s], 2);
            let w = random_f64(&[o, channels / group, s], 3);
            let b = random_f64(&[o], 4);
            let (dv, wv) = (d.to_f64s().unwrap(), w.to_f64s().unwrap());
            let kernel: Vec<f64> = indices(&[o / group, channels, 4])
                .iter()
                .map(|i| (0..s).map(|k| dv[(i[1] * 4 + i[2]) * s + k] * wv[(i[0] * channels + i[1]) * s + k]).sum())
                .collect();
            let kernel = Tensor::new([o, channels / group, 2, 2], kernel).unwrap();
            let op = DOConv {
                kernel_shape: vec![2, 2],
                strides: vec![1, 2],
                pads: vec![1, 0, 0, 1],
                dilations: vec![1, 1],
                group: group as i64,
            };
            let conv = convolution(&op.strides, &op.pads, &op.dilations, op.group);
            let expected = run_threads(&conv, &[Some(&x), Some(&kernel), Some(&b)]).unwrap();
            let inputs = [Some(&x), Some(&d), Some(&w), Some(&b)];
            let y = run_threads(&op, &inputs).unwrap();
            close(&y[0], &expected[0], 1e-13);
            check_symbolic(&op, &inputs);
            let misfit = random_f64(&[channels, 3, s], 2);
            let refused = run_threads(&op, &[Some(&x), Some(&misfit), Some(&w)]);
            assert!(matches!(refused, Err(OpError::InputShape { index: 1, .. })));
        }
    }
}
