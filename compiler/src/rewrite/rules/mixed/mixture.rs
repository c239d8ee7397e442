//! Values that are linear in per-sample coefficients: kernels and biases mixed of constant experts, in whatever operators.

use convc_runtime::{
    Dim, Op,
    ops::{Einsum, Gemm, Transpose, binary::BinaryKind, reduce::ReduceKind, variadic::VariadicKind},
};

use super::super::{
    read::{
        axes::listed,
        conv::conv_at,
        reshape::is_view,
        route::{Block, Coefficients, coefficients, column, part, slice, transposed},
        transpose::order,
    },
    weights::{floats, mul, reshape, transpose},
};
use crate::rewrite::view::{App, Class, Expr, View, is_zero};

/// A value whose elements, row-major, are `sum over e of r[n, e] * W[e, a, b]` at `(a, n, b)`.
#[derive(Debug, Clone)]
pub(super) struct Mixture {
    /// The value, spelled out down to the coefficients and the constants.
    pub(super) lhs: Expr,
    /// Coefficients and weights `[E, before * after]`.
    pub(super) blocks: Vec<Block>,
    /// Sizes before the samples.
    pub(super) before: i64,
    /// Number of samples.
    pub(super) samples: i64,
    /// Sizes behind the samples.
    pub(super) after: i64,
}

/// How far the search for a mixture looks.
const DEPTH: usize = 24;

/// The most summands of a mixture: a sum of a sum with itself, over and over, has more than can be written.
const MOST: usize = 1024;

/// Reads a class as a mixture.
pub(super) fn mixture(view: &dyn View, class: Class) -> Option<Mixture> {
    go(view, class, DEPTH)
}

/// A view of the product of coefficients `[n, E]`, for an open number n of samples, and a constant matrix: spelled out, what is
/// multiplied, and the elements of each sample.
pub(super) fn open_product(view: &dyn View, class: Class, n: &Dim) -> Option<(Expr, Block, i64)> {
    fn go(view: &dyn View, class: Class, n: &Dim, depth: usize) -> Option<(Expr, Block, i64)> {
        let depth = depth.checked_sub(1)?;
        view.apps(class).iter().find_map(|app| {
            let x = app.operand(0).filter(|x| !view.is_constant(*x))?;
            if is_view(app) {
                let (lhs, block, size) = go(view, x, n, depth)?;
                return Some((Expr::of(app).with_operand(0, lhs), block, size));
            }
            let w = app.operand(1).filter(|w| view.is_constant(*w))?;
            let trans_b = match app.op {
                Op::MatMul(_) => false,
                Op::Gemm(g) if app.operand(2).is_none() && g.alpha == 1.0 && !g.trans_a => g.trans_b,
                _ => return None,
            };
            let [p, q] = shape_of(view, w)?.try_into().ok()?;
            let (e, m) = if trans_b { (q, p) } else { (p, q) };
            let (lhs, of) = coefficients(view, x, n, e)?;
            let weights = if trans_b { transpose(w.into(), &[1, 0]) } else { w.into() };
            Some((Expr::of(app).with_operand(0, lhs), Block { of, column: None, weights }, m))
        })
    }
    go(view, class, n, DEPTH)
}

fn shape_of(view: &dyn View, class: Class) -> Option<Vec<i64>> {
    let shape: Vec<i64> = view.fact(class)?.shape.iter().map(Dim::as_fixed).collect::<Option<_>>()?;
    // Nothing is to be said of empty tensors.
    (!shape.contains(&0)).then_some(shape)
}

fn go(view: &dyn View, class: Class, depth: usize) -> Option<Mixture> {
    let depth = depth.checked_sub(1)?;
    if view.is_constant(class) {
        return None;
    }
    let shape = shape_of(view, class)?;
    view.apps(class).iter().find_map(|app| match app.op {
        Op::MatMul(_) => product(view, app, false, false, 1.0),
        Op::Gemm(g) => gemm(view, app, g),
        Op::Einsum(e) => einsum(view, app, e),
        Op::Conv(_) => pointwise(view, app),
        Op::Reduce(r) if r.kind == ReduceKind::ReduceSum => reduced(view, app, depth),
        Op::Binary(b) if b.kind == BinaryKind::Mul => scaled(view, app),
        Op::Binary(b) if b.kind == BinaryKind::Add => sum(view, app, &shape, depth),
        Op::Variadic(v) if v.kind == VariadicKind::Sum => sum(view, app, &shape, depth),
        Op::Transpose(t) => permuted(view, app, t, depth),
        Op::Slice(_) | Op::Gather(_) => some_samples(view, app, depth),
        _ if is_view(app) => {
            let inner = go(view, app.operand(0)?, depth)?;
            Some(Mixture { lhs: Expr::of(app).with_operand(0, inner.lhs.clone()), ..inner })
        }
        _ => None,
    })
}

