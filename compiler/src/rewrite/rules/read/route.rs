//! The coefficients of a mixture: matrices `[N, E]`, one row for each sample, and how exporters cut them.

use convc_runtime::{
    Dim, Op,
    ops::{Concat, Slice, Transpose, softmax::SoftmaxKind},
};

use super::{
    axes::axis,
    reshape::is_view,
    slice::{Cut, bounds},
    transpose::order,
};
use crate::rewrite::{
    rules::weights::{ints, reshape, transpose},
    view::{App, Class, Expr, View, same_shape},
};

/// How far the search for a matrix of coefficients looks through views and slices.
const DEPTH: usize = 8;

/// Coefficients of several samples or of one: rows of a matrix.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::rewrite) struct Coefficients {
    /// The whole matrix, `[samples, experts]`.
    pub(in crate::rewrite) matrix: Expr,
    /// What it is a view of.
    pub(in crate::rewrite) class: Class,
    /// Rows of the matrix.
    pub(in crate::rewrite) samples: Dim,
    /// The first row that is meant, if not all are.
    pub(in crate::rewrite) row: Option<i64>,
    /// Columns of the matrix.
    pub(in crate::rewrite) experts: i64,
}

/// Some of the columns, and the constants they are multiplied by, as rows of a matrix.
#[derive(Debug, Clone)]
pub(in crate::rewrite) struct Block {
    pub(in crate::rewrite) of: Coefficients,
    /// The column, if not all are meant.
    pub(in crate::rewrite) column: Option<i64>,
    /// `[columns, M]`.
    pub(in crate::rewrite) weights: Expr,
}

/// A piece of a tensor along one axis.
pub(in crate::rewrite) struct Part {
    pub(in crate::rewrite) of: Class,
    pub(in crate::rewrite) axis: usize,
    pub(in crate::rewrite) start: i64,
    pub(in crate::rewrite) count: i64,
}

/// The piece that Slice, or Gather with one index, takes.
pub(in crate::rewrite) fn part(view: &dyn View, app: &App<'_>) -> Option<Part> {
    let of = app.operand(0)?;
    let shape = &view.fact(of)?.shape;
    let (axis, start, end) = match app.op {
        Op::Slice(_) => match bounds(view, app, shape.len())?[..] {
            [(axis, Cut { start, end, step: 1 })] => (axis, start, end),
            _ => return None,
        },
        Op::Gather(g) => {
            let [index]: [i64; 1] = view.fact(app.operand(1)?)?.i64s()?.try_into().ok()?;
            (axis(g.axis, shape.len())?, index, if index == -1 { i64::from(i32::MAX) } else { index.saturating_add(1) })
        }
        _ => return None,
    };
    let size = shape.get(axis)?.as_fixed();
    let at = |i: i64| match size {
        Some(n) => Some(if i < 0 { i + n } else { i }.clamp(0, n)),
        None => Some(i).filter(|&i| i >= 0 && i < i64::from(i32::MAX)),
    };
    let (start, end) = (at(start)?, at(end)?);
    (end > start).then_some(Part { of, axis, start, count: end - start })
}

/// The sizes that are not 1 for certain.
pub(in crate::rewrite) fn large(shape: &[Dim]) -> Vec<Dim> {
    shape.iter().filter(|d| d.as_fixed() != Some(1)).cloned().collect()
}

fn is_matrix(shape: &[Dim], n: &Dim, e: i64) -> bool {
    large(shape) == large(&[n.clone(), Dim::from(e)])
}

/// `class`, whose elements are those of a matrix, as `[n, e]`.
fn as_matrix(view: &dyn View, class: Class, n: &Dim, e: i64) -> Option<Expr> {
    let shape = &view.fact(class)?.shape;
    if shape.as_slice() == [n.clone(), Dim::from(e)] {
        return Some(class.into());
    }
    let rows = match n.as_fixed() {
        Some(n) => n,
        None if shape.first() == Some(n) => 0,
        // Empty matrices leave it undecided.
        None if n.at_least(1) == Some(true) => -1,
        None => return None,
    };
    Some(reshape(class.into(), &[rows, e]))
}

