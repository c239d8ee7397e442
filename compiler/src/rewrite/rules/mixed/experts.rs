//! The results of all experts, weighted by sample and added up.

use std::collections::BTreeMap;

use convc_runtime::{
    Dim, Op,
    ops::{Conv, binary::BinaryKind, variadic::VariadicKind},
    window::AutoPad,
};

use super::{
    super::{
        read::{
            conv::{ConvAt, conv_at},
            route::{Block, Coefficients, assemble, column, part, slice},
        },
        weights::{add, floats, reshape, transpose},
    },
    groups::{Mixed, kind_of},
};
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View},
};

/// The most summands that are looked at together.
const MOST: usize = 64;

/// The convolution of one expert.
pub(super) struct Expert {
    /// Spelled out.
    pub(super) lhs: Expr,
    pub(super) x: Class,
    pub(super) window: Conv,
    /// `[O, C/group, K..]`.
    pub(super) weights: Expr,
    pub(super) shape: Vec<i64>,
    /// `[O]`.
    pub(super) bias: Option<Expr>,
    /// Whether it is a product with a matrix, of which each row is a map of one position.
    pub(super) is_product: bool,
}

fn whole(c: &ConvAt<'_>) -> Expert {
    let shape = [c.kernel.outputs, c.kernel.inputs].into_iter().chain(c.kernel.taps.iter().copied()).collect();
    let weights = c.kernel.weights.clone();
    Expert {
        lhs: c.expr(),
        x: c.x,
        window: c.op.clone(),
        weights,
        shape,
        bias: c.bias.map(Expr::Class),
        is_product: false,
    }
}

/// A convolution, or some output channels of one that computes those of several experts.
pub(super) fn expert(view: &dyn View, class: Class) -> Option<Expert> {
    view.apps(class).iter().find_map(|app| {
        if let Some(c) = conv_at(view, app) {
            return Some(whole(&c));
        }
        if let Some(e) = matrix_product(view, app) {
            return Some(e);
        }
        let p = part(view, app).filter(|p| p.axis == 1 && matches!(app.op, Op::Slice(_)))?;
        let wide = view.apps(p.of).iter().find_map(|a| conv_at(view, a)).filter(|c| c.op.group == 1)?;
        let all = whole(&wide);
        let end = p.start + p.count;
        let shape = [p.count].into_iter().chain(all.shape[1..].iter().copied()).collect();
        Some(Expert {
            lhs: Expr::of(app).with_operand(0, all.lhs),
            weights: slice(all.weights, 0, p.start, end),
            bias: all.bias.map(|b| slice(b, 0, p.start, end)),
            shape,
            ..all
        })
    })
}

/// `x W + c` of rows x as a 1x1 convolution.
fn matrix_product(view: &dyn View, app: &App<'_>) -> Option<Expert> {
    let (x, w) = (app.operand(0)?, app.operand(1)?);
    let trans_b = match app.op {
        Op::MatMul(_) => false,
        Op::Gemm(g) if g.alpha == 1.0 && g.beta == 1.0 && !g.trans_a => g.trans_b,
        _ => return None,
    };
    let (fx, fw) = (view.fact(x)?, view.fact(w)?);
    if fx.rank() != 2 || fw.rank() != 2 || !view.is_constant(w) || view.is_constant(x) {
        return None;
    }
    let sizes = [fw.shape[0].as_fixed()?, fw.shape[1].as_fixed()?];
    let [inputs, outputs] = if trans_b { [sizes[1], sizes[0]] } else { sizes };
    let weights = if trans_b { w.into() } else { transpose(w.into(), &[1, 0]) };
    let bias = match app.operand(2) {
        Some(c) if !view.is_constant(c) || !per_column(view, c, outputs) => return None,
        c => c.map(|c| reshape(c.into(), &[outputs])),
    };
    let shape = vec![outputs, inputs, 1, 1];
    let weights = reshape(weights, &shape);
    Some(Expert { lhs: Expr::of(app), x, window: pointwise(), weights, shape, bias, is_product: true })
}