fn single(lhs: Expr, of: Coefficients, column: Option<i64>, weights: Expr, shape: [i64; 3]) -> Mixture {
    let [before, samples, after] = shape;
    Mixture { lhs, blocks: vec![Block { of, column, weights }], before, samples, after }
}

/// `r W`, or `W' r'`: one operand constant, each transposed as `trans_a` and `trans_b` say.
fn product(view: &dyn View, app: &App<'_>, trans_a: bool, trans_b: bool, factor: f64) -> Option<Mixture> {
    let (a, b) = (app.operand(0)?, app.operand(1)?);
    let (mut sa, mut sb) = (shape_of(view, a)?, shape_of(view, b)?);
    // A vector is a row on the left and a column on the right.
    if sa.len() == 1 {
        sa.insert(0, 1);
    }
    if sb.len() == 1 {
        sb.push(1);
    }
    let matrix = |s: &[i64]| -> Option<[i64; 2]> {
        let (lead, last) = s.split_at(s.len().checked_sub(2)?);
        lead.iter().all(|&d| d == 1).then(|| [last[0], last[1]])
    };
    let dtype = view.fact(a)?.dtype;
    let times = |w: Expr| if (factor - 1.0).abs() > 0.0 { mul(w, floats(dtype, &[1], vec![factor])) } else { w };
    let rank = |c: Class| view.fact(c).map_or(0, |f| f.rank());
    match (view.is_constant(a), view.is_constant(b)) {
        (false, true) => {
            let [p, q] = matrix(&sb)?;
            let (e, m) = if trans_b { (q, p) } else { (p, q) };
            let weights = times(reshape(b.into(), &[p, q]));
            let weights = if trans_b { transpose(weights, &[1, 0]) } else { weights };
            let lead = if trans_a { vec![*sa.last()?] } else { sa[..sa.len() - 1].to_vec() };
            // One axis of samples: with two, which of them the map's batch is would be a guess.
            if lead.iter().filter(|&&d| d != 1).count() > 1 {
                return None;
            }
            let n: i64 = lead.iter().product();
            let read = if trans_a { transposed } else { coefficients };
            let (lhs, of) = read(view, a, &Dim::from(n), e)?;
            Some(single(Expr::of(app).with_operand(0, lhs), of, None, weights, [1, n, m]))
        }
        (true, false) => {
            let [p, q] = matrix(&sa)?;
            let (m, e) = if trans_a { (q, p) } else { (p, q) };
            let weights = times(reshape(a.into(), &[p, q]));
            let weights = if trans_a { weights } else { transpose(weights, &[1, 0]) };
            let (lead, last) = sb.split_at(sb.len().checked_sub(2)?);
            let columns = if trans_b { last[0] } else { last[1] };
            let batch: i64 = lead.iter().product();
            let (found, shape) = match (batch, columns) {
                (n, 1) => (coefficients(view, b, &Dim::from(n), e)?, [1, n, m]),
                (1, n) if trans_b => (coefficients(view, b, &Dim::from(n), e)?, [m, n, 1]),
                (1, n) if rank(b) > 1 => (transposed(view, b, &Dim::from(n), e)?, [m, n, 1]),
                _ => return None,
            };
            Some(single(Expr::of(app).with_operand(1, found.0), found.1, None, weights, shape))
        }
        _ => None,
    }
}

fn gemm(view: &dyn View, app: &App<'_>, g: &Gemm) -> Option<Mixture> {
    let added = app.operand(2).is_some_and(|c| g.beta != 0.0 && is_zero(view, c) != Some(true));
    if added { None } else { product(view, app, g.trans_a, g.trans_b, f64::from(g.alpha)) }
}

