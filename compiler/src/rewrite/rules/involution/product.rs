//! Sums over axes of products of two values, in whatever operators they are written.

use convc_runtime::{
    Dim, Op,
    ops::{Reduce, binary::BinaryKind, reduce::ReduceKind, variadic::VariadicKind},
};

use crate::rewrite::{
    index_map::{
        IndexMap,
        chain::{may_move, spell},
        sizes::Sized,
        step::step,
    },
    view::{App, Class, Expr, View},
};

/// Operators between a sum and the product at most.
const DEPTH: usize = 16;
/// Summands of one sum at most.
const SUMMANDS: usize = 1024;

/// A product of two values, what is summed over and how the result is moved.
pub(super) struct Product<'v> {
    /// From the result down to the product, which is not in it.
    path: Vec<(Class, App<'v>)>,
    class: Class,
    app: App<'v>,
    /// What is multiplied.
    pub(super) factors: [Class; 2],
}

fn is_sum(op: &Op) -> bool {
    matches!(op, Op::Reduce(Reduce { kind: ReduceKind::ReduceSum, .. }))
}

impl<'v> Product<'v> {
    /// The product below `class`, whose operator is `app`.
    pub(super) fn below(view: &'v dyn View, class: Class, app: App<'v>) -> Option<Product<'v>> {
        let (mut path, mut class, mut app) = (Vec::new(), class, app);
        while path.len() < DEPTH {
            let multiplies = match app.op {
                Op::Binary(b) => b.kind == BinaryKind::Mul,
                Op::Einsum(_) | Op::MatMul(_) => app.operands.len() == 2,
                _ => false,
            };
            if multiplies {
                let factors = [app.operand(0)?, app.operand(1)?];
                if factors.iter().any(|f| view.is_constant(*f)) {
                    return None;
                }
                return Some(Product { path, class, app, factors });
            }
            if !is_sum(app.op) && (!may_move(app.op) || matches!(app.op, Op::Concat(_) | Op::Conv(_))) {
                return None;
            }
            let below = app.operand(0)?;
            path.push((class, app));
            class = below;
            app = view.apps(class).into_iter().next()?;
        }
        None
    }

    /// The index maps of both factors side by side (that of factor `first` first), over the result's axes and behind these the
    /// ones that are summed over; and the number of the result's axes.
    pub(super) fn map(&self, at: &Sized<'_>, factors: [IndexMap; 2], first: usize) -> Option<(IndexMap, usize)> {
        let shape = at.shape(self.class)?;
        let [a, b] = factors;
        let leading = if first == 0 { a.tables.len() } else { b.tables.len() };
        let split = a.tables.len();
        let (mut map, mut kept) = match self.app.op {
            Op::MatMul(_) => {
                let (ra, rb) = (a.rank(), b.rank());
                let (rows, inner) = (ra.checked_sub(1)?, a.shape().last()?.clone());
                if ra < 2 || rb < 2 {
                    return None;
                }
                let full = [shape.as_slice(), &[inner]].concat();
                let turned: Vec<usize> = (0..rb - 2).chain([rb - 1, rb - 2]).collect();
                let a = a.unsqueeze(rows)?.broadcast(&full)?;
                let b = b.transpose(&turned)?.unsqueeze(rb - 2)?.broadcast(&full)?;
                (a.join(b)?, shape.len())
            }
            Op::Einsum(e) => (einsum(&e.equation, a, b)?, shape.len()),
            _ => (a.broadcast(&shape)?.join(b.broadcast(&shape)?)?, shape.len()),
        };
        if first == 1 {
            map.tables.rotate_left(split);
        }
        debug_assert!(leading <= map.tables.len());
        for (class, app) in self.path.iter().rev() {
            let summed = map.axes.split_off(kept);
            if let Op::Reduce(r) = app.op {
                let axes = match app.operand(1) {
                    Some(c) => at.ints(c)?,
                    None => Vec::new(),
                };
                let axes: Vec<usize> = axes
                    .into_iter()
                    .map(|a| usize::try_from(if a < 0 { a + kept as i64 } else { a }).ok().filter(|a| *a < kept))
                    .collect::<Option<_>>()?;
                let all = axes.is_empty() && !r.noop_with_empty_axes;
                let mut left = Vec::new();
                let mut gone = Vec::new();
                for (i, digits) in map.axes.drain(..).enumerate() {
                    if !all && !axes.contains(&i) {
                        left.push(digits);
                        continue;
                    }
                    gone.push(digits);
                    if r.keepdims {
                        left.push(Vec::new());
                    }
                }
                map.axes = left;
                kept = map.axes.len();
                map.axes.extend(gone);
            } else {
                map = step(at, app, &at.shape(*class)?, map)?;
                kept = map.axes.len();
            }
            map.axes.extend(summed);
        }
        Some((map, kept))
    }

    /// The term, down to these sources of the factors.
    pub(super) fn spell(&self, view: &dyn View, sources: [Class; 2]) -> Expr {
        let mut e = Expr::op(
            self.app.op.clone(),
            vec![Some(spell(view, self.factors[0], sources[0])), Some(spell(view, self.factors[1], sources[1]))],
        );
        for (_, app) in self.path.iter().rev() {
            e = Expr::of(app).with_operand(0, e);
        }
        e
    }
}

