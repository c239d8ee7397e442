//! The algebra of weights: how rules combine kernels and biases, as terms of ordinary operators on constants.
//!
//! Nothing is computed here. The terms are evaluated once, in f64, when rewriting is done.

use convc_runtime::{
    Constant, DType, Tensor,
    ops::{
        Binary, Conv, ConvTranspose, Pad, Reduce, Reshape, Transpose, Unary, binary::BinaryKind, pad::PadMode,
        reduce::ReduceKind, unary::UnaryKind,
    },
    window::AutoPad,
};

use crate::rewrite::view::Expr;

/// `a + b` with broadcasting.
#[must_use]
pub fn add(a: Expr, b: Expr) -> Expr {
    Expr::op(Binary::new(BinaryKind::Add), vec![Some(a), Some(b)])
}

/// `a - b` with broadcasting.
#[must_use]
pub fn sub(a: Expr, b: Expr) -> Expr {
    Expr::op(Binary::new(BinaryKind::Sub), vec![Some(a), Some(b)])
}

/// `a * b` with broadcasting.
#[must_use]
pub fn mul(a: Expr, b: Expr) -> Expr {
    Expr::op(Binary::new(BinaryKind::Mul), vec![Some(a), Some(b)])
}

/// `a / b` with broadcasting.
#[must_use]
pub fn div(a: Expr, b: Expr) -> Expr {
    Expr::op(Binary::new(BinaryKind::Div), vec![Some(a), Some(b)])
}

/// Minus each element.
#[must_use]
pub fn neg(a: Expr) -> Expr {
    Expr::op(Unary::new(UnaryKind::Neg), vec![Some(a)])
}

/// The square root of each element.
#[must_use]
pub fn sqrt(a: Expr) -> Expr {
    Expr::op(Unary::new(UnaryKind::Sqrt), vec![Some(a)])
}

/// The elements under another shape.
#[must_use]
pub fn reshape(a: Expr, shape: &[i64]) -> Expr {
    Expr::op(Reshape { allowzero: false }, vec![Some(a), Some(Expr::Constant(ints(shape)))])
}

/// The axes in another order.
#[must_use]
pub fn transpose(a: Expr, perm: &[i64]) -> Expr {
    Expr::op(Transpose { perm: perm.to_vec() }, vec![Some(a)])
}

/// Zeros around: `pads` lists all beginnings, then all ends.
#[must_use]
pub fn zero_pad(a: Expr, pads: &[i64]) -> Expr {
    if pads.iter().all(|&p| p == 0) {
        return a;
    }
    Expr::op(Pad { mode: PadMode::Constant }, vec![Some(a), Some(Expr::Constant(ints(pads)))])
}

/// The sum over `axes`, which stay as sizes of 1.
#[must_use]
pub fn sum(a: Expr, axes: &[i64]) -> Expr {
    Expr::op(
        Reduce { kind: ReduceKind::ReduceSum, keepdims: true, noop_with_empty_axes: false },
        vec![Some(a), Some(Expr::Constant(ints(axes)))],
    )
}

/// A rank-1 i64 constant.
#[must_use]
pub fn ints(values: &[i64]) -> Constant {
    constant(&Tensor::vector(values.to_vec()))
}

/// A floating-point constant of `dtype` with these elements.
#[must_use]
pub fn floats(dtype: DType, shape: &[usize], values: Vec<f64>) -> Expr {
    let tensor = Tensor::new(shape.to_vec(), values).unwrap_or_else(|_| Tensor::scalar(f64::NAN));
    Expr::Constant(constant(&tensor.rounded_to(dtype)))
}

/// A tensor of ones.
#[must_use]
pub fn ones(dtype: DType, shape: &[usize]) -> Expr {
    floats(dtype, shape, vec![1.0; shape.iter().product()])
}

fn constant(tensor: &Tensor) -> Constant {
    match Constant::from_tensor(tensor) {
        Ok(c) => c,
        Err(e) => unreachable!("only test runs hold field elements: {e}"),
    }
}

/// Whether `fine` is a multiple of `coarse`.
fn refines(fine: i64, coarse: i64) -> bool {
    coarse > 0 && fine % coarse == 0
}

/// A convolution's kernel as rules see it.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The weights `[O, C/group, K..]`.
    pub weights: Expr,
    /// Output channels.
    pub outputs: i64,
    /// Input channels of one group.
    pub inputs: i64,
    /// Spatial sizes.
    pub taps: Vec<i64>,
    /// Groups.
    pub group: i64,
}

impl Kernel {
    /// Input channels of all groups.
    #[must_use]
    pub fn channels(&self) -> i64 {
        self.inputs * self.group
    }

    fn shape_with(&self, lead: &[i64], taps: &[i64]) -> Vec<i64> {
        lead.iter().chain(taps).copied().collect()
    }

