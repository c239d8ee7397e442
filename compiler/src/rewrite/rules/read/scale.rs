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

#[cfg(test)]
mod tests {
    use crate::{ir::text::parse, rewrite::engine::Engine};

    use super::*;

    /// Where the other operand of a constant stands, whether that divides, and whether its factors are finite.
    fn read(body: &str) -> Option<(usize, bool, Verdict)> {
        let text = format!("graph(x: f32[N, 2]) {{\n  s: f32[2] = [2.0, 0.0]\n  %1 = {body}\n  return %1 as y\n}}\n");
        let engine = Engine::new(parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}")));
        let class = engine.term(engine.graph.outputs()[0].value).class();
        let s = scaling(&engine.terms, &engine.terms.apps(class).pop()?)?;
        Some((s.place, s.divides, finite_factors(&engine.terms, s.factor, s.divides)))
    }

    #[test]
    fn what_is_divided_by_the_map_is_no_scaling() {
        assert_eq!(read("Mul(x, s)"), Some((0, false, Verdict::Holds)));
        assert_eq!(read("Mul(s, x)"), Some((1, false, Verdict::Holds)));
        assert_eq!(read("Div(x, s)"), Some((0, true, Verdict::Fails("it divides by 0e0".into()))));
        assert_eq!((read("Div(s, x)"), read("Mul(x, x)"), read("Add(x, s)")), (None, None, None));
    }
}
