//! Slices as rules see them, and how rules write them.

use convc_runtime::{
    Dim, Fact, Op,
    ops::{Slice, slice::resolve},
};

use super::axes::listed;
use crate::rewrite::{
    rule::{Condition, Verdict},
    rules::weights::ints,
    view::{App, Class, Expr, View},
};

/// Ends at least this far out mean "to the end", as the operator reads them.
const FAR: i64 = i32::MAX as i64;

/// How one axis is cut: every `step`-th element from `start` to before `end`, as in Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rewrite) struct Cut {
    pub(in crate::rewrite) start: i64,
    pub(in crate::rewrite) end: i64,
    pub(in crate::rewrite) step: i64,
}

impl Cut {
    /// `count` elements from `first` on, `step` apart.
    pub(in crate::rewrite) fn at(first: i64, count: i64, step: i64) -> Cut {
        let end = first + count * step;
        // The place before the first element has no number.
        Cut { start: first, end: if end < 0 { -i64::MAX } else { end }, step }
    }

    /// First element and number of elements on an axis of this size.
    pub(in crate::rewrite) fn on(&self, size: i64) -> Option<(i64, i64)> {
        let (first, count) = resolve(self.start, self.end, self.step, usize::try_from(size).ok()?);
        Some((i64::try_from(first).ok()?, i64::try_from(count).ok()?))
    }

    /// For a positive step: how many elements are left out before the first and behind the end, if that is one number for
    /// all sizes and something is left between.
    pub(in crate::rewrite) fn margins(&self, size: &Dim) -> Option<(i64, i64)> {
        if self.step < 1 {
            return None;
        }
        let start = match (self.start, size.as_fixed()) {
            (s, Some(n)) if s < 0 => (s + n).max(0),
            (s, _) if s >= 0 => s,
            _ => return None,
        };
        let behind = match (self.end, size.as_fixed()) {
            (e, _) if e >= FAR => 0,
            (e, _) if e < 0 => e.checked_neg()?,
            (e, Some(n)) => (n - e).max(0),
            _ => return None,
        };
        let left = size - start.checked_add(behind)?;
        (left.at_least(1) == Some(true)).then_some((start, behind))
    }

    fn is_whole(&self, size: &Dim) -> bool {
        let to_the_end = self.end >= FAR || size.as_fixed().is_some_and(|n| self.end >= n);
        self.start == 0 && self.step == 1 && to_the_end
    }
}

pub(in crate::rewrite) const STEPS_OF_ONE: Condition =
    Condition { name: "steps-of-one", text: "what is sliced is taken forwards, in steps of 1" };

/// Whether all of these cuts go forwards in steps of 1.
pub(in crate::rewrite) fn steps_of_one<'a>(cuts: impl IntoIterator<Item = &'a Cut>) -> Verdict {
    match cuts.into_iter().find(|c| c.step != 1) {
        None => Verdict::Holds,
        Some(cut) => Verdict::Fails(format!("a slice takes steps of {}", cut.step)),
    }
}

/// A Slice with known bounds.
pub(in crate::rewrite) struct Sliced {
    /// What is cut.
    pub(in crate::rewrite) x: Class,
    /// How each axis is cut; `None` where it is taken whole.
    pub(in crate::rewrite) along: Vec<Option<Cut>>,
    operands: Vec<Option<Class>>,
}

impl Sliced {
    /// The term as it stands.
    pub(in crate::rewrite) fn expr(&self) -> Expr {
        Expr::op(Slice {}, self.operands.iter().map(|o| o.map(Expr::Class)).collect())
    }

    /// The axes that are cut.
    pub(in crate::rewrite) fn axes(&self) -> Vec<usize> {
        (0..self.along.len()).filter(|&a| self.along[a].is_some()).collect()
    }

    /// The cut, if it is of this axis alone.
    pub(in crate::rewrite) fn only(&self, axis: usize) -> Option<Cut> {
        if self.axes() == [axis] { self.along[axis] } else { None }
    }
}

