//! Factors: what a product or quotient with a constant multiplies its other operand by.

use convc_runtime::{DType, Op, Tensor, ops::binary::BinaryKind};

use crate::rewrite::{
    verdict::Verdict,
    view::{App, Class, View},
};

/// `y * s`, `s * y` or `y / s` with a constant `s`, whatever its shape.
pub(in crate::rewrite) struct Scaling {
    /// Which operand `y` is.
    pub(in crate::rewrite) place: usize,
    pub(in crate::rewrite) y: Class,
    /// The constant `s`.
    pub(in crate::rewrite) factor: Class,
    /// Whether it divides.
    pub(in crate::rewrite) divides: bool,
}

/// Reads an application as [`Scaling`].
pub(in crate::rewrite) fn scaling(view: &dyn View, app: &App<'_>) -> Option<Scaling> {
    let Op::Binary(b) = app.op else { return None };
    let (first, second) = (app.operand(0)?, app.operand(1)?);
    let of = |place, y, factor, divides| Some(Scaling { place, y, factor, divides });
    match (b.kind, view.is_constant(first), view.is_constant(second)) {
        (BinaryKind::Mul, false, true) => of(0, first, second, false),
        (BinaryKind::Mul, true, false) => of(1, second, first, false),
        (BinaryKind::Div, false, true) => of(0, first, second, true),
        _ => None,
    }
}

/// Whether a value is a finite number in this type.
pub(in crate::rewrite) fn is_finite_in(dtype: DType, v: f64) -> bool {
    Tensor::scalar(v).rounded_to(dtype).to_f64s().is_some_and(|v| v.iter().all(|x| x.is_finite()))
}

/// Whether every number that a constant multiplies by, or 1 over it where it divides, is finite in the constant's type.
pub(in crate::rewrite) fn finite_factors(view: &dyn View, factor: Class, divides: bool) -> Verdict {
    let values = view.constant(factor).and_then(|c| Some((c.dtype(), c.to_tensor().ok()?.to_f64s()?)));
    let Some((dtype, values)) = values else { return Verdict::Unknown("the constant is not folded".into()) };
    let scale = |v: f64| if divides { 1.0 / v } else { v };
    match values.iter().find(|&&v| !is_finite_in(dtype, scale(v))) {
        Some(v) => Verdict::Fails(format!("it {} by {v:e}", if divides { "divides" } else { "multiplies" })),
        None => Verdict::Holds,
    }
}
