//! Fully connected layers with matrices mixed for each sample: 1x1 convolutions of maps of one position.

use convc_runtime::{Dim, Op};

use super::{
    super::weights::{reshape, transpose},
    experts::pointwise,
    groups::{Bias, Mixed, bias_of, count, kind_of},
    mixture::{Mixture, mixture},
    routes::assemble,
};
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    view::{App, Class, Expr, View},
};

const OWN_MATRIX: Condition = Condition {
    name: "own-matrix",
    text: "every sample is one vector and meets the matrix that its own coefficients make",
};

/// A product with a mixed matrix.
struct Product {
    matrix: Mixture,
    /// Which operand the matrix is.
    place: usize,
    vectors: Class,
    /// Sizes of the matrix of one sample, and whether it is `[O, I]`.
    inputs: i64,
    outputs: i64,
    outputs_first: bool,
    bias: Option<Class>,
    /// Sizes that the vectors must have.
    wanted: Vec<i64>,
}

fn product(view: &dyn View, app: &App<'_>) -> Option<Product> {
    let trans_b = match app.op {
        Op::MatMul(_) => false,
        Op::Gemm(g) if g.alpha == 1.0 && g.beta == 1.0 && !g.trans_a => g.trans_b,
        _ => return None,
    };
    let operands = [app.operand(0)?, app.operand(1)?];
    [1, 0].into_iter().find_map(|place| {
        let (k, vectors) = (operands[place], operands[1 - place]);
        if view.is_constant(k) || view.is_constant(vectors) || (place == 0 && matches!(app.op, Op::Gemm(_))) {
            return None;
        }
        let matrix = mixture(view, k)?;
        let sizes: Vec<i64> = view.fact(k)?.shape.iter().map(Dim::as_fixed).collect::<Option<_>>()?;
        let (lead, [p, q]) = sizes.split_last_chunk()?;
        // What is made of coefficients alone is a router's own product.
        if lead.iter().product::<i64>() != matrix.samples || matrix.before * matrix.after != p * q || p * q == 1 {
            return None;
        }
        let outputs_first = (place == 0) != trans_b;
        let (outputs, inputs) = if outputs_first { (*p, *q) } else { (*q, *p) };
        let vector = if place == 0 { [inputs, 1] } else { [1, inputs] };
        let wanted = lead.iter().copied().chain(vector).collect();
        Some(Product { matrix, place, vectors, inputs, outputs, outputs_first, bias: app.operand(2), wanted })
    })
}

/// `x[n] (r W)[n]  =>  view(mixed-conv(view(x), r, view(W)))`, 1x1
///
/// Sound over the reals: a product with a matrix is a 1x1 convolution of a map with one position.
/// Requires: constant experts; one vector for each sample.
/// Not sound for: several vectors that share the matrix of one sample.
/// Exactness: reassociated.
/// Pays: one operator instead of a swarm.
pub const MIXED_LINEAR: Rule = Rule {
    name: "mixed-linear",
    equation: "x[n] * (r W)[n] => view(mixed-conv(view(x), r, view(W)))",
    conditions: &[OWN_MATRIX],
    exactness: Exactness::Reassociated,
    pays: "one operator that rules can fold into",
    phase: Phase::Recognise,
    roots: &["MatMul", "Gemm"],
    search: |cx, class, app| {
        if let Some((lhs, rhs)) = recognise(cx, class, app) {
            cx.rewrite(lhs, rhs);
        }
    },
};

fn recognise(cx: &mut Cx<'_>, class: Class, app: &App<'_>) -> Option<(Expr, Expr)> {
    let view = cx.view;
    let p = product(view, app)?;
    let n = p.matrix.samples;
    let found = view.fact(p.vectors)?;
    let sizes: Option<Vec<i64>> = found.shape.iter().map(Dim::as_fixed).collect();
    let ones = |s: &[i64]| s.iter().copied().filter(|&s| s != 1).collect::<Vec<i64>>();
    let same = sizes.as_deref().map(|s| {
        // One vector alone may lack axes of size 1, which a batch may not.
        ones(s) == ones(&p.wanted) && (n == 1 || s == p.wanted) && (p.matrix.before == 1 || n == 1)
    });
    let verdict = match same {
        Some(true) => Verdict::Holds,
        Some(false) => Verdict::Fails(format!("{found} meets the matrices of {n} samples")),
        None => Verdict::Unknown(format!("{found} meets the matrices of {n} samples")),
    };
    cx.require(OWN_MATRIX.name, verdict).then_some(())?;
    let (routes, weights) = assemble(&p.matrix.blocks, &Dim::from(n))?;
    let e = count(&p.matrix.blocks);
    let experts =
        if p.outputs_first { weights } else { transpose(reshape(weights, &[e, p.inputs, p.outputs]), &[0, 2, 1]) };
    let experts = reshape(experts, &[e, p.outputs, p.inputs, 1, 1]);
    let mut lhs = Expr::of(app).with_operand(p.place, p.matrix.lhs.clone());
    let bias = match bias_of(view, p.bias, n, p.outputs, &routes) {
        Bias::None => None,
        Bias::Some(spelled, value, _) => {
            let flat = view.fact(p.bias?)?.element_count().as_fixed() == Some(p.outputs);
            lhs = lhs.with_operand(2, spelled);
            let shared = value == Expr::Class(p.bias?);
            Some(if shared { reshape(value, &[p.outputs]) } else { value }).filter(|_| flat)
        }
    };
    if bias.is_none() && p.bias.is_some() {
        return None;
    }
    let kind = kind_of(view, &p.matrix.blocks);
    let mixed = Mixed { lhs: lhs.clone(), blocks: Vec::new(), routes, experts, bias, window: pointwise() };
    let y = mixed.on(kind, reshape(p.vectors.into(), &[n, p.inputs, 1, 1]));
    let shape: Vec<i64> = view.fact(class)?.shape.iter().map(Dim::as_fixed).collect::<Option<_>>()?;
    Some((lhs, reshape(y, &shape)))
}
