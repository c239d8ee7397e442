//! The Ghost module (<https://arxiv.org/abs/1911.11907>), domain `ai.convc`.

use crate::{
    Dim, Fact, OpError, Tensor, attribute_enum, attributes,
    ops::{
        InferCx, Operator, RunCx, Slice,
        compose::{Compose, Composer, convolution, evaluate},
        helpers::{optional, required},
        planes::{output_shapes, shape_error},
        unary::UnaryKind,
    },
};

attribute_enum! {
    /// What follows a convolution within an operator.
    pub enum Activation {
        /// Nothing.
        Identity = "Identity",
        /// `max(x, 0)`
        Relu = "Relu",
    }
}

impl Activation {
    /// Applies it.
    pub(crate) fn apply<C: Composer>(self, c: &mut C, x: C::Value) -> Result<C::Value, C::Error> {
        match self {
            Activation::Identity => Ok(x),
            Activation::Relu => c.unary(UnaryKind::Relu, &x),
        }
    }
}

attributes! {
    /// `p = act(Conv(x, w1, b1)); q = act(Conv(p, w2, b2)), depthwise; y = concat(p, q)[:, :out_channels]`.
    ///
    /// x `[N, C, D1..Dn]`; w1 `[P, C/group, K..]`, b1 `[P]` (optional); w2 `[Q, 1, K..]`, Q a multiple of P, b2 `[Q]` (optional);
    /// y `[N, out_channels, ..]`, at most P + Q channels. The cheap convolution has stride 1 and keeps the sizes of p.
    pub struct GhostModule {
        /// Number of channels that are kept, from the first.
        pub out_channels: i64,
        /// What follows both convolutions.
        pub activation: Activation,
        /// Step between outputs of the primary convolution, one per spatial axis.
        pub strides: Vec<i64>,
        /// Zeros before (first half) and after each spatial axis, of the primary convolution.
        pub pads: Vec<i64>,
        /// Step between taps of the primary convolution, one per spatial axis.
        pub dilations: Vec<i64>,
        /// Number of groups of the primary convolution.
        pub group: i64,
        /// Zeros before (first half) and after each spatial axis, of the cheap convolution.
        pub cheap_pads: Vec<i64>,
        /// Step between taps of the cheap convolution, one per spatial axis.
        pub cheap_dilations: Vec<i64>,
    }
}

impl GhostModule {
    fn primary(&self) -> super::Conv {
        convolution(&self.strides, &self.pads, &self.dilations, self.group)
    }

    fn cheap(&self, channels: i64) -> super::Conv {
        convolution(&vec![1; self.cheap_dilations.len()], &self.cheap_pads, &self.cheap_dilations, channels)
    }

    /// Defines the operator by others.
    ///
    /// # Errors
    /// If an operand is missing, or the number of channels is not known.
    pub fn compose<C: Composer>(&self, c: &mut C, operands: &[Option<C::Value>]) -> Result<C::Value, C::Error> {
        let (x, w1, w2) = (C::given(operands, 0, "X")?, C::given(operands, 1, "W1")?, C::given(operands, 3, "W2")?);
        let at = |i: usize| operands.get(i).and_then(Option::as_ref);
        let channels = (c.sizes(&w1, "W1")?.at(0)?, c.sizes(&w2, "W2")?.at(0)?);
        let p = c.conv(self.primary(), &x, &w1, at(2))?;
        let p = self.activation.apply(c, p)?;
        let q = c.conv(self.cheap(channels.0), &p, &w2, at(4))?;
        let q = self.activation.apply(c, q)?;
        let y = c.concat(&[p, q], 1)?;
        if self.out_channels == channels.0 + channels.1 {
            return Ok(y);
        }
        let [start, end, axis] = [c.ints(&[0])?, c.ints(&[self.out_channels])?, c.ints(&[1])?];
        c.one(Slice {}, vec![Some(y), Some(start), Some(end), Some(axis)])
    }
}

