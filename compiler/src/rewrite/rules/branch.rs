//! Parallel convolutions of one input, added up.

use std::collections::BTreeSet;

use convc_runtime::{
    Op,
    ops::{Conv, binary::BinaryKind},
    window::AutoPad,
};

use super::{
    affine::equal_shapes,
    finite::{FINITE_ELEMENTS, finite_elements},
    read::conv::{ConvAt, convs_in},
    weights::{Kernel, add, neg, ones, sub},
};
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View, fixed_dim},
};

/// The most summands that are looked at together.
const MOST: usize = 16;

pub(super) const SAME_GRID: Condition = Condition {
    name: "same-grid",
    text: "the branches read the same input with the same strides, and their taps lie on one grid",
};
const SAME_SHAPE: Condition =
    Condition { name: "same-shape", text: "the branches' results have the shape of the sum: nothing is broadcast" };

/// Sound over the reals: convolutions of one input with the same strides add up tap by tap, each kernel set into the
/// smallest one that holds all; the input itself is a 1x1 convolution with ones on the diagonal.
/// Requires: constant kernels; equal strides; taps on one grid (the same dilation, or kernels of one tap); groups that
/// divide each other; results of one shape.
/// Not sound for: branches on grids that are shifted against each other, a sum that broadcasts, an activation between; a
/// branch that is subtracted without its kernel and bias negated.
/// Exactness: reassociated.
/// Pays: one convolution and no addition instead of n and n - 1.
pub const BRANCH_ADD: Rule = Rule {
    name: "branch-add",
    equation: "sum(Conv(x, w[i], b[i]?).., z..) => sum(Conv(x, sum(embedded(w[i])..), sum(b[i]?..)), z..); \
               sum(Conv(x, w[i], b[i]?).., x, z..) => sum(Conv(x, sum(embedded(w[i]).., unit), sum(b[i]?..)), z..); \
               sum(Conv(x, w[i], b[i]?).., -x, z..) => sum(Conv(x, sum(embedded(w[i]).., -unit), sum(b[i]?..)), z..) where \
               `unit` has ones on the diagonal",
    conditions: &[SAME_GRID, SAME_SHAPE, FINITE_ELEMENTS],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "one convolution and no addition",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["Add", "Sub"],
    search: |cx, class, app| {
        let view = cx.view;
        let Some(whole) = Sum::at(view, app, None) else { return };
        let mut inputs: Vec<Class> =
            whole.leaves.iter().flat_map(|l| convs_in(view, l.class)).map(|conv| conv.x).collect();
        inputs.sort_unstable();
        inputs.dedup();
        for x in inputs {
            // What is added may be the convolutions' input, and a sum itself.
            let Some(sum) = Sum::at(view, app, Some(x)) else { return };
            merge(cx, class, &sum, x);
        }
    },
};

/// A sum of several terms: the leaves of nested additions and subtractions, and how they nest.
struct Sum<'v> {
    leaves: Vec<Leaf<'v>>,
    shape: Tree,
}

/// A summand.
struct Leaf<'v> {
    class: Class,
    /// Whether it is subtracted.
    negative: bool,
    convs: Vec<ConvAt<'v>>,
}

enum Tree {
    Leaf(usize),
    Two(Op, Box<Tree>, Box<Tree>),
}

/// Whether an operator subtracts its second operand or adds it; `None` if it is another one.
fn subtracts(app: &App<'_>) -> Option<bool> {
    match app.op {
        Op::Binary(b) if b.kind == BinaryKind::Add => Some(false),
        Op::Binary(b) if b.kind == BinaryKind::Sub => Some(true),
        _ => None,
    }
}

impl<'v> Sum<'v> {
    /// The sum at an application. The class `whole` is a summand as it stands, even if it is a sum.
    fn at(view: &'v dyn View, app: &App<'_>, whole: Option<Class>) -> Option<Sum<'v>> {
        let mut sum = Sum { leaves: Vec::new(), shape: Tree::Leaf(0) };
        sum.shape = sum.two(view, app, whole, false, 8)?;
        Some(sum)
    }

    fn two(
        &mut self,
        view: &'v dyn View,
        app: &App<'_>,
        whole: Option<Class>,
        negative: bool,
        depth: usize,
    ) -> Option<Tree> {
        let subtracted = subtracts(app)?;
        let (a, b) = (app.operand(0)?, app.operand(1)?);
        let left = self.tree(view, a, whole, negative, depth);
        let right = self.tree(view, b, whole, negative != subtracted, depth);
        Some(Tree::Two(app.op.clone(), Box::new(left), Box::new(right)))
    }

    /// A class as a subtree: its first addition or subtraction, unless it is a convolution as it stands.
    fn tree(&mut self, view: &'v dyn View, class: Class, whole: Option<Class>, negative: bool, depth: usize) -> Tree {
        let convs = convs_in(view, class);
        if depth > 0
            && self.leaves.len() < MOST
            && whole != Some(class)
            && convs.is_empty()
            && let Some(app) = view.apps(class).iter().find(|a| subtracts(a).is_some())
            && let Some(tree) = self.two(view, app, whole, negative, depth - 1)
        {
            return tree;
        }
        self.leaves.push(Leaf { class, negative, convs });
        Tree::Leaf(self.leaves.len() - 1)
    }

    fn expr(&self, leaf: &dyn Fn(usize) -> Expr) -> Expr {
        fn go(t: &Tree, leaf: &dyn Fn(usize) -> Expr) -> Expr {
            match t {
                Tree::Leaf(i) => leaf(*i),
                Tree::Two(op, a, b) => Expr::op(op.clone(), vec![Some(go(a, leaf)), Some(go(b, leaf))]),
            }
        }
        go(&self.shape, leaf)
    }
}