    /// The same convolution in `group` groups, of which its own number is a multiple: blocks off the diagonal are 0.
    ///
    /// `W'[o, (j, i), t] = W[o, i, t]` where block `j` is that of output `o`'s group, else 0.
    #[must_use]
    pub fn in_groups(self, dtype: DType, group: i64) -> Option<Kernel> {
        if group == self.group {
            return Some(self);
        }
        if !refines(self.group, group) || self.outputs % self.group != 0 {
            return None;
        }
        let merged = self.group / group;
        let per = self.outputs / self.group;
        let spatial = self.taps.len();
        let m = usize::try_from(merged).ok()?;
        let mut eye = vec![0.0; m * m];
        (0..m).for_each(|i| eye[i * m + i] = 1.0);
        let mask_shape: Vec<usize> = [1, m, 1, m, 1].into_iter().chain(vec![1; spatial]).collect();
        let rows = self.shape_with(&[group, merged, per, 1, self.inputs], &self.taps);
        let out = self.shape_with(&[self.outputs, merged * self.inputs], &self.taps);
        let blocks = mul(reshape(self.weights, &rows), floats(dtype, &mask_shape, eye));
        Some(Kernel { weights: reshape(blocks, &out), inputs: merged * self.inputs, group, ..self })
    }

    /// The kernel set into a larger one of zeros: `before[a]` taps of 0 come before it along axis `a`, `taps` are the new sizes.
    #[must_use]
    pub fn embedded(self, before: &[i64], taps: &[i64]) -> Kernel {
        let after = taps.iter().zip(&self.taps).zip(before).map(|((n, k), b)| n - k - b);
        let pads: Vec<i64> = [0, 0].into_iter().chain(before.iter().copied()).chain([0, 0]).chain(after).collect();
        Kernel { weights: zero_pad(self.weights, &pads), taps: taps.to_vec(), ..self }
    }
}

/// The kernel of `second` behind `first`, as one kernel on a grid of step 1:
/// `W[o, i, p] = sum over m and p = steps2 * a + steps1 * b of W2[o, m, a] * W1[m, i, b]`.
///
/// That is a transposed convolution of W2 (its output channels as the batch) with W1. One number of groups must divide the
/// other; the result has the smaller number. `None` if they do not fit.
#[must_use]
pub fn compose(first: Kernel, second: Kernel, steps1: &[i64], steps2: &[i64]) -> Option<Kernel> {
    let (g1, g2) = (first.group, second.group);
    if second.channels() != first.outputs || second.outputs % g2 != 0 || first.outputs % g1 != 0 {
        return None;
    }
    let group = g1.min(g2);
    let fine = g1.max(g2);
    if !refines(fine, group) {
        return None;
    }
    let spatial = first.taps.len();
    let taps: Vec<i64> =
        (0..spatial).map(|a| steps2[a] * (second.taps[a] - 1) + steps1[a] * (first.taps[a] - 1) + 1).collect();
    let (o, m2) = (second.outputs, second.inputs);
    // W2 [g2, O/g2, M/g2, ..] with its groups side by side as channels: [O/g2, M, ..].
    let rest: Vec<i64> = (0..spatial as i64).collect();
    let image = if g2 == 1 {
        second.weights
    } else {
        let split = second.shape_with(&[g2, o / g2, m2], &second.taps);
        let perm: Vec<i64> = [1, 0, 2].into_iter().chain(rest.iter().map(|r| r + 3)).collect();
        let flat = second.shape_with(&[o / g2, g2 * m2], &second.taps);
        reshape(transpose(reshape(second.weights, &split), &perm), &flat)
    };
    let transposed = ConvTranspose {
        strides: steps2.to_vec(),
        pads: vec![0; 2 * spatial],
        dilations: steps1.to_vec(),
        group: fine,
        auto_pad: AutoPad::NotSet,
        output_padding: vec![0; spatial],
        output_shape: Vec::new(),
    };
    let product = Expr::op(transposed, vec![Some(image), Some(first.weights), None]);
    // [O/g2, fine * I1, ..] holds, for each group of the second, the inputs of one group of the result.
    let inputs = fine * first.inputs / g2;
    let weights = if g2 == 1 {
        product
    } else {
        let split: Vec<i64> = [o / g2, g2, inputs].into_iter().chain(taps.iter().copied()).collect();
        let perm: Vec<i64> = [1, 0, 2].into_iter().chain(rest.iter().map(|r| r + 3)).collect();
        let flat: Vec<i64> = [o, inputs].into_iter().chain(taps.iter().copied()).collect();
        reshape(transpose(reshape(product, &split), &perm), &flat)
    };
    Some(Kernel { weights, outputs: o, inputs, taps, group })
}

/// What `second` makes of a constant `bias` in each of its input channels, away from borders: `[O]`.
#[must_use]
pub fn response(second: &Kernel, bias: Expr) -> Expr {
    let spatial = second.taps.len();
    let axes: Vec<i64> = (2..2 + spatial as i64).collect();
    let point = |c: i64| -> Vec<i64> { [1, c].into_iter().chain(vec![1; spatial]).collect() };
    let conv = Conv {
        strides: vec![1; spatial],
        pads: vec![0; 2 * spatial],
        dilations: vec![1; spatial],
        group: second.group,
        auto_pad: AutoPad::NotSet,
    };
    let y = Expr::op(
        conv,
        vec![Some(reshape(bias, &point(second.channels()))), Some(sum(second.weights.clone(), &axes)), None],
    );
    reshape(y, &[second.outputs])
}

/// The sum of two biases, either of which may be left out.
#[must_use]
pub fn add_bias(a: Option<Expr>, b: Option<Expr>) -> Option<Expr> {
    match (a, b) {
        (Some(a), Some(b)) => Some(add(a, b)),
        (a, b) => a.or(b),
    }
}