/// Whether what a Gemm adds is one number for each of its columns, and not for each row.
pub(super) fn per_column(view: &dyn View, c: Class, columns: i64) -> bool {
    let Some(shape) = view.fact(c).map(|f| f.shape.as_slice()) else { return false };
    let last = shape.last().map_or(columns == 1, |d| d.as_fixed() == Some(columns));
    last && Dim::product(shape).as_fixed() == Some(columns)
}

/// The window of a 1x1 convolution.
pub(super) fn pointwise() -> Conv {
    let ones = || vec![1; 2];
    Conv { strides: ones(), pads: vec![0; 4], dilations: ones(), group: 1, auto_pad: AutoPad::NotSet }
}

/// One summand: a convolution times a number for each sample.
struct Weighted {
    expert: Expert,
    of: Coefficients,
    column: Option<i64>,
}

const SAME_WINDOW: Condition = Condition {
    name: "same-window",
    text: "the convolutions read one map with one window, and their kernels have one shape",
};

/// A product of a convolution and something else: which operand is the convolution, the convolution, and the other.
fn product(view: &dyn View, app: &App<'_>) -> Option<(usize, Expert, Class)> {
    if !matches!(app.op, Op::Binary(b) if b.kind == BinaryKind::Mul) {
        return None;
    }
    let (a, b) = (app.operand(0)?, app.operand(1)?);
    [(0, a, b), (1, b, a)].into_iter().find_map(|(place, y, r)| {
        if view.is_constant(r) || view.is_constant(y) {
            return None;
        }
        Some((place, expert(view, y)?, r))
    })
}

/// Whether a factor of a map `[N, ..]` is one number for each of N samples.
fn per_sample(view: &dyn View, map: &[Dim], r: Class) -> bool {
    let Some(shape) = view.fact(r).map(|f| f.shape.as_slice()) else { return false };
    let Some(padding) = map.len().checked_sub(shape.len()) else { return false };
    let mut sizes = std::iter::repeat_n(Dim::from(1), padding).chain(shape.iter().cloned());
    let batch = sizes.next();
    sizes.all(|d| d.as_fixed() == Some(1)) && batch.as_ref() == map.first()
}

/// Sound over the reals: a convolution is linear in its kernel and its bias.
/// Requires: constant kernels of one shape; the same map and the same window; factors that are one number for each sample.
/// Not sound for: an activation between, a factor that varies over channels.
/// Exactness: reassociated.
/// Pays: one convolution with a mixed kernel instead of one for each expert.
pub const MIXED_CONV_EXPERTS: Rule = Rule {
    name: "mixed-conv-experts",
    equation: "sum(Conv(x, w[i], b[i]?) * parts(r[i]).., z..) => sum(CondConv|DynamicConv(x, parts(r[i]..), parts(w[i]..), \
               parts(b[i]?..)), z..); \
               sum(MatMul|Gemm(x, w[i], b[i]?) * parts(r[i]).., z..) => sum(viewed(CondConv|DynamicConv(viewed(x), \
               parts(r[i]..), parts(w[i]..), parts(b[i]?..))), z..)",
    conditions: &[SAME_WINDOW],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "one convolution instead of one for each expert",
    phase: Phase::Recognise,
    folds: false,
    proposals: None,
    roots: &["Add", "Sum"],
    search: |cx, class, app| {
        let mut sum = Summands::default();
        if let Some(lhs) = sum.read(cx, class, app, 16) {
            merge(cx, class, lhs, sum);
        }
    },
};

const PER_SAMPLE: Condition =
    Condition { name: "per-sample", text: "the factor is one number for each sample, and does not widen the map" };