/// `r[n, e] W[e, ..]` by letters, in any order.
fn einsum(view: &dyn View, app: &App<'_>, e: &Einsum) -> Option<Mixture> {
    let text: String = e.equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, result) = text.split_once("->")?;
    let (a, b) = left.split_once(',')?;
    if app.operands.len() != 2 || text.contains('.') {
        return None;
    }
    let (first, second) = (app.operand(0)?, app.operand(1)?);
    let (r, w, rl, wl, place) = match (view.is_constant(first), view.is_constant(second)) {
        (false, true) => (first, second, a, b, 0),
        (true, false) => (second, first, b, a, 1),
        _ => return None,
    };
    let distinct = |s: &str| s.chars().enumerate().all(|(i, c)| s.chars().position(|d| d == c) == Some(i));
    let [experts] = *rl.chars().filter(|&c| wl.contains(c)).collect::<Vec<_>>() else { return None };
    if result.contains(experts) || !distinct(rl) || !distinct(wl) {
        return None;
    }
    let sizes = shape_of(view, w)?;
    let size = |c: char| wl.chars().position(|d| d == c).and_then(|i| sizes.get(i)).copied();
    let e = size(experts)?;
    let rest: Vec<char> = result.chars().filter(|c| wl.contains(*c)).collect();
    // A letter of the constant that the result lacks is summed over it.
    if rest.len() + 1 != wl.len() {
        return None;
    }
    let perm: Vec<i64> =
        [experts].iter().chain(&rest).map(|c| Some(wl.chars().position(|d| d == *c)? as i64)).collect::<Option<_>>()?;
    let samples: Vec<char> = rl.chars().filter(|&c| c != experts).collect();
    let (n, at) = match samples.as_slice() {
        [] => (1, 0),
        [s] => {
            let i = rl.chars().position(|c| c == *s)?;
            (*shape_of(view, r)?.get(i)?, result.chars().position(|c| c == *s)?)
        }
        _ => return None,
    };
    let before: i64 = result.chars().take(at).map(size).sum_product()?;
    let after: i64 = rest.iter().map(|&c| size(c)).sum_product()? / before;
    let read = if rl.ends_with(experts) { coefficients } else { transposed };
    let (lhs, of) = read(view, r, &Dim::from(n), e)?;
    let weights = reshape(transpose(w.into(), &perm), &[e, before * after]);
    Some(single(Expr::of(app).with_operand(place, lhs), of, None, weights, [before, n, after]))
}

trait SumProduct {
    fn sum_product(self) -> Option<i64>;
}

impl<I: Iterator<Item = Option<i64>>> SumProduct for I {
    /// The product, if all factors are there.
    fn sum_product(mut self) -> Option<i64> {
        self.try_fold(1i64, |p, s| p.checked_mul(s?))
    }
}

/// A 1x1 convolution of `[N, E, 1, 1]` with constants `[M, E, 1, 1]`.
fn pointwise(view: &dyn View, app: &App<'_>) -> Option<Mixture> {
    let c = conv_at(view, app)?;
    let x = shape_of(view, c.x)?;
    let plain = c.op.group == 1 && c.bias.is_none_or(|b| is_zero(view, b) == Some(true));
    let point = x.iter().skip(2).chain(&c.kernel.taps).all(|&s| s == 1) && c.op.pads.iter().all(|&p| p == 0);
    if !plain || !point {
        return None;
    }
    let (lhs, of) = coefficients(view, c.x, &Dim::from(x[0]), x[1])?;
    let weights = transpose(reshape(c.kernel.weights.clone(), &[c.kernel.outputs, x[1]]), &[1, 0]);
    Some(single(Expr::of(app).with_operand(0, lhs), of, None, weights, [1, x[0], c.kernel.outputs]))
}

/// Coefficients times constants, broadcast: which operand is which, and their shapes padded to one rank.
struct Factors {
    r: Class,
    w: Class,
    place: usize,
    sr: Vec<i64>,
    sw: Vec<i64>,
}

fn factors(view: &dyn View, app: &App<'_>) -> Option<Factors> {
    if !matches!(app.op, Op::Binary(b) if b.kind == BinaryKind::Mul) {
        return None;
    }
    let (a, b) = (app.operand(0)?, app.operand(1)?);
    let (r, w, place) = match (view.is_constant(a), view.is_constant(b)) {
        (false, true) => (a, b, 0),
        (true, false) => (b, a, 1),
        _ => return None,
    };
    let (mut sr, mut sw) = (shape_of(view, r)?, shape_of(view, w)?);
    let rank = sr.len().max(sw.len());
    let pad = |s: &mut Vec<i64>| drop(s.splice(0..0, std::iter::repeat_n(1, rank - s.len())));
    pad(&mut sr);
    pad(&mut sw);
    Some(Factors { r, w, place, sr, sw })
}