/// Reads a value whose elements are `[n, e]`, row-major, as coefficients: the value spelled out, and what it is.
pub(in crate::rewrite) fn coefficients(view: &dyn View, class: Class, n: &Dim, e: i64) -> Option<(Expr, Coefficients)> {
    is_matrix(&view.fact(class)?.shape, n, e).then(|| rows(view, class, n, e, DEPTH)).flatten()
}

fn rows(view: &dyn View, class: Class, n: &Dim, e: i64, depth: usize) -> Option<(Expr, Coefficients)> {
    for app in view.apps(class).iter().filter(|_| depth > 0) {
        let Some(x) = app.operand(0).filter(|x| !view.is_constant(*x)) else { continue };
        let Some(shape) = view.fact(x).map(|f| f.shape.clone()) else { continue };
        if is_view(app) && is_matrix(&shape, n, e) {
            let (lhs, found) = rows(view, x, n, e, depth - 1)?;
            return Some((Expr::of(app).with_operand(0, lhs), found));
        }
        if let Some(p) = part(view, app)
            && p.axis == 0
            && Some(p.count) == n.as_fixed()
            && is_matrix(&shape, &shape[0], e)
            && let Some((lhs, found)) = rows(view, x, &shape[0], e, depth - 1)
            && found.row.is_none()
        {
            return Some((Expr::of(app).with_operand(0, lhs), Coefficients { row: Some(p.start), ..found }));
        }
    }
    let matrix = as_matrix(view, class, n, e)?;
    Some((class.into(), Coefficients { matrix, class, samples: n.clone(), row: None, experts: e }))
}

/// As [`coefficients`], of a value `[e, n]`.
pub(in crate::rewrite) fn transposed(view: &dyn View, class: Class, n: &Dim, e: i64) -> Option<(Expr, Coefficients)> {
    if n.as_fixed() == Some(1) || e == 1 {
        return coefficients(view, class, n, e);
    }
    let shape = &view.fact(class)?.shape;
    if large(shape) != [Dim::from(e), n.clone()] {
        return None;
    }
    for app in view.apps(class) {
        // Samples and experts may be as many: the order says whether they change places.
        if let (Op::Transpose(t), Some(x)) = (app.op, app.operand(0))
            && swaps(&view.fact(x)?.shape, t) == Some(true)
            && let Some((lhs, found)) = coefficients(view, x, n, e)
        {
            return Some((Expr::of(&app).with_operand(0, lhs), found));
        }
    }
    if shape.len() != 2 {
        return None;
    }
    let matrix = transpose(class.into(), &[1, 0]);
    Some((class.into(), Coefficients { matrix, class, samples: n.clone(), row: None, experts: e }))
}

/// Whether a transposition makes the two axes of a shape that are not of size 1 change places; `None` if there are more.
fn swaps(shape: &[Dim], op: &Transpose) -> Option<bool> {
    let moved: Vec<usize> = order(op, shape.len())?.into_iter().filter(|&p| shape[p].as_fixed() != Some(1)).collect();
    (moved.len() <= 2).then(|| !moved.is_sorted())
}

/// Reads a value with one element for each of `n` samples: spelled out, the matrix it is a column of, and which. A value that is
/// no column of anything is the only one of its own matrix.
pub(in crate::rewrite) fn column(view: &dyn View, class: Class, n: &Dim) -> Option<(Expr, Coefficients, Option<i64>)> {
    is_matrix(&view.fact(class)?.shape, n, 1).then(|| column_of(view, class, n, DEPTH)).flatten()
}