/// The maps of both operands of an Einsum over the result's axes and the summed ones.
fn einsum(equation: &str, a: IndexMap, b: IndexMap) -> Option<IndexMap> {
    let plain: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, result) = plain.split_once("->")?;
    let (x, y) = left.split_once(',')?;
    let letters = |t: &str| -> Option<Vec<char>> {
        let v: Vec<char> = t.chars().collect();
        let distinct = v.iter().enumerate().all(|(i, c)| c.is_ascii_alphabetic() && !v[..i].contains(c));
        distinct.then_some(v)
    };
    let (x, y, mut all) = (letters(x)?, letters(y)?, letters(result)?);
    for c in x.iter().chain(&y) {
        if !all.contains(c) {
            all.push(*c);
        }
    }
    let (a_shape, b_shape) = (a.shape(), b.shape());
    let size = |c: &char| {
        let of = |v: &[char], shape: &[Dim]| v.iter().position(|l| l == c).and_then(|i| shape.get(i).cloned());
        let sizes = [of(&x, &a_shape), of(&y, &b_shape)];
        // The size of a letter is that of the operand where it is not 1; the maps refuse two that may differ.
        let wide = sizes.iter().flatten().find(|d| **d != Dim::fixed(1)).cloned();
        wide.or_else(|| sizes.into_iter().flatten().next())
    };
    let full: Vec<Dim> = all.iter().map(size).collect::<Option<_>>()?;
    let spread = |m: IndexMap, own: &[char]| -> Option<IndexMap> {
        let order: Vec<usize> = all.iter().filter_map(|c| own.iter().position(|l| l == c)).collect();
        let mut m = (m.rank() == own.len()).then_some(m)?.transpose(&order)?;
        for (i, c) in all.iter().enumerate() {
            if !own.contains(c) {
                m = m.unsqueeze(i)?;
            }
        }
        m.broadcast(&full)
    };
    spread(a, &x)?.join(spread(b, &y)?)
}

/// A sum of several values.
pub(super) struct Tree<'v> {
    root: (Class, App<'v>),
    /// The summands, from left to right.
    pub(super) leaves: Vec<Class>,
}

fn adds(app: &App<'_>) -> bool {
    match app.op {
        Op::Binary(b) => b.kind == BinaryKind::Add,
        Op::Variadic(v) => v.kind == VariadicKind::Sum,
        _ => false,
    }
}

fn addition<'v>(view: &'v dyn View, class: Class) -> Option<App<'v>> {
    view.apps(class).into_iter().next().filter(adds)
}

impl<'v> Tree<'v> {
    /// The largest sum at `class`.
    pub(super) fn at(view: &'v dyn View, class: Class, app: App<'v>) -> Option<Tree<'v>> {
        let mut leaves = Vec::new();
        let mut stack: Vec<Class> = app.operands.iter().rev().copied().collect::<Option<_>>()?;
        while let Some(c) = stack.pop() {
            match addition(view, c) {
                Some(inner) => stack.extend(inner.operands.iter().rev().copied().collect::<Option<Vec<_>>>()?),
                None => leaves.push(c),
            }
            if leaves.len() + stack.len() > SUMMANDS {
                return None;
            }
        }
        Some(Tree { root: (class, app), leaves })
    }

    /// The term, with these terms for its summands.
    pub(super) fn spell(&self, view: &dyn View, leaf: &dyn Fn(Class) -> Expr) -> Expr {
        fn go(view: &dyn View, app: &App<'_>, leaf: &dyn Fn(Class) -> Expr) -> Expr {
            let operand = |c: Class| match addition(view, c) {
                Some(inner) => go(view, &inner, leaf),
                None => leaf(c),
            };
            Expr::op(app.op.clone(), app.operands.iter().map(|o| o.map(operand)).collect())
        }
        go(view, &self.root.1, leaf)
    }

    /// Where it is.
    pub(super) fn class(&self) -> Class {
        self.root.0
    }
}
