//! Fully connected layers with matrices mixed for each sample: 1x1 convolutions of maps of one position.

use convc_runtime::{Dim, Op};

use super::{
    super::{
        read::route::{Block, assemble, large},
        weights::{reshape, transpose},
    },
    experts::{per_column, pointwise},
    groups::{Bias, Mixed, bias_of, count, kind_of},
    mixture::{Mixture, mixture, open_product},
};
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View, same_shape},
};

const OWN_MATRIX: Condition = Condition {
    name: "own-matrix",
    text: "every sample is one vector and meets the matrix that its own coefficients make",
};

/// A product with a mixed matrix.
struct Product {
    matrix: Matrix,
    /// Which operand the matrix is.
    place: usize,
    vectors: Class,
    /// Sizes of the matrix of one sample, and whether it is `[O, I]`.
    inputs: i64,
    outputs: i64,
    outputs_first: bool,
    bias: Option<Class>,
    /// Sizes that the vectors must have.
    wanted: Vec<Dim>,
}

/// A matrix for each sample.
struct Matrix {
    /// Spelled out.
    lhs: Expr,
    blocks: Vec<Block>,
    samples: Dim,
    /// Whether the samples are its outermost axis.
    samples_first: bool,
    /// Elements for each sample.
    size: i64,
}

impl Matrix {
    fn read(view: &dyn View, class: Class) -> Option<Matrix> {
        if let Some(m) = mixture(view, class) {
            let Mixture { lhs, blocks, before, samples, after } = m;
            let samples_first = before == 1 || samples == 1;
            return Some(Matrix { lhs, blocks, samples: samples.into(), samples_first, size: before * after });
        }
        let samples = view.fact(class)?.shape.first().filter(|d| !d.is_fixed())?.clone();
        let (lhs, block, size) = open_product(view, class, &samples)?;
        Some(Matrix { lhs, blocks: vec![block], samples, samples_first: true, size })
    }
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
        let matrix = Matrix::read(view, k)?;
        let (lead, [p, q]) = view.fact(k)?.shape.split_last_chunk()?;
        let (p, q) = (p.as_fixed()?, q.as_fixed()?);
        // What is made of coefficients alone is a router's own product.
        if Dim::product(lead).equals(&matrix.samples) != Some(true) || matrix.size != p * q || p * q == 1 {
            return None;
        }
        let outputs_first = (place == 0) != trans_b;
        let (outputs, inputs) = if outputs_first { (p, q) } else { (q, p) };
        let vector = if place == 0 { [inputs, 1] } else { [1, inputs] };
        let wanted = lead.iter().cloned().chain(vector.map(Dim::from)).collect();
        Some(Product { matrix, place, vectors, inputs, outputs, outputs_first, bias: app.operand(2), wanted })
    })
}

/// Sound over the reals: a product with a matrix is a 1x1 convolution of a map with one position.
/// Requires: constant experts; one vector for each sample.
/// Not sound for: several vectors that share the matrix of one sample.
/// Exactness: reassociated.
/// Pays: one operator instead of many.
pub const MIXED_LINEAR: Rule = Rule {
    name: "mixed-linear",
    equation: "MatMul|Gemm(mixed(r.., w..), x) => viewed(CondConv|DynamicConv(viewed(x), parts(r..), scaled(w..))); \
               MatMul|Gemm(x, mixed(r.., w..), b?) => viewed(CondConv|DynamicConv(viewed(x), parts(r..), scaled(w..), b?))",
    conditions: &[OWN_MATRIX],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "one operator that rules can fold into",
    phase: Phase::Recognise,
    folds: false,
    proposals: None,
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
    let n = &p.matrix.samples;
    let found = view.fact(p.vectors)?;
    let single = n.as_fixed() == Some(1);
    let same = if single {
        // One vector alone may lack axes of size 1, which a batch may not.
        Some(large(&found.shape) == large(&p.wanted))
    } else if p.matrix.samples_first {
        same_shape(&found.shape, &p.wanted)
    } else {
        Some(false)
    };
    let verdict = match same {
        Some(true) => Verdict::Holds,
        Some(false) => Verdict::Fails(format!("{found} meets the matrices of {n} samples")),
        None => Verdict::Unknown(format!("{found} meets the matrices of {n} samples")),
    };
    cx.require(OWN_MATRIX.name, verdict).then_some(())?;
    let (routes, weights) = assemble(&p.matrix.blocks, n)?;
    let e = count(&p.matrix.blocks);
    let experts =
        if p.outputs_first { weights } else { transpose(reshape(weights, &[e, p.inputs, p.outputs]), &[0, 2, 1]) };
    let experts = reshape(experts, &[e, p.outputs, p.inputs, 1, 1]);
    let mut lhs = Expr::of(app).with_operand(p.place, p.matrix.lhs.clone());
    let mut bias = None;
    if let Some(b) = p.bias {
        let Bias::Some(spelled, value, _) = bias_of(view, p.bias, n.as_fixed()?, p.outputs, &routes) else {
            return None;
        };
        if !per_column(view, b, p.outputs) {
            return None;
        }
        lhs = lhs.with_operand(2, spelled);
        bias = Some(if value == Expr::Class(b) { reshape(value, &[p.outputs]) } else { value });
    }
    let kind = kind_of(view, &p.matrix.blocks);
    let mixed = Mixed { lhs: lhs.clone(), blocks: Vec::new(), routes, experts, bias, window: pointwise() };
    // An open number of samples is copied.
    let batch = n.as_fixed().unwrap_or(0);
    let y = mixed.on(kind, reshape(p.vectors.into(), &[batch, p.inputs, 1, 1]));
    let size = |(i, d): (usize, &Dim)| d.as_fixed().or((i == 0 && batch == 0).then_some(0));
    let shape: Vec<i64> = view.fact(class)?.shape.iter().enumerate().map(size).collect::<Option<_>>()?;
    Some((lhs, reshape(y, &shape)))
}