fn column_of(view: &dyn View, class: Class, n: &Dim, depth: usize) -> Option<(Expr, Coefficients, Option<i64>)> {
    for app in view.apps(class).iter().filter(|_| depth > 0) {
        let Some(x) = app.operand(0).filter(|x| !view.is_constant(*x)) else { continue };
        let Some(shape) = view.fact(x).map(|f| f.shape.clone()) else { continue };
        if is_view(app) && is_matrix(&shape, n, 1) {
            let (lhs, found, column) = column_of(view, x, n, depth - 1)?;
            return Some((Expr::of(app).with_operand(0, lhs), found, column));
        }
        let Some(p) = part(view, app).filter(|p| p.count == 1) else { continue };
        if let Some(e) = shape[p.axis].as_fixed()
            && let others = large(&shape[..p.axis])
            && let Some((lhs, found)) = (if others.is_empty() && n.as_fixed() != Some(1) {
                transposed(view, x, n, e)
            } else {
                coefficients(view, x, n, e)
            })
        {
            return Some((Expr::of(app).with_operand(0, lhs), found, Some(p.start)));
        }
        // One sample of a column.
        if p.axis == 0
            && n.as_fixed() == Some(1)
            && is_matrix(&shape, &shape[0], 1)
            && let Some((lhs, found, column @ Some(_))) = column_of(view, x, &shape[0], depth - 1)
            && found.row.is_none()
        {
            let found = Coefficients { row: Some(p.start), ..found };
            return Some((Expr::of(app).with_operand(0, lhs), found, column));
        }
    }
    let matrix = as_matrix(view, class, n, 1)?;
    Some((class.into(), Coefficients { matrix, class, samples: n.clone(), row: None, experts: 1 }, None))
}

/// `x[start..end]` along `axis`.
pub(in crate::rewrite) fn slice(x: Expr, axis: i64, start: i64, end: i64) -> Expr {
    let bounds = [start, end, axis].map(|i| Some(Expr::Constant(ints(&[i]))));
    let step = Some(Expr::Constant(ints(&[1])));
    Expr::op(Slice {}, [Some(x)].into_iter().chain(bounds).chain([step]).collect())
}

/// The terms one behind the other along `axis`.
pub(in crate::rewrite) fn concat(mut of: Vec<Expr>, axis: i64) -> Expr {
    match of.len() {
        1 => of.remove(0),
        _ => Expr::op(Concat { axis }, of.into_iter().map(Some).collect()),
    }
}

impl Coefficients {
    /// The rows that are meant of `n` samples, `[n, experts]`.
    pub(in crate::rewrite) fn value(&self, n: &Dim) -> Expr {
        match (self.row, n.as_fixed()) {
            (Some(row), Some(n)) => slice(self.matrix.clone(), 0, row, row + n),
            _ => self.matrix.clone(),
        }
    }
}

/// All blocks as one matrix of coefficients `[n, E]` and one of weights `[E, M]`.
pub(in crate::rewrite) fn assemble(blocks: &[Block], n: &Dim) -> Option<(Expr, Expr)> {
    let first = blocks.first()?;
    if let ([only], None) = (blocks, first.column) {
        return Some((only.of.value(n), only.weights.clone()));
    }
    let mut columns: Vec<(i64, &Block)> = blocks.iter().filter_map(|b| Some((b.column?, b))).collect();
    columns.sort_by_key(|c| c.0);
    let whole = columns.len() == blocks.len()
        && columns.iter().map(|c| c.0).eq(0..first.of.experts)
        && blocks.iter().all(|b| b.of == first.of);
    if whole {
        let weights: Vec<Expr> = columns.into_iter().map(|c| c.1.weights.clone()).collect();
        return Some((first.of.value(n), concat(weights, 0)));
    }
    let columns = blocks.iter().map(|b| match b.column {
        Some(c) => slice(b.of.value(n), 1, c, c + 1),
        None => b.of.value(n),
    });
    Some((concat(columns.collect(), 1), concat(blocks.iter().map(|b| b.weights.clone()).collect(), 0)))
}

/// Which elements of a value sum to 1.
#[derive(Clone, Copy, PartialEq)]
enum Ones {
    /// Every row of `[M, e]`: e elements one behind the other, from multiples of e on.
    Rows,
    /// Every column of `[e, M]`: e elements that lie M apart.
    Columns,
}

/// Whether each row of coefficients comes out of a softmax over the experts: it sums to 1.
pub(in crate::rewrite) fn sums_to_one(view: &dyn View, of: &Coefficients) -> bool {
    // A matrix that is its class transposed has the experts as the class' first axis.
    let transposed = of.matrix != Expr::Class(of.class)
        && matches!(&of.matrix, Expr::Op(op, _) if matches!(op.as_ref(), Op::Transpose(_)));
    let ones = if transposed { Ones::Columns } else { Ones::Rows };
    softmax_over(view, of.class, of.experts, ones, DEPTH)
}