/// Sound over the reals: one expert is a mixture too.
/// Requires: a constant kernel; a factor that is one number for each sample.
/// Not sound for: a gate of its own for each channel.
/// Exactness: reassociated.
/// Pays: the kernel is scaled instead of the map.
pub const MIXED_CONV_SINGLE: Rule = Rule {
    name: "mixed-conv-single",
    equation: "Conv(x, w, b?) * parts(r) => CondConv|DynamicConv(x, parts(r), w, b?)",
    conditions: &[PER_SAMPLE],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "the kernel is scaled instead of the map",
    phase: Phase::Recognise,
    folds: false,
    proposals: None,
    roots: &["Mul"],
    search: |cx, class, app| {
        let view = cx.view;
        let Some((place, expert, r)) = product(view, app) else { return };
        let (Some(map), Some(shape)) = (view.fact(class).map(|f| &f.shape), view.fact(r).map(|f| &f.shape)) else {
            return;
        };
        let same = app.operand(place).and_then(|y| super::super::affine::equal_shapes(view, y, class));
        let verdict = if same == Some(true) && per_sample(view, map, r) {
            Verdict::Holds
        } else {
            Verdict::Fails(format!("the factor is {shape:?}, the map {map:?}"))
        };
        if !cx.require(PER_SAMPLE.name, verdict) {
            return;
        }
        let (spelled, of, column) = column(view, r, &map[0]).unwrap_or_else(|| {
            let matrix = reshape(r.into(), &[0, 1]);
            (r.into(), Coefficients { matrix, class: r, samples: map[0].clone(), row: None, experts: 1 }, None)
        });
        let lhs = Expr::of(app).with_operand(place, expert.lhs.clone()).with_operand(1 - place, spelled);
        merge(cx, class, lhs, Summands { weighted: vec![Weighted { expert, of, column }], ..Summands::default() });
    },
};

/// Summands of a sum, nested or not.
#[derive(Default)]
struct Summands {
    weighted: Vec<Weighted>,
    rest: Vec<Class>,
    /// Sums without a weighted summand, and how many sums deep there is none: what several sums share is looked through once.
    barren: BTreeMap<Class, usize>,
}

fn is_sum(app: &App<'_>) -> bool {
    match app.op {
        Op::Binary(b) => b.kind == BinaryKind::Add,
        Op::Variadic(v) => v.kind == VariadicKind::Sum,
        _ => false,
    }
}

impl Summands {
    /// Takes the summands of a sum; the sum spelled out.
    fn read(&mut self, cx: &mut Cx<'_>, class: Class, app: &App<'_>, depth: usize) -> Option<Expr> {
        if !is_sum(app) || app.operands.len() + self.weighted.len() + self.rest.len() > MOST {
            return None;
        }
        let view = cx.view;
        let mut lhs = Expr::of(app);
        for (i, x) in app.operands.iter().enumerate() {
            let x = (*x)?;
            let spelled = self.summand(cx, class, x, depth).unwrap_or_else(|| {
                self.rest.push(x);
                x.into()
            });
            lhs = lhs.with_operand(i, spelled);
        }
        // A summand that is broadcast has another shape than the sum.
        let same = |x: &Class| super::super::affine::equal_shapes(view, *x, class) == Some(true);
        app.operands.iter().flatten().any(same).then_some(lhs)
    }

    fn summand(&mut self, cx: &mut Cx<'_>, sum: Class, x: Class, depth: usize) -> Option<Expr> {
        let view = cx.view;
        if super::super::affine::equal_shapes(view, x, sum) != Some(true) {
            return None;
        }
        for app in view.apps(x) {
            if is_sum(&app) && depth > 0 && self.barren.get(&x).is_none_or(|d| *d < depth) {
                let (w, r) = (self.weighted.len(), self.rest.len());
                if let Some(lhs) = self.read(cx, x, &app, depth - 1)
                    && self.weighted.len() > w
                {
                    return Some(lhs);
                }
                self.weighted.truncate(w);
                self.rest.truncate(r);
                self.barren.insert(x, depth);
            }
            if let Some(lhs) = self.weighted(view, x, &app) {
                return Some(lhs);
            }
        }
        None
    }