/// One branch of a merge: a kernel with its position on the input's grid.
pub(super) struct Branch {
    pub(super) kernel: Kernel,
    pub(super) bias: Option<Expr>,
    /// Whether it is subtracted.
    negative: bool,
    strides: Vec<i64>,
    dilations: Vec<i64>,
    begin: Vec<i64>,
    end: Vec<i64>,
}

impl Branch {
    pub(super) fn of(c: &ConvAt<'_>) -> Branch {
        let n = c.spatial();
        Branch {
            kernel: c.kernel.clone(),
            bias: c.bias.map(Expr::Class),
            negative: false,
            strides: c.op.strides.clone(),
            dilations: c.op.dilations.clone(),
            begin: (0..n).map(|a| c.pad_begin(a)).collect(),
            end: (0..n).map(|a| c.pad_end(a)).collect(),
        }
    }

    /// The input itself.
    fn identity(view: &dyn View, x: Class, spatial: usize) -> Option<Branch> {
        let channels = fixed_dim(view, x, 1)?;
        let shape: Vec<usize> = [usize::try_from(channels).ok()?, 1].into_iter().chain(vec![1; spatial]).collect();
        let weights = ones(view.fact(x)?.dtype, &shape);
        let kernel = Kernel { weights, outputs: channels, inputs: 1, taps: vec![1; spatial], group: channels };
        let (one, zero) = (vec![1; spatial], vec![0; spatial]);
        Some(Branch {
            kernel,
            bias: None,
            negative: false,
            strides: one.clone(),
            dilations: one,
            begin: zero.clone(),
            end: zero,
        })
    }
}