/// How a Slice with known bounds cuts the axes that it names, in its order, whole ones included: of a tensor of this rank.
pub(in crate::rewrite) fn bounds(view: &dyn View, app: &App<'_>, rank: usize) -> Option<Vec<(usize, Cut)>> {
    let Op::Slice(_) = app.op else { return None };
    let list = |i: usize| -> Option<Vec<i64>> { view.fact(app.operand(i)?).and_then(Fact::i64s) };
    let (starts, ends) = (list(1)?, list(2)?);
    let axes = match app.operand(3) {
        Some(a) => listed(view, a, rank)?,
        None => (0..starts.len()).collect(),
    };
    let steps = if app.operand(4).is_some() { list(4)? } else { vec![1; starts.len()] };
    if [ends.len(), axes.len(), steps.len()].iter().any(|n| *n != starts.len()) {
        return None;
    }
    let cut = |(i, axis)| (axis, Cut { start: starts[i], end: ends[i], step: steps[i] });
    Some(axes.into_iter().enumerate().map(cut).collect())
}

/// Reads an application as [`Sliced`].
pub(in crate::rewrite) fn sliced(view: &dyn View, app: &App<'_>) -> Option<Sliced> {
    let x = app.operand(0)?;
    let shape = &view.fact(x)?.shape;
    let mut along = vec![None; shape.len()];
    for (axis, cut) in bounds(view, app, shape.len())? {
        *along.get_mut(axis)? = (!cut.is_whole(shape.get(axis)?)).then_some(cut);
    }
    Some(Sliced { x, along, operands: app.operands.clone() })
}

/// The slices in a class.
pub(in crate::rewrite) fn slices_in(view: &dyn View, class: Class) -> Vec<Sliced> {
    view.apps(class).iter().filter_map(|app| sliced(view, app)).collect()
}

/// `x` cut along these axes; `x` itself if there are none.
pub(in crate::rewrite) fn slice(x: Expr, cuts: &[(usize, Cut)]) -> Expr {
    if cuts.is_empty() {
        return x;
    }
    let list = |f: &dyn Fn(&(usize, Cut)) -> i64| Some(Expr::Constant(ints(&cuts.iter().map(f).collect::<Vec<i64>>())));
    let mut operands = vec![Some(x), list(&|c| c.1.start), list(&|c| c.1.end), list(&|c| c.0 as i64)];
    if cuts.iter().any(|c| c.1.step != 1) {
        operands.push(list(&|c| c.1.step));
    }
    Expr::op(Slice {}, operands)
}

/// Elements `first .. first + count` of one axis.
pub(in crate::rewrite) fn part(x: Expr, axis: usize, first: i64, count: i64) -> Expr {
    slice(x, &[(axis, Cut::at(first, count, 1))])
}

#[cfg(test)]
mod tests {
    use crate::{ir::text::parse, rewrite::engine::Engine};

    use super::*;

    /// What is read of a slice of `f32[N, 4, 8]` with these operands and constants.
    fn read(constants: &str, operands: &str) -> Option<Vec<Option<Cut>>> {
        let text = format!("graph(x: f32[N, 4, 8]) {{\n{constants}  %1 = Slice(x, {operands})\n  return %1 as y\n}}\n");
        let engine = Engine::new(parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}")));
        let class = engine.term(engine.graph.outputs()[0].value).class();
        Some(slices_in(&engine.terms, class).pop()?.along)
    }

    #[test]
    fn a_slice_is_read_axis_by_axis() {
        let ends = "  s: i64[2] = [1, 0]\n  e: i64[2] = [3, 9223372036854775807]\n  a: i64[2] = [-2, 2]\n  t: i64[2] = [1, 2]\n";
        let (rows, columns) = (Cut { start: 1, end: 3, step: 1 }, Cut { start: 0, end: i64::MAX, step: 2 });
        assert_eq!(read(ends, "s, e, a, t"), Some(vec![None, Some(rows), Some(columns)]));
        // Without steps the columns are taken whole, without axes the first ones are meant.
        assert_eq!(read(ends, "s, e, a"), Some(vec![None, Some(rows), None]));
        assert_eq!(read(ends, "s, e"), Some(vec![Some(rows), None, None]));
        assert_eq!((rows.on(4), columns.on(8)), (Some((1, 2)), Some((0, 4))));
        assert_eq!((rows.margins(&Dim::from(4)), columns.margins(&Dim::from(8))), (Some((1, 1)), Some((0, 0))));
    }
}