    /// Takes a convolution times a number for each sample, spelled out.
    fn weighted(&mut self, view: &dyn View, x: Class, app: &App<'_>) -> Option<Expr> {
        let (place, expert, r) = product(view, app)?;
        let map = &view.fact(x)?.shape;
        let same = super::super::affine::equal_shapes(view, app.operand(place)?, x) == Some(true);
        if !per_sample(view, map, r) || !same {
            return None;
        }
        let (spelled, of, column) = column(view, r, &map[0])?;
        let lhs = Expr::of(app).with_operand(place, expert.lhs.clone()).with_operand(1 - place, spelled);
        self.weighted.push(Weighted { expert, of, column });
        Some(lhs)
    }
}

fn merge(cx: &mut Cx<'_>, class: Class, lhs: Expr, sum: Summands) {
    let view = cx.view;
    let Some(lead) = sum.weighted.first().map(|w| &w.expert) else { return };
    let other =
        sum.weighted.iter().map(|w| &w.expert).find(|e| {
            e.is_product != lead.is_product || e.x != lead.x || e.window != lead.window || e.shape != lead.shape
        });
    let verdict = match other {
        None => Verdict::Holds,
        Some(e) if e.x != lead.x => Verdict::Fails("the convolutions read different maps".into()),
        Some(e) => Verdict::Fails(format!(
            "kernels {:?} and {:?}, strides {:?} and {:?}, pads {:?} and {:?}, dilations {:?} and {:?}, groups {} and {}",
            lead.shape,
            e.shape,
            lead.window.strides,
            e.window.strides,
            lead.window.pads,
            e.window.pads,
            lead.window.dilations,
            e.window.dilations,
            lead.window.group,
            e.window.group
        )),
    };
    // One alone has nothing to differ from.
    if sum.weighted.len() > 1 && !cx.require(SAME_WINDOW.name, verdict) {
        return;
    }
    let (Some(fact), Some(shape)) = (view.fact(lead.x), view.fact(class).map(|f| &f.shape)) else { return };
    let (outputs, inputs, is_product) = (lead.shape[0], lead.shape[1], lead.is_product);
    let row = |e: Expr, sizes: &[i64]| reshape(e, &[&[1], sizes].concat());
    let blocks: Vec<Block> = sum
        .weighted
        .iter()
        .map(|w| Block { of: w.of.clone(), column: w.column, weights: row(w.expert.weights.clone(), &w.expert.shape) })
        .collect();
    let Some((routes, experts)) = assemble(&blocks, &shape[0]) else { return };
    let zeros = || {
        floats(fact.dtype, &[usize::try_from(outputs).unwrap_or(0)], vec![0.0; usize::try_from(outputs).unwrap_or(0)])
    };
    let biased = sum.weighted.iter().any(|w| w.expert.bias.is_some());
    let biases: Vec<Block> = sum
        .weighted
        .iter()
        .zip(&blocks)
        .map(|(w, b)| Block { weights: row(w.expert.bias.clone().unwrap_or_else(zeros), &[outputs]), ..b.clone() })
        .collect();
    let bias = biased.then(|| assemble(&biases, &shape[0])).flatten().map(|b| b.1);
    let kind = kind_of(view, &blocks);
    let x = lead.x;
    let mixed = Mixed { lhs: lhs.clone(), blocks, routes, experts, bias, window: lead.window.clone() };
    let y = if is_product {
        let y = mixed.on(kind, reshape(x.into(), &[0, inputs, 1, 1]));
        reshape(y, &[0, outputs])
    } else {
        mixed.on(kind, x.into())
    };
    let rhs = sum.rest.iter().fold(y, |y, z| add(y, (*z).into()));
    cx.rewrite(lhs, rhs);
}
