//! Convolutions.

use convc_runtime::{Dim, Op, ops::Conv, window::AutoPad};

use crate::rewrite::{
    rules::weights::Kernel,
    view::{App, Class, Expr, View},
};

/// A convolution with a constant kernel and explicit padding.
pub(in crate::rewrite) struct ConvAt<'a> {
    pub(in crate::rewrite) op: &'a Conv,
    /// The map `[N, C, D1..Dn]`.
    pub(in crate::rewrite) x: Class,
    /// The kernel `[O, C/group, K1..Kn]`.
    pub(in crate::rewrite) kernel: Kernel,
    /// A constant `[O]`.
    pub(in crate::rewrite) bias: Option<Class>,
    /// The operands as they stand, holes included.
    pub(in crate::rewrite) operands: Vec<Option<Class>>,
}

impl ConvAt<'_> {
    /// How many spatial axes there are.
    pub(in crate::rewrite) fn spatial(&self) -> usize {
        self.kernel.taps.len()
    }

    /// The padding before a spatial axis.
    pub(in crate::rewrite) fn pad_begin(&self, axis: usize) -> i64 {
        self.op.pads[axis]
    }

    /// The padding behind a spatial axis.
    pub(in crate::rewrite) fn pad_end(&self, axis: usize) -> i64 {
        self.op.pads[self.spatial() + axis]
    }

    /// The kernel as it stands.
    pub(in crate::rewrite) fn weights(&self) -> Option<Class> {
        self.operands.get(1).copied().flatten()
    }

    /// Whether it sees one position at a time, each of them: one tap, no stride and no padding.
    pub(in crate::rewrite) fn is_pointwise(&self) -> bool {
        self.kernel.taps.iter().chain(&self.op.strides).all(|&n| n == 1) && self.op.pads.iter().all(|&p| p == 0)
    }

    /// Whether each channel of the result is made of one of the map's by itself.
    pub(in crate::rewrite) fn is_scale(&self) -> bool {
        self.kernel.inputs == 1 && self.kernel.outputs == self.kernel.group
    }

    /// The term of this convolution as it stands: a bias that is left out may be a hole or not there.
    pub(in crate::rewrite) fn expr(&self) -> Expr {
        Expr::op(self.op.clone(), self.operands.iter().map(|o| o.map(Expr::Class)).collect())
    }
}

/// The largest stride, pad or dilation of a [`ConvAt`].
const FAR: i64 = 1 << 31;

/// Reads an application as [`ConvAt`].
pub(in crate::rewrite) fn conv_at<'a>(view: &dyn View, app: &App<'a>) -> Option<ConvAt<'a>> {
    let Op::Conv(op) = app.op else { return None };
    if op.auto_pad != AutoPad::NotSet {
        return None;
    }
    let (x, weights) = (app.operand(0)?, app.operand(1)?);
    if !view.is_constant(weights) {
        return None;
    }
    let shape: Vec<i64> = view.fact(weights)?.shape.iter().map(Dim::as_fixed).collect::<Option<_>>()?;
    let [outputs, inputs, taps @ ..] = shape.as_slice() else { return None };
    // Windows beyond this reach no map, and their arithmetic would not fit.
    let far = |v: &[i64]| v.iter().any(|n| !(-FAR..=FAR).contains(n));
    if far(&op.strides) || far(&op.pads) || far(&op.dilations) {
        return None;
    }
    // An empty kernel or an empty map has no border to speak of.
    if shape.contains(&0) || op.strides.len() != taps.len() {
        return None;
    }
    let kernel =
        Kernel { weights: weights.into(), outputs: *outputs, inputs: *inputs, taps: taps.to_vec(), group: op.group };
    let bias = app.operand(2);
    if bias.is_some_and(|b| !view.is_constant(b)) {
        return None;
    }
    Some(ConvAt { op, x, kernel, bias, operands: app.operands.clone() })
}

/// The convolutions in a class.
pub(in crate::rewrite) fn convs_in<'v>(view: &'v dyn View, class: Class) -> Vec<ConvAt<'v>> {
    view.apps(class).iter().filter_map(|app| conv_at(view, app)).collect()
}