impl Factors {
    /// The one axis of samples, along which the constant does not vary; 0 samples axes are one sample. `None` if there are more.
    fn samples(&self, but: Option<usize>) -> Option<Option<usize>> {
        let mut axes = (0..self.sr.len()).filter(|&a| Some(a) != but && self.sr[a] != 1);
        let first = axes.next();
        (axes.next().is_none() && first.is_none_or(|a| self.sw[a] == 1)).then_some(first)
    }

    /// Sizes of the constant before and behind an axis, without `but`.
    fn around(&self, axis: Option<usize>, but: Option<usize>) -> (i64, i64) {
        let sizes = |range: std::ops::Range<usize>| range.filter(|&a| Some(a) != but).map(|a| self.sw[a]).product();
        match axis {
            Some(s) => (sizes(0..s), sizes(s + 1..self.sw.len())),
            None => (1, sizes(0..self.sw.len())),
        }
    }
}

/// The sum over experts of coefficients times constants.
fn reduced(view: &dyn View, app: &App<'_>, depth: usize) -> Option<Mixture> {
    let x = app.operand(0)?;
    let rank = view.fact(x)?.rank();
    let axes = listed(view, app.operand(1)?, rank)?;
    let sizes = shape_of(view, x)?;
    // An empty list of axes may mean all of them.
    if axes.is_empty() {
        return None;
    }
    // A sum over nothing is a view.
    if axes.iter().all(|&a| sizes[a] == 1) {
        let inner = go(view, x, depth)?;
        return Some(Mixture { lhs: Expr::of(app).with_operand(0, inner.lhs.clone()), ..inner });
    }
    view.apps(x).iter().find_map(|inner| {
        let f = factors(view, inner)?;
        let whole = |a: usize| f.sr[a].max(f.sw[a]);
        let [at] = *axes.iter().copied().filter(|&a| whole(a) != 1).collect::<Vec<_>>() else { return None };
        let e = f.sr[at];
        if f.sw[at] != e {
            return None;
        }
        let samples = f.samples(Some(at))?;
        let n = samples.map_or(1, |s| f.sr[s]);
        let (before, after) = f.around(samples, Some(at));
        let read = if samples.is_some_and(|s| s > at) { transposed } else { coefficients };
        let (lhs, of) = read(view, f.r, &Dim::from(n), e)?;
        let perm: Vec<i64> = [at].into_iter().chain((0..rank).filter(|&a| a != at)).map(|a| a as i64).collect();
        let weights = reshape(transpose(reshape(f.w.into(), &f.sw), &perm), &[e, before * after]);
        let lhs = Expr::of(app).with_operand(0, Expr::of(inner).with_operand(f.place, lhs));
        Some(single(lhs, of, None, weights, [before, n, after]))
    })
}

/// One coefficient for each sample times a constant.
fn scaled(view: &dyn View, app: &App<'_>) -> Option<Mixture> {
    let f = factors(view, app)?;
    let samples = f.samples(None)?;
    let n = samples.map_or(1, |s| f.sr[s]);
    let (before, after) = f.around(samples, None);
    let (lhs, of, column) = column(view, f.r, &Dim::from(n))?;
    let weights = reshape(f.w.into(), &[1, before * after]);
    Some(single(Expr::of(app).with_operand(f.place, lhs), of, column, weights, [before, n, after]))
}

/// A sum of mixtures of one shape.
fn sum(view: &dyn View, app: &App<'_>, shape: &[i64], depth: usize) -> Option<Mixture> {
    let mut lhs = Expr::of(app);
    let mut whole: Option<Mixture> = None;
    for (i, x) in app.operands.iter().enumerate() {
        let x = (*x)?;
        // Broadcast summands repeat their weights.
        if shape_of(view, x)? != shape {
            return None;
        }
        let part = go(view, x, depth)?;
        lhs = lhs.with_operand(i, part.lhs.clone());
        whole = Some(match whole {
            None => part,
            Some(mut w) => {
                if (w.before, w.samples, w.after) != (part.before, part.samples, part.after) {
                    return None;
                }
                w.blocks.extend(part.blocks);
                if w.blocks.len() > MOST {
                    return None;
                }
                w
            }
        });
    }
    Some(Mixture { lhs, ..whole? })
}

