//! ResNeSt's split attention.

mod excite;
mod heads;
mod reader;
mod source;
mod sums;
mod weighed;

use std::collections::BTreeMap;

use convc_runtime::ops::SplitAttention;

use self::{
    excite::{arranged, one_for_all, opposite},
    heads::Head,
    reader::{Gate, Reader, Weights},
    source::Source,
    sums::Sums,
    weighed::{Logits, Weighed, over_radix, squeezes},
};
use super::spelt;
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View, same_shape},
};

const POOLED: Condition = Condition {
    name: "pooled",
    text: "the weights come from means over the whole map, one number for each sample and channel",
};
const EACH_PART: Condition = Condition {
    name: "each-part",
    text: "every channel of the result is a weighed sum of as many of the convolution's channels as there are parts, each of them \
           once; in a grouped convolution a part takes whole groups",
};
const OVER_RADIX: Condition = Condition {
    name: "over-radix",
    text: "the softmax normalises the weights of one channel's parts against each other, and nothing else",
};
const OPPOSITE: Condition =
    Condition { name: "opposite", text: "of two sigmoids one takes the negative of what the other takes" };
const SUM_OF_PARTS: Condition =
    Condition { name: "sum-of-parts", text: "what is squeezed is the mean of the sum of the parts that are weighed" };
const ALIKE: Condition =
    Condition { name: "alike", text: "a squeeze that takes the means of all parts weighs them alike" };

/// Sound over the reals, by the operator's definition. What counts is which channel of which part is weighed by which logit,
/// however splits, views, transpositions, sums and products spell it; a softmax of two may be a pair of sigmoids of opposite
/// arguments, or `u_1 + sigmoid(a) * (u_0 - u_1)`. Logits in another order permute the excitation's weights, channels in another
/// order those of the convolution (and whole groups its input); groups that do not follow the cardinality become blocks of a
/// dense kernel. A single part weighed by a sigmoid is a squeeze-and-excite gate and stays one.
/// Requires: weights that are pooled, a softmax over the radix only, each part weighed once, a squeeze of their sum.
/// Not sound for: attention that varies over the map.
/// Exactness: analytic (a softmax of two is a sigmoid of the difference).
/// Pays: one operator instead of a dozen; the sum, the pooling and the weighing run in one pass each.
pub const SPLIT_ATTENTION: Rule = Rule {
    name: "split-attention",
    equation: "attended(Conv(x, w, b?), Conv|Gemm(Relu(Conv|Gemm(pooled(Conv(x, w, b?)), u, c?)), v, d?)) => \
               SplitAttention(arranged(x), arranged(w), arranged(b?), scaled(u), c?, scaled(v), scaled(d?))",
    conditions: &[POOLED, EACH_PART, OVER_RADIX, OPPOSITE, SUM_OF_PARTS, ALIKE],
    exactness: Exactness::Analytic,
    types: Types::FLOATS,
    pays: "one operator instead of a dozen",
    phase: Phase::Recognise,
    folds: false,
    proposals: None,
    roots: &["Add", "Sum", "ReduceSum", "Reshape"],
    search: |cx, class, app| {
        if weighs(cx.view, app) {
            recognise(cx, class);
        }
    },
};

/// Whether a product with a softmax or sigmoid is in sight: a quick look before the values are read channel by channel.
fn weighs(view: &dyn View, app: &App<'_>) -> bool {
    Sight { view, gates: BTreeMap::new(), products: BTreeMap::new() }.product(app, 12)
}

/// A look for gates and products, which passes each class that several operators share once.
struct Sight<'a> {
    view: &'a dyn View,
    /// How many operators deep there is no gate in a class.
    gates: BTreeMap<Class, usize>,
    /// How many operators deep there is no product in a class.
    products: BTreeMap<Class, usize>,
}

impl Sight<'_> {
    fn gate(&mut self, class: Class, depth: usize) -> bool {
        if self.gates.get(&class).is_some_and(|d| *d >= depth) {
            return false;
        }
        let found = depth > 0
            && self.view.apps(class).iter().any(|app| match app.op.name() {
                "Sigmoid" | "Softmax" => true,
                "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose" | "Slice" | "Gather" | "Sub"
                | "Identity" => app.operands.iter().flatten().any(|&o| self.gate(o, depth - 1)),
                _ => false,
            });
        if !found {
            self.gates.insert(class, depth);
        }
        found
    }

    fn product(&mut self, app: &App<'_>, depth: usize) -> bool {
        depth > 0
            && match app.op.name() {
                "Mul" => app.operands.iter().flatten().any(|&o| self.gate(o, 10)),
                "Add" | "Sum" | "Sub" | "ReduceSum" | "Reshape" | "Slice" | "Transpose" | "Unsqueeze" | "Squeeze"
                | "Concat" | "Gather" => app.operands.iter().flatten().any(|&o| self.product_in(o, depth - 1)),
                _ => false,
            }
    }

    fn product_in(&mut self, class: Class, depth: usize) -> bool {
        if self.products.get(&class).is_some_and(|d| *d >= depth) {
            return false;
        }
        let found = self.view.apps(class).iter().any(|a| self.product(a, depth));
        if !found {
            self.products.insert(class, depth);
        }
        found
    }
}