/// Whether a softmax makes groups of `e` elements of a value sum to 1. A view moves no element and keeps both kinds of groups; a
/// slice or a concatenation keeps rows that it does not cut through.
fn softmax_over(view: &dyn View, class: Class, e: i64, ones: Ones, depth: usize) -> bool {
    let along = |axis: i64, flatten: bool, shape: &[Dim]| {
        let axis = if axis < 0 { axis + shape.len() as i64 } else { axis };
        let Ok(axis) = usize::try_from(axis) else { return false };
        let one = |d: &Dim| d.as_fixed() == Some(1);
        let (Some(before), Some(after)) = (shape.get(..axis), shape.get(axis + 1..)) else { return false };
        let alone = match ones {
            Ones::Rows => after.iter().all(one),
            Ones::Columns => before.iter().all(one),
        };
        shape[axis].as_fixed() == Some(e) && alone && (!flatten || after.iter().all(one))
    };
    view.apps(class).iter().any(|app| {
        let Some(x) = app.operand(0).filter(|_| depth > 0) else { return false };
        let Some(shape) = view.fact(x).map(|f| f.shape.as_slice()) else { return false };
        match app.op {
            Op::Softmax(s) => s.kind == SoftmaxKind::Softmax && along(s.axis, s.flatten, shape),
            Op::Transpose(t) => match swaps(shape, t) {
                Some(false) => softmax_over(view, x, e, ones, depth - 1),
                Some(true) => {
                    let sizes = large(shape);
                    // Rows of the result are columns of the operand, if they are as long.
                    let (size, ones) = match ones {
                        Ones::Rows => (sizes.first(), Ones::Columns),
                        Ones::Columns => (sizes.last(), Ones::Rows),
                    };
                    size == Some(&Dim::from(e)) && softmax_over(view, x, e, ones, depth - 1)
                }
                None => false,
            },
            // Other samples of the same matrix, each of which sums to 1.
            Op::Slice(_) | Op::Gather(_) => {
                let whole_rows = |p: Part| {
                    let each = Dim::product(&shape[1..]);
                    let apart = |n: i64| (&each * n).divisible_by(e) == Some(true);
                    p.axis == 0 && apart(p.start) && apart(p.count)
                };
                ones == Ones::Rows
                    && part(view, app).is_some_and(whole_rows)
                    && softmax_over(view, x, e, ones, depth - 1)
            }
            Op::Concat(c) => {
                ones == Ones::Rows
                    && axis(c.axis, shape.len()) == Some(0)
                    && app.operands.iter().flatten().all(|x| softmax_over(view, *x, e, ones, depth - 1))
            }
            _ => is_view(app) && softmax_over(view, x, e, ones, depth - 1),
        }
    })
}

/// The samples of a map: `class` is sample `row` of `of`.
pub(in crate::rewrite) fn sample_of(view: &dyn View, class: Class) -> Option<(Expr, Class, i64)> {
    let whole = &view.fact(class)?.shape;
    fn go(view: &dyn View, class: Class, whole: &[Dim], depth: usize) -> Option<(Expr, Class, i64)> {
        let shape = &view.fact(class)?.shape;
        for app in view.apps(class).iter().filter(|_| depth > 0) {
            let Some(x) = app.operand(0) else { continue };
            let Some(of) = view.fact(x).map(|f| f.shape.as_slice()) else { continue };
            // The axes of one sample are those of the map, not only as many elements.
            let same = || of.len() == whole.len() && same_shape(&of[1..], &whole[1..]) == Some(true);
            if let Some(p) = part(view, app).filter(|p| p.axis == 0 && p.count == 1)
                && of.len() > 2
                && same()
            {
                return Some((Expr::of(app), p.of, p.start));
            }
            if is_view(app)
                && large(of) == large(shape)
                && let Some((lhs, of, row)) = go(view, x, whole, depth - 1)
            {
                return Some((Expr::of(app).with_operand(0, lhs), of, row));
            }
        }
        None
    }
    go(view, class, whole, DEPTH)
}
