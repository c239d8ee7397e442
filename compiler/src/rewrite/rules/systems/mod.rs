//! The convolution systems of domain `ai.convc`: their operators found in what models spell out, and what becomes of them.

pub mod attention;
pub mod do_conv;
pub mod ghost;
pub mod sc_conv;

use convc_runtime::{
    Fact, Op,
    ops::{
        InferCx,
        binary::BinaryKind,
        ghost_module::Activation,
        unary::{Unary, UnaryKind},
    },
};

use super::read::conv::{ConvAt, conv_at, convs_in};
use crate::rewrite::view::{App, Class, Expr, View};

/// A binary operator with its operands in one of the two orders.
struct Pair<'a> {
    app: App<'a>,
    /// Where [`Pair::one`] stands.
    at: usize,
    one: Class,
    other: Class,
}

impl Pair<'_> {
    /// The term with the operands as terms.
    fn expr(&self, one: Expr, other: Expr) -> Expr {
        Expr::of(&self.app).with_operand(self.at, one).with_operand(1 - self.at, other)
    }
}

/// The applications of a commutative operator in a class, each in both orders.
fn pairs<'v>(view: &'v dyn View, class: Class, kind: BinaryKind) -> Vec<Pair<'v>> {
    let mut out = Vec::new();
    for app in view.apps(class) {
        if !matches!(app.op, Op::Binary(b) if b.kind == kind) {
            continue;
        }
        if let (Some(a), Some(b)) = (app.operand(0), app.operand(1)) {
            out.push(Pair { app: app.clone(), at: 0, one: a, other: b });
            out.push(Pair { app, at: 1, one: b, other: a });
        }
    }
    out
}

/// The applications of a function of one argument in a class.
fn unaries<'v>(view: &'v dyn View, class: Class, kind: UnaryKind) -> Vec<App<'v>> {
    view.apps(class).into_iter().filter(|a| matches!(a.op, Op::Unary(u) if u.kind == kind)).collect()
}

/// A convolution and what acts on each element behind it.
struct Activated<'a> {
    conv: ConvAt<'a>,
    /// `None` if nothing follows.
    function: Option<App<'a>>,
}

impl Activated<'_> {
    /// The activation; an error with the operator's name if the systems have no such.
    fn activation(&self) -> Result<Activation, &'static str> {
        match &self.function {
            None => Ok(Activation::Identity),
            Some(f) if matches!(f.op, Op::Unary(u) if *u == Unary::new(UnaryKind::Relu)) => Ok(Activation::Relu),
            Some(f) => Err(f.op.name()),
        }
    }

    fn expr(&self) -> Expr {
        match &self.function {
            None => self.conv.expr(),
            Some(f) => Expr::of(f).with_operand(0, self.conv.expr()),
        }
    }
}

/// The convolutions in a class, as they are and behind a function of each element.
fn activated<'v>(view: &'v dyn View, class: Class) -> Vec<Activated<'v>> {
    let mut out = Vec::new();
    for app in view.apps(class) {
        if let Some(conv) = conv_at(view, &app) {
            out.push(Activated { conv, function: None });
        } else if let (Op::Unary(_) | Op::Clip(_), Some(y)) = (app.op, app.operand(0)) {
            let inner = convs_in(view, y).into_iter();
            out.extend(inner.map(|conv| Activated { conv, function: Some(app.clone()) }));
        }
    }
    out
}

/// The term of a class, spelt out down to constants and `leaves`. `None` if that takes more than `most` operators.
fn spelt(view: &dyn View, class: Class, leaves: &[Class], most: usize) -> Option<Expr> {
    fn go(view: &dyn View, class: Class, leaves: &[Class], budget: &mut usize) -> Option<Expr> {
        if leaves.contains(&class) || view.is_constant(class) {
            return Some(class.into());
        }
        *budget = budget.checked_sub(1)?;
        let Some(app) = view.apps(class).into_iter().next() else { return Some(class.into()) };
        let operands = app.operands.iter().map(|o| match o {
            None => Some(None),
            Some(o) => go(view, *o, leaves, budget).map(Some),
        });
        Some(Expr::op(app.op.clone(), operands.collect::<Option<_>>()?))
    }
    go(view, class, leaves, &mut { most })
}

/// What is known of a term.
fn fact_of(view: &dyn View, e: &Expr) -> Option<Fact> {
    match e {
        Expr::Class(c) => view.fact(*c).cloned(),
        Expr::Constant(c) => Some(match c.to_tensor() {
            Ok(t) => Fact::of(&t),
            Err(_) => Fact::fixed(c.dtype(), c.shape()),
        }),
        Expr::Op(op, operands) => {
            let facts: Option<Vec<Option<Fact>>> =
                operands.iter().map(|o| o.as_ref().map_or(Some(None), |o| fact_of(view, o).map(Some))).collect();
            let facts = facts?;
            let facts: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
            let mut unknown = false;
            let mut fresh = || {
                unknown = true;
                convc_runtime::Dim::symbol("?")
            };
            let fact = op.infer(&facts, &mut InferCx::new(&mut fresh)).ok()?.into_iter().next()?;
            (!unknown).then_some(fact)
        }
    }
}
