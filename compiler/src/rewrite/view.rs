//! What a rule sees: classes of equal values, and the terms it builds.

use convc_runtime::{Constant, Dim, Fact, Op};

use super::{elements::Elements, positive::Positive, target::Target};
use crate::ops::{
    properties,
    properties::{Movement, Nonnegative},
};

/// A set of terms known to be equal, as the [`View`] at hand numbers it. A graph's value and a term of a trace are
/// classes with a single member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class(pub u64);

/// One application of an operator that is a member of a class. Only operators with one output are shown.
#[derive(Debug, Clone)]
pub struct App<'a> {
    /// The operator.
    pub op: &'a Op,
    /// Its operands, holes included.
    pub operands: Vec<Option<Class>>,
}

impl App<'_> {
    /// The operand at `i`, if it is given.
    #[must_use]
    pub fn operand(&self, i: usize) -> Option<Class> {
        self.operands.get(i).copied().flatten()
    }

    /// Whether it shows the elements of operand 0 in their order, in another shape.
    #[must_use]
    pub fn is_view(&self) -> bool {
        properties(self.op).movement == Movement::View
    }
}

/// Values and what is known of them: a graph, an e-graph, or the terms of a trace.
pub trait View {
    /// The applications in a class, in a fixed order.
    fn apps(&self, class: Class) -> Vec<App<'_>>;
    /// Type and shape.
    fn fact(&self, class: Class) -> Option<&Fact>;
    /// The constant, if the class holds one as such.
    fn constant(&self, class: Class) -> Option<&Constant>;
    /// The largest absolute value among the elements of the floating-point constant that the class holds as such, infinite if
    /// one of them is no finite number.
    fn largest(&self, class: Class) -> Option<f64>;
    /// What is known of its elements.
    fn elements(&self, class: Class) -> Elements;
    /// What the result is written for, if that limits what rules may bring in.
    fn target(&self) -> Option<&Target>;
    /// The sizes that are at least 1 wherever the model runs.
    fn positive(&self) -> &Positive;
    /// Whether the class is computed from constants alone.
    fn is_constant(&self, class: Class) -> bool;
}

/// A term over classes: the sides of a rewrite.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// Whatever is in the class.
    Class(Class),
    /// An operator on terms.
    Op(Box<Op>, Vec<Option<Expr>>),
    /// A constant of the rule's own, such as a shape.
    Constant(Constant),
}

impl Expr {
    /// `op` on `operands`.
    pub fn op(op: impl Into<Op>, operands: Vec<Option<Expr>>) -> Expr {
        Expr::Op(Box::new(op.into()), operands)
    }

    /// The term of an application that was matched, its operands as classes.
    #[must_use]
    pub fn of(app: &App<'_>) -> Expr {
        Expr::Op(Box::new(app.op.clone()), app.operands.iter().map(|o| o.map(Expr::Class)).collect())
    }

    /// The same with the operand at `i` replaced by a term: for matches that look through it.
    #[must_use]
    pub fn with_operand(mut self, i: usize, operand: Expr) -> Expr {
        if let Expr::Op(_, operands) = &mut self
            && let Some(o) = operands.get_mut(i)
        {
            *o = Some(operand);
        }
        self
    }

    /// The classes the term refers to, in order of first occurrence.
    #[must_use]
    pub fn classes(&self) -> Vec<Class> {
        fn walk(e: &Expr, out: &mut Vec<Class>) {
            match e {
                Expr::Class(c) if !out.contains(c) => out.push(*c),
                Expr::Op(_, operands) => operands.iter().flatten().for_each(|o| walk(o, out)),
                Expr::Class(_) | Expr::Constant(_) => {}
            }
        }
        let mut out = Vec::new();
        walk(self, &mut out);
        out
    }
}

impl From<Class> for Expr {
    fn from(class: Class) -> Expr {
        Expr::Class(class)
    }
}

/// Whether all elements of a class are 0: `None` where that is not known. Looks through operators that hand zeros on.
#[must_use]
pub fn is_zero(view: &dyn View, class: Class) -> Option<bool> {
    fn go(view: &dyn View, class: Class, depth: usize) -> Option<bool> {
        if let Some(c) = view.constant(class) {
            // -0.0 has its sign bit set; both zeros add nothing.
            let t = c.to_tensor().ok()?;
            return match t.to_f64s() {
                Some(v) => Some(v.iter().all(|&x| x == 0.0)),
                None => Some(t.to_i64s()?.iter().all(|&x| x == 0)),
            };
        }
        if depth == 0 || !view.is_constant(class) {
            return None;
        }
        let zero = |app: &App<'_>, i: usize| app.operand(i).map(|c| go(view, c, depth - 1) == Some(true));
        let holds = |app: &App<'_>| properties(app.op).zeros.any_set(app.operands.len(), |i| zero(app, i));
        view.apps(class).iter().any(holds).then_some(true)
    }
    go(view, class, 6)
}

/// Whether no element of a class of floating-point numbers is negative: `None` where that is not known.
#[must_use]
pub fn is_nonnegative(view: &dyn View, class: Class) -> Option<bool> {
    fn go(view: &dyn View, class: Class, depth: usize) -> Option<bool> {
        if let Some(c) = view.constant(class) {
            return Some(c.to_tensor().ok()?.to_f64s()?.iter().all(|&v| v >= 0.0));
        }
        // Integers wrap around.
        if depth == 0 || !view.fact(class)?.dtype.is_float() {
            return None;
        }
        let none_negative = |app: &App<'_>, i: usize| app.operand(i).map(|c| go(view, c, depth - 1) == Some(true));
        let holds = |app: &App<'_>| match properties(app.op).nonnegative {
            Nonnegative::Always => true,
            Nonnegative::Where(operands) => operands.any_set(app.operands.len(), |i| none_negative(app, i)),
        };
        view.apps(class).iter().any(holds).then_some(true)
    }
    go(view, class, 6)
}

/// The fixed size of axis `axis`.
#[must_use]
pub fn fixed_dim(view: &dyn View, class: Class, axis: usize) -> Option<i64> {
    view.fact(class)?.shape.get(axis)?.as_fixed()
}

/// Whether two shapes are equal for all values of the symbols.
#[must_use]
pub fn same_shape(a: &[Dim], b: &[Dim]) -> Option<bool> {
    if a.len() != b.len() {
        return Some(false);
    }
    let verdicts: Vec<Option<bool>> = a.iter().zip(b).map(|(x, y)| x.equals(y)).collect();
    if verdicts.contains(&Some(false)) {
        Some(false)
    } else if verdicts.iter().all(|v| *v == Some(true)) {
        Some(true)
    } else {
        None
    }
}