impl Operator for GhostModule {
    single!(GhostModule, "GhostModule");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, w1, w2) = (required(inputs, 0, "X")?, required(inputs, 1, "W1")?, required(inputs, 3, "W2")?);
        let mut p = self.primary().infer(&[Some(x), Some(w1), optional(inputs, 2)], cx)?.swap_remove(0);
        let Some(primary) = p.shape[1].as_fixed().filter(|n| *n > 0) else {
            return Err(shape_error(w1, 1, "W1", "a known number of output channels is needed".into()));
        };
        let q = self.cheap(primary).infer(&[Some(&p), Some(w2), optional(inputs, 4)], cx)?.swap_remove(0);
        if p.shape[2..].iter().zip(&q.shape[2..]).any(|(a, b)| a.equals(b) == Some(false)) {
            let problem = format!("{:?} changes the sizes of the primary result", self.cheap_pads);
            return Err(OpError::Attribute { name: "cheap_pads", problem });
        }
        let total = q.shape[1].as_fixed().map_or(i64::MAX, |q| q.saturating_add(primary));
        if !(1..=total).contains(&self.out_channels) {
            let problem = format!("{} of {total} channels", self.out_channels);
            return Err(OpError::Attribute { name: "out_channels", problem });
        }
        p.shape[1] = Dim::from(self.out_channels);
        Ok(vec![p])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        output_shapes(self, inputs)?;
        evaluate(inputs, cx, |c, operands| self.compose(c, operands))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_symbolic, indices, random_f64, run_threads};

    /// A 1×1 primary convolution and 3-tap ghosts, both written out.
    #[test]
    fn agrees_with_the_formula() {
        let (x, w1, b1) = (random_f64(&[2, 3, 5], 1), random_f64(&[2, 3, 1], 2), random_f64(&[2], 3));
        let (w2, b2) = (random_f64(&[4, 1, 3], 4), random_f64(&[4], 5));
        for (activation, out_channels) in [(Activation::Relu, 5), (Activation::Identity, 6), (Activation::Identity, 1)] {
            let op = GhostModule {
                out_channels,
                activation,
                strides: vec![1],
                pads: vec![0, 0],
                dilations: vec![1],
                group: 1,
                cheap_pads: vec![1, 1],
                cheap_dilations: vec![1],
            };
            let at = |t: &Tensor, i: usize| t.as_slice::<f64>().unwrap()[i];
            let act = |v: f64| if activation == Activation::Relu { v.max(0.0) } else { v };
            let p = |n: usize, c: usize, i: usize| {
                act((0..3).map(|k| at(&w1, c * 3 + k) * at(&x, (n * 3 + k) * 5 + i)).sum::<f64>() + at(&b1, c))
            };
            let q = |n: usize, g: usize, i: usize| {
                let taps = (0..3).filter(|t| (1..6).contains(&(i + t)));
                act(taps.map(|t| at(&w2, g * 3 + t) * p(n, g / 2, i + t - 1)).sum::<f64>() + at(&b2, g))
            };
            let expected: Vec<f64> = indices(&[2, out_channels as usize, 5])
                .iter()
                .map(|i| if i[1] < 2 { p(i[0], i[1], i[2]) } else { q(i[0], i[1] - 2, i[2]) })
                .collect();
            let inputs = [Some(&x), Some(&w1), Some(&b1), Some(&w2), Some(&b2)];
            let y = run_threads(&op, &inputs).unwrap().swap_remove(0);
            crate::ops::testing::close(&y, &Tensor::new([2, out_channels as usize, 5], expected).unwrap(), 1e-13);
            check_symbolic(&op, &inputs);
            let too_many = GhostModule { out_channels: 7, ..op.clone() };
            assert!(matches!(run_threads(&too_many, &inputs), Err(OpError::Attribute { name: "out_channels", .. })));
            let shrinking = GhostModule { cheap_pads: vec![0, 0], ..op };
            assert!(matches!(run_threads(&shrinking, &inputs), Err(OpError::Attribute { name: "cheap_pads", .. })));
        }
    }
}
