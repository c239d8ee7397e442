//! Affine functions of one value per channel: 1x1 convolutions, Gemm, MatMul with a sum.

use convc_runtime::{
    Op,
    ops::{Gather, binary::BinaryKind},
    window::AutoPad,
};

use crate::rewrite::{
    rules::weights::{Kernel, floats, ints, mul, reshape, transpose},
    view::{App, Class, Expr, View, fixed_dim},
};

/// `conv(x, kernel, bias)` with kernels of one tap.
pub(super) struct Head {
    /// The operand.
    pub(super) x: Class,
    /// The kernel.
    pub(super) kernel: Kernel,
    /// The kernel as the model has it, if it is one of a convolution of `spatial` axes.
    pub(super) weights: Option<Class>,
    /// The bias, `[O]`.
    pub(super) bias: Option<Expr>,
}

impl Head {
    /// Reads a class as an affine function with kernels for `spatial` axes.
    pub(super) fn read(view: &dyn View, class: Class, spatial: usize) -> Option<Head> {
        let app = view.apps(class).into_iter().next()?;
        match app.op {
            Op::Conv(_) => convolution(view, &app, spatial),
            Op::Gemm(_) => gemm(view, &app, spatial),
            Op::MatMul(_) => matmul(view, &app, spatial),
            Op::Binary(b) if b.kind == BinaryKind::Add => {
                let (a, b) = (app.operand(0)?, app.operand(1)?);
                let (x, c) = if view.is_constant(b) { (a, b) } else { (b, a) };
                let inner = view.apps(x).into_iter().next().filter(|a| matches!(a.op, Op::MatMul(_)))?;
                let head = matmul(view, &inner, spatial)?;
                let bias = row(view, c, head.kernel.outputs, view.fact(x)?.rank())?;
                Some(Head { bias: Some(bias), ..head })
            }
            _ => None,
        }
    }

    /// The kernel and bias with output channel `rows[i]` of this one as channel i.
    pub(super) fn permuted(self, rows: &[usize]) -> Head {
        if rows.len() == self.kernel.outputs as usize && rows.iter().enumerate().all(|(i, &r)| i == r) {
            return self;
        }
        let index = Expr::Constant(ints(&rows.iter().map(|&r| r as i64).collect::<Vec<i64>>()));
        let pick = |e: Expr| Expr::op(Gather { axis: 0 }, vec![Some(e), Some(index.clone())]);
        let Head { x, kernel, bias, .. } = self;
        let kernel = Kernel { weights: pick(kernel.weights), outputs: rows.len() as i64, ..kernel };
        Head { x, kernel, weights: None, bias: bias.map(pick) }
    }

    /// The same function with all channels in one group.
    pub(super) fn dense(self, view: &dyn View) -> Option<Head> {
        if self.kernel.group == 1 {
            return Some(self);
        }
        let dtype = view.fact(self.x)?.dtype;
        Some(Head { kernel: self.kernel.in_groups(dtype, 1)?, weights: None, ..self })
    }
}

/// The constant as `[size]`, if a sum with a value of this rank reads it along the last axis.
fn row(view: &dyn View, class: Class, size: i64, rank: usize) -> Option<Expr> {
    let shape = view.fact(class)?.fixed_shape()?;
    let (last, before) = shape.split_last()?;
    let fits = *last as i64 == size && shape.len() <= rank && before.iter().all(|&n| n == 1);
    (fits && view.is_constant(class))
        .then(|| if shape.len() == 1 { class.into() } else { reshape(class.into(), &[size]) })
}

fn convolution(view: &dyn View, app: &App<'_>, spatial: usize) -> Option<Head> {
    let Op::Conv(op) = app.op else { return None };
    let (x, w) = (app.operand(0)?, app.operand(1)?);
    let shape: Vec<i64> = view.fact(w)?.fixed_shape()?.iter().map(|&n| n as i64).collect();
    let [outputs, inputs, taps @ ..] = shape.as_slice() else { return None };
    let plain = op.auto_pad == AutoPad::NotSet && op.pads.iter().all(|&p| p == 0) && op.strides.iter().all(|&s| s == 1);
    if !plain || taps.iter().any(|&t| t != 1) || shape.contains(&0) {
        return None;
    }
    let same = taps.len() == spatial;
    let weights = if same { w.into() } else { with_taps(w.into(), *outputs, *inputs, spatial) };
    let kernel = Kernel { weights, outputs: *outputs, inputs: *inputs, taps: vec![1; spatial], group: op.group };
    Some(Head { x, kernel, weights: same.then_some(w), bias: app.operand(2).map(Expr::Class) })
}

fn with_taps(matrix: Expr, outputs: i64, inputs: i64, spatial: usize) -> Expr {
    reshape(matrix, &[vec![outputs, inputs], vec![1; spatial]].concat())
}

fn dense(x: Class, matrix: Expr, (outputs, inputs): (i64, i64), bias: Option<Expr>, spatial: usize) -> Option<Head> {
    if outputs <= 0 || inputs <= 0 {
        return None;
    }
    let weights = with_taps(matrix, outputs, inputs, spatial);
    Some(Head { x, kernel: Kernel { weights, outputs, inputs, taps: vec![1; spatial], group: 1 }, weights: None, bias })
}

fn gemm(view: &dyn View, app: &App<'_>, spatial: usize) -> Option<Head> {
    let Op::Gemm(op) = app.op else { return None };
    let (x, w) = (app.operand(0)?, app.operand(1)?);
    if op.trans_a || !view.is_constant(w) {
        return None;
    }
    let dtype = view.fact(x)?.dtype;
    let (a, b) = (fixed_dim(view, w, 0)?, fixed_dim(view, w, 1)?);
    let (matrix, sizes) = if op.trans_b { (w.into(), (a, b)) } else { (transpose(w.into(), &[1, 0]), (b, a)) };
    let times = |e: Expr, f: f32| if f == 1.0 { e } else { mul(e, floats(dtype, &[1], vec![f64::from(f)])) };
    let bias = match app.operand(2) {
        Some(c) => Some(times(row(view, c, sizes.0, 2)?, op.beta)),
        None => None,
    };
    dense(x, times(matrix, op.alpha), sizes, bias, spatial)
}

fn matmul(view: &dyn View, app: &App<'_>, spatial: usize) -> Option<Head> {
    let (x, w) = (app.operand(0)?, app.operand(1)?);
    if !view.is_constant(w) || view.fact(w)?.rank() != 2 || view.fact(x)?.rank() != 2 {
        return None;
    }
    let sizes = (fixed_dim(view, w, 1)?, fixed_dim(view, w, 0)?);
    dense(x, transpose(w.into(), &[1, 0]), sizes, None, spatial)
}