fn recognise(cx: &mut Cx<'_>, class: Class) {
    let view = cx.view;
    cx.begin();
    let mut reader = Reader::new(view, None);
    let Some(root) = reader.read(class) else {
        // Weights that vary over the map are no split attention, but look like one.
        if let (Some(logits), Some(_)) = (reader.spatial_logits, reader.map) {
            let shape = view.fact(logits).map_or_else(String::new, ToString::to_string);
            let reason = format!("the softmax is over logits that vary over the map: {shape}");
            cx.require(POOLED.name, Verdict::Fails(reason));
        }
        return;
    };
    let (Some(map), Some(weights)) = (reader.map, reader.weights) else { return };
    let Some(found) = attention(view, class, &root, map, &weights) else { return };
    found.judge(cx, class, &weights);
}

/// A weighed sum of a convolution's channels with all that weighs it.
struct Attention<'a> {
    source: Source<'a>,
    weighed: Weighed,
    squeeze: Head,
    excite: Head,
    squeezed: Sums,
    other: Option<Class>,
}

fn attention<'a>(
    view: &'a dyn View,
    class: Class,
    root: &Sums,
    map: Class,
    weights: &Weights,
) -> Option<Attention<'a>> {
    let source = Source::read(view, map)?;
    let weighed = Weighed::read(root, weights, source.channels)?;
    let spatial = source.op.strides.len();
    // The result has the shape of the map but for its channels.
    let (all, result) = (view.fact(map)?, view.fact(class)?);
    let mut expected = all.shape.clone();
    expected[1] = (weighed.channels as i64).into();
    if result.dtype != all.dtype || same_shape(&expected, &result.shape) != Some(true) {
        return None;
    }
    let excite = Head::read(view, weights.logits, spatial)?;
    let (hidden, order) = Reader::rearranged(view, excite.x)?;
    let relu = view.apps(hidden).into_iter().find(|a| a.op.name() == "Relu")?;
    let (inner, inner_order) = Reader::rearranged(view, relu.operand(0)?)?;
    if !order.is_identity() || !inner_order.is_identity() {
        return None;
    }
    let squeeze = Head::read(view, inner, spatial)?;
    let mut reader = Reader::new(view, Some(map));
    let (squeezed, other) = match reader.read(squeeze.x) {
        Some(sums) => (sums, None),
        // What is squeezed comes from elsewhere.
        None => {
            let mut elsewhere = Reader::new(view, None);
            (elsewhere.read(squeeze.x)?, elsewhere.map)
        }
    };
    (squeezed.in_order() && reader.weights.is_none()).then_some(Attention {
        source,
        weighed,
        squeeze,
        excite,
        squeezed,
        other,
    })
}

impl Attention<'_> {
    fn judge(self, cx: &mut Cx<'_>, class: Class, weights: &Weights) {
        let view = cx.view;
        let Weighed { radix, channels, .. } = self.weighed;
        let pooled = !weights.spatial && self.squeezed.is_flat();
        let reason = || "the weights vary over the map: nothing is pooled before the squeeze".to_owned();
        if !cx.require(POOLED.name, Verdict::from_answer(Some(pooled), reason)) {
            return;
        }
        let (verdict, operands) = self.source.in_order(view, &self.weighed.channels_of);
        if !cx.require(EACH_PART.name, verdict) {
            return;
        }
        let (over, opposed) = match (&self.weighed.logits, &weights.gate) {
            (Logits::Each(logits), Gate::Softmax(group)) => {
                (over_radix(group, logits, radix, channels), Verdict::Holds)
            }
            (Logits::Pair(logits), _) => (Verdict::Holds, opposite(view, &self.excite, logits)),
            _ => (Verdict::Holds, Verdict::Holds),
        };
        if !cx.require(OVER_RADIX.name, over) || !cx.require(OPPOSITE.name, opposed) {
            return;
        }
        let form = squeezes(&self.squeezed, &self.weighed).filter(|_| self.other.is_none());
        let reason = || "what is squeezed is not the sum of the parts that are weighed".to_owned();
        if !cx.require(SUM_OF_PARTS.name, Verdict::from_answer(Some(form.is_some()), reason)) {
            return;
        }
        let apart = form.unwrap_or(self.squeezed.at.len() != channels);
        let (squeeze, alike) = if apart {
            match one_for_all(view, self.squeeze, radix, channels) {
                Some(found) => found,
                None => return,
            }
        } else {
            (self.squeeze, Verdict::Holds)
        };
        if cx.require(ALIKE.name, alike)
            && let Some((cardinality, squeeze, excite)) = arranged(view, squeeze, self.excite, &self.weighed)
        {
            emit(cx, class, &self.source, operands, (radix, cardinality), squeeze, excite);
        }
    }
}

fn emit(
    cx: &mut Cx<'_>,
    class: Class,
    source: &Source<'_>,
    mut operands: Vec<Option<Expr>>,
    (radix, cardinality): (usize, i64),
    squeeze: Head,
    excite: Head,
) {
    let op = SplitAttention {
        radix: radix as i64,
        cardinality,
        activation: source.activation,
        strides: source.op.strides.clone(),
        pads: source.op.pads.clone(),
        dilations: source.op.dilations.clone(),
        group: source.op.group,
    };
    operands.extend([Some(squeeze.kernel.weights), squeeze.bias, Some(excite.kernel.weights), excite.bias]);
    let leaves: Vec<Class> =
        source.operands.iter().flatten().copied().chain(operands.iter().flatten().flat_map(Expr::classes)).collect();
    if let Some(lhs) = spelt(cx.view, class, &leaves, 4096) {
        cx.rewrite(lhs, Expr::op(op, operands));
    }
}

/// The rules of this file.
pub const RULES: &[&Rule] = &[&SPLIT_ATTENTION];
