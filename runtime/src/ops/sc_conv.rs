//! Self-calibrated convolution (Liu et al., Improving Convolutional Networks with Self-Calibrated Convolutions, CVPR 2020),
//! the calibrated path only; domain `ai.convc`.

use crate::{
    Fact, OpError, Tensor, attributes,
    ops::{
        AveragePool, InferCx, Operator, Resize, RunCx, Shape,
        binary::BinaryKind,
        compose::{Compose, Composer, convolution, evaluate},
        helpers::{optional, required},
        planes::{expect_rank, output_shapes, shape_error},
        unary::UnaryKind,
    },
    window::AutoPad,
};

attributes! {
    /// `g = sigmoid(x + up(Conv(pool(x), w2, b2))); y = Conv(Conv(x, w3, b3) * g, w4, b4)`, the last with `strides`.
    ///
    /// `pool` is the mean of r×..×r tiles (what is left over at the end is dropped), r = `pool_size`; `up` takes the nearest
    /// element (asymmetric, rounding down) to the sizes of x. x `[N, C, D1..Dn]`; w2, w3 `[C, C/group, K..]`, w4
    /// `[O, C/group, K..]`, each bias optional; the convolutions with w2 and w3 keep the sizes of what they see.
    pub struct SCConv {
        /// Side of the tiles.
        pub pool_size: i64,
        /// Step between outputs, one per spatial axis.
        pub strides: Vec<i64>,
        /// Zeros before (first half) and after each spatial axis, of all three convolutions.
        pub pads: Vec<i64>,
        /// Step between taps of all three convolutions, one per spatial axis.
        pub dilations: Vec<i64>,
        /// Number of groups of all three convolutions.
        pub group: i64,
    }
}

impl SCConv {
    fn keeping(&self) -> super::Conv {
        convolution(&vec![1; self.strides.len()], &self.pads, &self.dilations, self.group)
    }

    fn last(&self) -> super::Conv {
        convolution(&self.strides, &self.pads, &self.dilations, self.group)
    }

    /// Defines the operator by others.
    ///
    /// # Errors
    /// If an operand is missing, or the rank of x is not known.
    pub fn compose<C: Composer>(&self, c: &mut C, operands: &[Option<C::Value>]) -> Result<C::Value, C::Error> {
        let x = C::given(operands, 0, "X")?;
        let [w2, w3, w4] = [(1, "W2"), (3, "W3"), (5, "W4")].map(|(i, name)| C::given(operands, i, name));
        let at = |i: usize| operands.get(i).and_then(Option::as_ref);
        let sizes = c.sizes(&x, "X")?;
        let pooled = c.tile_average(&x, self.pool_size, sizes.spatial())?;
        let small = c.conv(self.keeping(), &pooled, &w2?, at(2))?;
        let target = match sizes.fact.fixed_shape() {
            Some(shape) => c.ints(&shape.iter().map(|&n| n as i64).collect::<Vec<_>>())?,
            None => c.one(Shape { start: 0, end: None }, vec![Some(x.clone())])?,
        };
        let up = c.one(Resize::nearest(), vec![Some(small), None, None, Some(target)])?;
        let sum = c.binary(BinaryKind::Add, &x, &up)?;
        let gate = c.unary(UnaryKind::Sigmoid, &sum)?;
        let y = c.conv(self.keeping(), &x, &w3?, at(4))?;
        let y = c.binary(BinaryKind::Mul, &y, &gate)?;
        c.conv(self.last(), &y, &w4?, at(6))
    }
}

impl Operator for SCConv {
    single!(SCConv, "SCConv");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "X")?;
        let [w2, w3, w4] = [(1, "W2"), (3, "W3"), (5, "W4")].map(|(i, name)| required(inputs, i, name));
        let (w2, w3, w4) = (w2?, w3?, w4?);
        expect_rank(x, 3, 0, "X")?;
        if !(1..=i64::from(i32::MAX)).contains(&self.pool_size) {
            let problem = format!("{} is not a positive 32-bit number", self.pool_size);
            return Err(OpError::Attribute { name: "pool_size", problem });
        }
        let spatial = x.rank() - 2;
        let pool = AveragePool {
            kernel_shape: vec![self.pool_size; spatial],
            strides: vec![self.pool_size; spatial],
            pads: vec![0; 2 * spatial],
            dilations: vec![1; spatial],
            auto_pad: AutoPad::NotSet,
            ceil_mode: false,
            count_include_pad: false,
        };
        let kept = |x: &Fact, w: &Fact, b: usize, index, name, cx: &mut InferCx<'_>| {
            let y = self.keeping().infer(&[Some(x), Some(w), optional(inputs, b)], cx)?.swap_remove(0);
            if y.shape.iter().zip(&x.shape).any(|(a, b)| a.equals(b) == Some(false)) {
                return Err(shape_error(w, index, name, "which does not keep the sizes of its input".into()));
            }
            Ok(y)
        };
        let pooled = pool.infer(&[Some(x)], cx)?.swap_remove(0);
        kept(&pooled, w2, 2, 1, "W2", cx)?;
        let y = kept(x, w3, 4, 3, "W3", cx)?;
        self.last().infer(&[Some(&y), Some(w4), optional(inputs, 6)], cx)
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

    /// One channel, kernels of one tap: the formula written out for sizes that r does not divide.
    #[test]
    fn agrees_with_the_formula() {
        let x = random_f64(&[2, 1, 5, 7], 1);
        let one = |v: f64| Tensor::new([1, 1, 1, 1], vec![v]).unwrap();
        let (w2, w3, w4, b) = (one(0.5), one(-2.0), one(3.0), Tensor::vector(vec![0.25]));
        let op = SCConv { pool_size: 2, strides: vec![2, 1], pads: vec![0; 4], dilations: vec![1, 1], group: 1 };
        let v = x.to_f64s().unwrap();
        let at = |n: usize, h: usize, w: usize| v[(n * 5 + h) * 7 + w];
        let expected: Vec<f64> = indices(&[2, 1, 3, 7])
            .iter()
            .map(|i| {
                let (n, h, w) = (i[0], i[2] * 2, i[3]);
                let (th, tw) = (h * 2 / 5 * 2, w * 3 / 7 * 2);
                let mean = (at(n, th, tw) + at(n, th, tw + 1) + at(n, th + 1, tw) + at(n, th + 1, tw + 1)) / 4.0;
                let gate = 1.0 / (1.0 + libm::exp(-(at(n, h, w) + 0.5 * mean + 0.25)));
                3.0 * (-2.0 * at(n, h, w) * gate) + 0.25
            })
            .collect();
        let inputs = [Some(&x), Some(&w2), Some(&b), Some(&w3), None, Some(&w4), Some(&b)];
        let y = run_threads(&op, &inputs).unwrap().swap_remove(0);
        close(&y, &Tensor::new([2, 1, 3, 7], expected).unwrap(), 1e-13);
        check_symbolic(&op, &inputs);
        let refused = run_threads(&SCConv { pads: vec![1; 4], ..op }, &inputs);
        assert!(matches!(refused, Err(OpError::InputShape { .. })), "{refused:?}");
    }
}
