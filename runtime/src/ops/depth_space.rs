//! Blocks between depth and space: [DepthToSpace](https://onnx.ai/onnx/operators/onnx__DepthToSpace.html) and
//! [SpaceToDepth](https://onnx.ai/onnx/operators/onnx__SpaceToDepth.html).

use crate::{
    Dim, Fact, OpError, Tensor, attribute_enum, attributes, match_any,
    ops::{
        InferCx, Operator, RunCx,
        copy::{Layout, strides, view},
        helpers::required,
        known::{dims, shape_error, sizes},
    },
};

attribute_enum! {
    /// How the channels of the depth side split up.
    pub enum DepthMode {
        /// Row and column of the block, then the channel.
        Dcr = "DCR",
        /// The channel, then row and column of the block.
        Crd = "CRD",
    }
}

attributes! {
    /// `[N, C*b*b, H, W]` to `[N, C, H*b, W*b]`: `y[n, c, h*b + i, w*b + j] = x[n, d, h, w]` with `d` made of (i, j, c) or (c, i, j).
    pub struct DepthToSpace {
        /// Side of a block.
        pub blocksize: i64,
        /// How the channels split up.
        pub mode: DepthMode,
    }
}

attributes! {
    /// The inverse of [`DepthToSpace`].
    pub struct SpaceToDepth {
        /// Side of a block.
        pub blocksize: i64,
        /// How the channels split up.
        pub mode: DepthMode,
    }
}

fn check(x: &[Dim], block: i64) -> Result<(), OpError> {
    if !(1..=1 << 20).contains(&block) {
        return Err(OpError::Attribute { name: "blocksize", problem: format!("{block} is not the side of a block") });
    }
    if x.len() == 4 { Ok(()) } else { Err(shape_error(0, "input", x, "4 dimensions are needed")) }
}

fn quotient(x: &[Dim], axis: usize, divisor: i64) -> Result<Dim, OpError> {
    if x[axis].divisible_by(divisor) == Some(false) {
        return Err(shape_error(0, "input", x, format!("a multiple of {divisor} is needed at axis {axis}")));
    }
    Ok(x[axis].floor_div(&Dim::from(divisor)))
}

/// `x` seen with sizes `split` and then with its axes in the order `order`, as a tensor of `shape`.
fn rearranged(x: &Tensor, split: &[usize], order: &[usize], shape: Vec<usize>, cx: &RunCx<'_>) -> Result<Tensor, OpError> {
    let steps = strides(split);
    let steps: Vec<isize> = order.iter().map(|&o| steps[o]).collect();
    let sizes: Vec<usize> = order.iter().map(|&o| split[o]).collect();
    let from = Layout { offset: 0, strides: &steps };
    match_any!(x.data(), v => Ok(Tensor::new(shape, view(v, from, &sizes, cx.pool))?))
}

impl DepthToSpace {
    fn shape(&self, x: &[Dim]) -> Result<Vec<Dim>, OpError> {
        check(x, self.blocksize)?;
        let b = self.blocksize;
        Ok(vec![x[0].clone(), quotient(x, 1, b * b)?, &x[2] * b, &x[3] * b])
    }
}

impl Operator for DepthToSpace {
    single!(DepthToSpace, "DepthToSpace");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "input")?;
        Ok(vec![Fact::new(x.dtype, self.shape(&x.shape)?)])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0, "input")?;
        let shape = sizes(&self.shape(&dims(x.shape()))?, cx)?;
        let b = self.blocksize as usize;
        let (n, c, h, w) = (shape[0], shape[1], x.shape()[2], x.shape()[3]);
        let y = match self.mode {
            DepthMode::Dcr => rearranged(x, &[n, b, b, c, h, w], &[0, 3, 4, 1, 5, 2], shape, cx)?,
            DepthMode::Crd => rearranged(x, &[n, c, b, b, h, w], &[0, 1, 4, 2, 5, 3], shape, cx)?,
        };
        Ok(vec![y])
    }
}

impl SpaceToDepth {
    fn shape(&self, x: &[Dim]) -> Result<Vec<Dim>, OpError> {
        check(x, self.blocksize)?;
        let b = self.blocksize;
        Ok(vec![x[0].clone(), &x[1] * (b * b), quotient(x, 2, b)?, quotient(x, 3, b)?])
    }
}

impl Operator for SpaceToDepth {
    single!(SpaceToDepth, "SpaceToDepth");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "input")?;
        Ok(vec![Fact::new(x.dtype, self.shape(&x.shape)?)])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0, "input")?;
        let shape = sizes(&self.shape(&dims(x.shape()))?, cx)?;
        let b = self.blocksize as usize;
        let split = [shape[0], x.shape()[1], shape[2], b, shape[3], b];
        let order = match self.mode {
            DepthMode::Dcr => [0, 3, 5, 1, 2, 4],
            DepthMode::Crd => [0, 1, 3, 5, 2, 4],
        };
        Ok(vec![rearranged(x, &split, &order, shape, cx)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{Random, checked, gathered, infer, run};

    #[test]
    fn agrees_with_indexing_both_ways() {
        let mut random = Random::new(67);
        for _ in 0..100 {
            let mode = DepthMode::ALL[random.below(2)];
            let b = 1 + random.below(3);
            let [n, c, h, w] = [random.below(3), 1 + random.below(3), random.below(4), 1 + random.below(4)];
            let x = random.tensor(&[n, c * b * b, h, w]);
            let op = DepthToSpace { blocksize: b as i64, mode };
            let y = checked(&op, &[Some(&x)], &[]).remove(0);
            let expected = gathered(&x, &[n, c, h * b, w * b], |k| {
                let (i, j) = (k[2] % b, k[3] % b);
                let d = if mode == DepthMode::Dcr { (i * b + j) * c + k[1] } else { (k[1] * b + i) * b + j };
                vec![k[0], d, k[2] / b, k[3] / b]
            });
            assert_eq!(y, expected);
            let op = SpaceToDepth { blocksize: b as i64, mode };
            assert_eq!(checked(&op, &[Some(&y)], &[]).remove(0), x);
        }
        let d = |s: &str| Dim::parse(s).unwrap();
        let x = Fact::new(crate::DType::F32, ["N", "12", "2*H", "W"].map(d));
        let y = infer(&DepthToSpace { blocksize: 2, mode: DepthMode::Dcr }, &[Some(&x)]).unwrap().remove(0);
        assert_eq!(y.shape, ["N", "3", "4*H", "2*W"].map(d));
        let bad: [(&[usize], i64); 5] =
            [(&[1, 3, 2, 2], 2), (&[1, 4, 2], 2), (&[1, 4, 2, 2], 0), (&[1, 4, 2, 2], i64::MAX), (&[1, 4, 2, 2], -2)];
        for (shape, blocksize) in bad {
            let x = random.tensor(shape);
            assert!(run(&DepthToSpace { blocksize, mode: DepthMode::Dcr }, &[Some(&x)]).is_err());
        }
        let x = random.tensor(&[1, 4, 3, 2]);
        assert!(run(&SpaceToDepth { blocksize: 2, mode: DepthMode::Dcr }, &[Some(&x)]).is_err());
    }
}