/// A transposed mixture, if its axis of samples stays apart.
fn permuted(view: &dyn View, app: &App<'_>, op: &Transpose, depth: usize) -> Option<Mixture> {
    let x = app.operand(0)?;
    let inner = go(view, x, depth)?;
    let shape = shape_of(view, x)?;
    let order = order(op, shape.len())?;
    let (shape, order) = with_samples(&inner, shape, order)?;
    let at = (inner.samples > 1).then(|| sample_axis(&inner, &shape)).flatten();
    let sizes: Vec<i64> = shape.iter().enumerate().map(|(a, &s)| if Some(a) == at { 1 } else { s }).collect();
    let perm: Vec<i64> = [0].into_iter().chain(order.iter().map(|&p| p as i64 + 1)).collect();
    let place = at.and_then(|a| order.iter().position(|&p| p == a)).unwrap_or(0);
    let before: i64 = order[..place].iter().map(|&p| sizes[p]).product();
    let blocks = inner.blocks.iter().map(|b| {
        let columns = if b.column.is_some() { 1 } else { b.of.experts };
        let rows: Vec<i64> = [columns].into_iter().chain(sizes.iter().copied()).collect();
        let weights = reshape(b.weights.clone(), &rows);
        let weights = reshape(transpose(weights, &perm), &[columns, inner.before * inner.after]);
        Block { weights, ..b.clone() }
    });
    let after = inner.before * inner.after / before;
    let lhs = Expr::of(app).with_operand(0, inner.lhs.clone());
    Some(Mixture { lhs, blocks: blocks.collect(), before, samples: inner.samples, after })
}

/// The axis that is that of the samples and nothing else.
fn sample_axis(m: &Mixture, shape: &[i64]) -> Option<usize> {
    let mut seen = 1;
    shape.iter().position(|&s| {
        let found = seen == m.before && s == m.samples;
        seen *= s;
        found
    })
}

/// A shape and an order of its axes such that the samples have an axis of their own, if the order leaves them first.
fn with_samples(m: &Mixture, shape: Vec<i64>, order: Vec<usize>) -> Option<(Vec<i64>, Vec<usize>)> {
    if m.samples == 1 || sample_axis(m, &shape).is_some() {
        return Some((shape, order));
    }
    let (&first, rest) = shape.split_first()?;
    if m.before != 1 || first % m.samples != 0 || order.first() != Some(&0) {
        return None;
    }
    let split = [m.samples, first / m.samples].into_iter().chain(rest.iter().copied()).collect();
    Some((split, [0, 1].into_iter().chain(order[1..].iter().map(|o| o + 1)).collect()))
}

/// Some of the samples of a mixture, or some of what is mixed.
fn some_samples(view: &dyn View, app: &App<'_>, depth: usize) -> Option<Mixture> {
    let p = part(view, app)?;
    let inner = go(view, p.of, depth)?;
    let shape = shape_of(view, p.of)?;
    let lhs = Expr::of(app).with_operand(0, inner.lhs.clone());
    let each = shape[p.axis] / inner.samples;
    let samples_here = p.axis == 0 && inner.before == 1 && inner.samples > 1;
    if samples_here {
        let fits = each * inner.samples == shape[0] && p.start % each == 0 && p.count % each == 0;
        if !fits || inner.blocks.iter().any(|b| b.of.row.is_some()) {
            return None;
        }
        let row = Some(p.start / each);
        let blocks = inner.blocks.into_iter().map(|b| Block { of: Coefficients { row, ..b.of }, ..b });
        return Some(Mixture { lhs, blocks: blocks.collect(), samples: p.count / each, ..inner });
    }
    // A part of every expert.
    if inner.samples != 1 {
        return None;
    }
    let mut kept = shape.clone();
    kept[p.axis] = p.count;
    let count: i64 = kept.iter().product();
    let blocks = inner.blocks.iter().map(|b| {
        let columns = if b.column.is_some() { 1 } else { b.of.experts };
        let rows: Vec<i64> = [columns].into_iter().chain(shape.iter().copied()).collect();
        let cut = slice(reshape(b.weights.clone(), &rows), p.axis as i64 + 1, p.start, p.start + p.count);
        Block { weights: reshape(cut, &[columns, count]), ..b.clone() }
    });
    Some(Mixture { lhs, blocks: blocks.collect(), before: 1, samples: 1, after: count })
}