fn merge(cx: &mut Cx<'_>, class: Class, sum: &Sum<'_>, x: Class) {
    cx.begin();
    let (view, leaves) = (cx.view, &sum.leaves);
    // The first branch decides the strides; others with different ones stay outside.
    let lead = leaves.iter().flat_map(|l| &l.convs).find(|c| c.x == x);
    let Some(lead) = lead else { return };
    let spatial = lead.spatial();
    let mut taken: Vec<(usize, Option<&ConvAt<'_>>)> = Vec::new();
    let mut branches = Vec::new();
    for (i, leaf) in leaves.iter().enumerate() {
        let here: Vec<&ConvAt<'_>> = leaf.convs.iter().filter(|c| c.x == x).collect();
        let fitting = here.iter().find(|c| c.op.strides == lead.op.strides && c.kernel.outputs == lead.kernel.outputs);
        if let Some(c) = fitting {
            taken.push((i, Some(c)));
            branches.push(Branch { negative: leaf.negative, ..Branch::of(c) });
        } else if let Some(c) = here.first() {
            let (name, why) = if c.op.strides == lead.op.strides {
                (SAME_SHAPE.name, format!("{} and {} output channels", lead.kernel.outputs, c.kernel.outputs))
            } else {
                (SAME_GRID.name, format!("strides {:?} and {:?}", lead.op.strides, c.op.strides))
            };
            cx.require(name, Verdict::Fails(why));
        } else if leaf.class == x
            && lead.op.strides.iter().all(|&s| s == 1)
            && let Some(b) = Branch::identity(view, x, spatial).filter(|b| b.kernel.outputs == lead.kernel.outputs)
        {
            taken.push((i, None));
            branches.push(Branch { negative: leaf.negative, ..b });
        }
    }
    if taken.len() < 2 {
        return;
    }
    let shapes = taken.iter().map(|t| equal_shapes(view, leaves[t.0].class, class)).collect::<Vec<_>>();
    let same = if shapes.contains(&Some(false)) {
        Some(false)
    } else {
        shapes.iter().all(|s| *s == Some(true)).then_some(true)
    };
    if !cx.require(SAME_SHAPE.name, Verdict::from_answer(same, || "a branch's result is broadcast in the sum".into())) {
        return;
    }
    let Some((op, kernel, bias)) = merged(cx, x, &branches) else { return };
    let merged = Expr::op(op, vec![Some(x.into()), Some(kernel.weights), bias]);
    let lhs = sum.expr(&|i| match taken.iter().find(|t| t.0 == i) {
        Some((_, Some(c))) => c.expr(),
        _ => leaves[i].class.into(),
    });
    let rhs = leaves
        .iter()
        .enumerate()
        .filter(|(i, _)| taken.iter().all(|t| t.0 != *i))
        .fold(merged, |rest, (_, leaf)| signed(leaf.negative)(rest, leaf.class.into()));
    cx.rewrite(lhs, rhs);
}

/// The smallest window that holds the windows of several branches.
pub(super) struct Frame {
    strides: Vec<i64>,
    pads: Vec<i64>,
    dilations: Vec<i64>,
    taps: Vec<i64>,
}

impl Frame {
    /// The frame of branches that have the strides of the first, if their taps lie on one grid. Its results have the size
    /// of the first branch's.
    pub(super) fn around(cx: &mut Cx<'_>, branches: &[Branch]) -> Option<Frame> {
        let first = branches.first()?;
        let (mut grid, mut begin, mut end, mut taps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for a in 0..first.begin.len() {
            let mut steps = branches.iter().filter(|b| b.kernel.taps[a] > 1).map(|b| b.dilations[a]);
            let step = steps.next().unwrap_or(1);
            let other = steps.find(|s| *s != step);
            let verdict = match other {
                Some(s) => Verdict::Fails(format!("dilations {step} and {s} along spatial axis {a}")),
                None => match branches.iter().find(|b| (b.begin[a] - first.begin[a]) % step != 0) {
                    Some(b) => Verdict::Fails(format!(
                        "padding {} and {} put the taps of spatial axis {a} on different grids of step {step}",
                        first.begin[a], b.begin[a]
                    )),
                    None => Verdict::Holds,
                },
            };
            if !cx.require(SAME_GRID.name, verdict) {
                return None;
            }
            let low = branches.iter().map(|b| -b.begin[a]).min()?;
            let last = |b: &Branch| -b.begin[a] + step * (b.kernel.taps[a] - 1);
            let high = branches.iter().map(last).max()?;
            grid.push(step);
            begin.push(-low);
            end.push(first.end[a] + high - last(first));
            taps.push((high - low) / step + 1);
        }
        let pads = begin.into_iter().chain(end).collect();
        Some(Frame { strides: first.strides.clone(), pads, dilations: grid, taps })
    }

    /// A branch's kernel set into the frame.
    pub(super) fn place(&self, b: &Branch, kernel: Kernel) -> Kernel {
        let before: Vec<i64> = (0..self.taps.len()).map(|a| (self.pads[a] - b.begin[a]) / self.dilations[a]).collect();
        kernel.embedded(&before, &self.taps)
    }

    /// Whether each tap of the frame is one of these branches'.
    pub(super) fn is_covered<'b>(&self, branches: impl Iterator<Item = &'b Branch>) -> bool {
        let whole: i64 = self.taps.iter().product();
        let mut covered: BTreeSet<Vec<i64>> = BTreeSet::new();
        for b in branches {
            // Every place of the branch's window, as a place of the frame's.
            let mut places: Vec<Vec<i64>> = vec![Vec::new()];
            for a in 0..self.taps.len() {
                let first = (self.pads[a] - b.begin[a]) / self.dilations[a];
                places = places
                    .into_iter()
                    .flat_map(|p| (0..b.kernel.taps[a]).map(move |t| [p.clone(), vec![first + t]].concat()))
                    .collect();
            }
            covered.extend(places);
        }
        i64::try_from(covered.len()) == Ok(whole)
    }

    /// A convolution with this window.
    pub(super) fn conv(self, group: i64) -> Conv {
        let Frame { strides, pads, dilations, .. } = self;
        Conv { strides, pads, dilations, group, auto_pad: AutoPad::NotSet }
    }
}

/// The one convolution that adds up the branches.
fn merged(cx: &mut Cx<'_>, x: Class, branches: &[Branch]) -> Option<(Conv, Kernel, Option<Expr>)> {
    let dtype = cx.view.fact(x)?.dtype;
    let group = branches.iter().map(|b| b.kernel.group).fold(0, gcd);
    let frame = Frame::around(cx, branches)?;
    let adds_reads = !frame.is_covered(branches.iter().filter(|b| b.kernel.group == group));
    let finite = if adds_reads { finite_elements(cx.view, x) } else { Verdict::Holds };
    cx.require(FINITE_ELEMENTS.name, finite).then_some(())?;
    let mut weights: Option<Kernel> = None;
    let mut bias = None;
    for b in branches {
        let k = frame.place(b, b.kernel.clone().in_groups(dtype, group)?);
        bias = match (bias, b.bias.clone()) {
            (Some(sum), Some(bias)) => Some(signed(b.negative)(sum, bias)),
            (None, Some(bias)) if b.negative => Some(neg(bias)),
            (sum, bias) => sum.or(bias),
        };
        weights = Some(match weights {
            None if b.negative => Kernel { weights: neg(k.weights), ..k },
            None => k,
            Some(w) => Kernel { weights: signed(b.negative)(w.weights, k.weights), ..k },
        });
    }
    Some((frame.conv(group), weights?, bias))
}

/// How a summand joins those before it.
fn signed(negative: bool) -> fn(Expr, Expr) -> Expr {
    if negative { sub } else { add }
}

pub(super) fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The rules of this file.
pub const RULES: &[&Rule] = &[&BRANCH_ADD];
