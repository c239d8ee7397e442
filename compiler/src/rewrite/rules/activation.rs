//! Activations that a model spells out: a map times a curve of itself, and bounded lines.
//!
//! They are read up to where constants stand: scales before, within and behind the product count as one.

use convc_runtime::{
    DType, Op,
    ops::{Gelu, Unary, binary::BinaryKind, gelu::Approximate, unary::UnaryKind},
};

use super::{
    affine::equal_shapes,
    clamp::{bounds_of, number},
};
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View},
};

/// How many operators a reading goes through at most.
const DEPTH: usize = 6;

/// Whether a constant is the number wanted, as far as its type tells. Constants of wider types may have been narrower.
fn near(v: f64, want: f64, dtype: DType) -> bool {
    let step = match dtype {
        DType::F16 => 2f64.powi(-9),
        DType::BF16 => 2f64.powi(-6),
        _ => 2f64.powi(-22),
    };
    (v - want).abs() <= step * want.abs()
}

fn binary(app: &App<'_>) -> Option<(BinaryKind, Class, Class)> {
    match app.op {
        Op::Binary(b) => Some((b.kind, app.operand(0)?, app.operand(1)?)),
        _ => None,
    }
}

fn unary<'a>(app: &App<'a>) -> Option<(&'a Unary, Class)> {
    match app.op {
        Op::Unary(u) => Some((u, app.operand(0)?)),
        _ => None,
    }
}

/// Coefficients of 1, x, x^2 and x^3.
type Polynomial = [f64; 4];

fn product(p: Polynomial, q: Polynomial) -> Option<Polynomial> {
    let mut out = [0.0; 7];
    for (i, a) in p.iter().enumerate() {
        q.iter().enumerate().for_each(|(j, b)| out[i + j] += a * b);
    }
    out[4..].iter().all(|&c| c == 0.0).then(|| [out[0], out[1], out[2], out[3]])
}

/// A class as a polynomial in `x`, and the term that says so.
fn polynomial(view: &dyn View, class: Class, x: Class, depth: usize) -> Option<(Polynomial, Expr)> {
    if class == x {
        return Some(([0.0, 1.0, 0.0, 0.0], x.into()));
    }
    if let Some(v) = number(view, class) {
        return Some(([v, 0.0, 0.0, 0.0], class.into()));
    }
    if depth == 0 || view.is_constant(class) {
        return None;
    }
    let of = |c: Class| polynomial(view, c, x, depth - 1);
    view.apps(class).iter().find_map(|app| {
        if let Some((kind, a, b)) = binary(app) {
            let ((p, left), (q, right)) = (of(a)?, of(b)?);
            let each = |f: fn(f64, f64) -> f64| std::array::from_fn(|i| f(p[i], q[i]));
            let value = match kind {
                BinaryKind::Add => each(|a, b| a + b),
                BinaryKind::Sub => each(|a, b| a - b),
                BinaryKind::Mul => product(p, q)?,
                BinaryKind::Div if q[1..] == [0.0; 3] => p.map(|c| c / q[0]),
                _ => return None,
            };
            return Some((value, Expr::of(app).with_operand(0, left).with_operand(1, right)));
        }
        match app.op {
            Op::Pow(_) => {
                let (p, base) = of(app.operand(0)?)?;
                let exponent = number(view, app.operand(1)?)?;
                let square = product(p, p)?;
                let value = match exponent {
                    2.0 => square,
                    3.0 => product(square, p)?,
                    _ => return None,
                };
                Some((value, Expr::of(app).with_operand(0, base)))
            }
            Op::Unary(u) if u.kind == UnaryKind::Neg => {
                let (p, inner) = of(app.operand(0)?)?;
                Some((p.map(|c| -c), Expr::of(app).with_operand(0, inner)))
            }
            _ => None,
        }
    })
}

/// A class as `scale * inner + shift`, where `read` understands the innermost class that it is not asked to look through.
fn line<T>(
    view: &dyn View,
    class: Class,
    depth: usize,
    read: &dyn Fn(Class) -> Option<(T, Expr)>,
) -> Option<(f64, f64, T, Expr)> {
    if let Some((value, term)) = read(class) {
        return Some((1.0, 0.0, value, term));
    }
    if depth == 0 || view.is_constant(class) {
        return None;
    }
    view.apps(class).iter().find_map(|app| {
        let (kind, a, b) = binary(app)?;
        let (n, inner, place) = match (number(view, a), number(view, b)) {
            (None, Some(n)) => (n, a, 0),
            (Some(n), None) => (n, b, 1),
            _ => return None,
        };
        let (scale, shift, value, term) = line(view, inner, depth - 1, read)?;
        let (scale, shift) = match (kind, place) {
            (BinaryKind::Add, _) => (scale, shift + n),
            (BinaryKind::Sub, 0) => (scale, shift - n),
            (BinaryKind::Sub, _) => (-scale, n - shift),
            (BinaryKind::Mul, _) => (scale * n, shift * n),
            (BinaryKind::Div, 0) => (scale / n, shift / n),
            _ => return None,
        };
        Some((scale, shift, value, Expr::of(app).with_operand(place, term)))
    })
}

/// A curve of a map `x`.
#[derive(Debug, Clone, Copy)]
enum Curve {
    /// `min(max(a x + b, 0), top)`.
    Bounded { a: f64, b: f64, top: f64 },
    /// `sigmoid(a x)`.
    Sigmoid { a: f64 },
    /// `tanh(softplus(x))`.
    TanhSoftplus,
    /// `erf(a x)`.
    Erf { a: f64 },
    /// `tanh(a x + c x^3)`.
    Tanh { a: f64, c: f64 },
}

/// A curve of `x` that a class holds, and the term that says so.
fn curve(view: &dyn View, class: Class, x: Class) -> Option<(Curve, Expr)> {
    if view.is_constant(class) {
        return None;
    }
    view.apps(class).iter().find_map(|app| {
        let inner = app.operand(0)?;
        let on = |term: Expr| Expr::of(app).with_operand(0, term);
        let in_x = || polynomial(view, inner, x, DEPTH);
        if let Op::Clip(_) = app.op {
            let (bounds, known) = bounds_of(view, app)?;
            let ([b, a, 0.0, 0.0], term) = in_x()? else { return None };
            let fits = known && bounds.lower == 0.0 && bounds.upper.is_finite();
            return fits.then(|| (Curve::Bounded { a, b, top: bounds.upper }, on(term)));
        }
        let (op, _) = unary(app)?;
        match op.kind {
            UnaryKind::HardSigmoid => {
                let ([b, a, 0.0, 0.0], term) = in_x()? else { return None };
                let (alpha, beta) = (f64::from(op.alpha?), f64::from(op.beta?));
                Some((Curve::Bounded { a: alpha * a, b: alpha * b + beta, top: 1.0 }, on(term)))
            }
            UnaryKind::Sigmoid => match in_x()? {
                ([0.0, a, 0.0, 0.0], term) => Some((Curve::Sigmoid { a }, on(term))),
                _ => None,
            },
            UnaryKind::Erf => match in_x()? {
                ([0.0, a, 0.0, 0.0], term) => Some((Curve::Erf { a }, on(term))),
                _ => None,
            },
            UnaryKind::Tanh => match in_x() {
                Some(([0.0, a, 0.0, c], term)) => Some((Curve::Tanh { a, c }, on(term))),
                _ => Some((Curve::TanhSoftplus, on(softplus(view, inner, x)?))),
            },
            _ => None,
        }
    })
}

/// The term of `ln(1 + exp(x))`, as one operator or as those that it says.
fn softplus(view: &dyn View, class: Class, x: Class) -> Option<Expr> {
    view.apps(class).iter().find_map(|app| {
        let (op, inner) = unary(app)?;
        match op.kind {
            UnaryKind::Softplus if inner == x => Some(Expr::of(app)),
            UnaryKind::Log => {
                let exp = |c: Class| {
                    let exps = view.apps(c);
                    let exp =
                        exps.iter().find(|e| unary(e).is_some_and(|(u, of)| u.kind == UnaryKind::Exp && of == x))?;
                    Some(((), Expr::of(exp)))
                };
                match line(view, inner, 1, &exp)? {
                    (1.0, 1.0, (), term) => Some(Expr::of(app).with_operand(0, term)),
                    _ => None,
                }
            }
            _ => None,
        }
    })
}

/// A class as a constant times several classes.
struct Factors {
    constant: f64,
    classes: Vec<Class>,
    term: Expr,
}

/// The readings of a class as a product of at most `most` classes, itself the first.
fn factors(view: &dyn View, class: Class, depth: usize, most: usize) -> Vec<Factors> {
    let mut out = vec![Factors { constant: 1.0, classes: vec![class], term: class.into() }];
    if depth == 0 {
        return out;
    }
    for app in view.apps(class) {
        let Some((kind, a, b)) = binary(&app) else { continue };
        let (scale, inner, place) = match (kind, number(view, a), number(view, b)) {
            (BinaryKind::Mul, None, Some(n)) => (n, a, 0),
            (BinaryKind::Mul, Some(n), None) => (n, b, 1),
            (BinaryKind::Div, None, Some(n)) => (1.0 / n, a, 0),
            (BinaryKind::Mul, None, None) if most > 1 => {
                for left in factors(view, a, depth - 1, 1) {
                    for right in factors(view, b, depth - 1, 1) {
                        let term = Expr::of(&app).with_operand(0, left.term.clone()).with_operand(1, right.term);
                        let classes = [left.classes.clone(), right.classes].concat();
                        out.push(Factors { constant: left.constant * right.constant, classes, term });
                    }
                }
                continue;
            }
            _ => continue,
        };
        out.extend(factors(view, inner, depth - 1, most).into_iter().map(|f| Factors {
            constant: scale * f.constant,
            classes: f.classes,
            term: Expr::of(&app).with_operand(place, f.term),
        }));
    }
    out
}

/// The term with `class` spelled out.
fn spelled(term: Expr, class: Class, by: &Expr) -> Expr {
    match term {
        Expr::Class(c) if c == class => by.clone(),
        Expr::Op(op, operands) => {
            Expr::Op(op, operands.into_iter().map(|o| o.map(|o| spelled(o, class, by))).collect())
        }
        other => other,
    }
}

/// A product that was read: `x * (scale * curve(x) + shift)`.
struct Gated {
    x: Class,
    scale: f64,
    shift: f64,
    curve: Curve,
    dtype: DType,
    /// Whether the product has the shape of x.
    same_shape: Option<bool>,
    term: Expr,
}

/// The readings of an application as a map times a curve of itself.
fn gated(view: &dyn View, class: Class, app: &App<'_>) -> Vec<Gated> {
    let mut out = Vec::new();
    // The first reading is the class itself.
    for f in factors(view, class, 3, 2).into_iter().skip(1) {
        let [p, q] = f.classes[..] else { continue };
        if !matches!(&f.term, Expr::Op(op, _) if **op == *app.op) {
            continue;
        }
        for (x, gate) in [(p, q), (q, p)] {
            let Some(dtype) = view.fact(x).map(|x| x.dtype) else { continue };
            if view.is_constant(x) {
                continue;
            }
            let same_shape = equal_shapes(view, x, class);
            let Some((scale, shift, curve, gate_term)) = line(view, gate, 3, &|c| curve(view, c, x)) else { continue };
            let (scale, shift) = (scale * f.constant, shift * f.constant);
            let term = spelled(f.term.clone(), gate, &gate_term);
            out.push(Gated { x, scale, shift, curve, dtype, same_shape, term });
        }
    }
    out
}

const CONSTANTS: Condition =
    Condition { name: "its-constants", text: "the constants are those of the function, as far as their type tells" };

const SAME_SHAPE: Condition = Condition {
    name: "same-shape",
    text: "the result has the shape of x, whatever the sizes: no constant adds an axis",
};

fn same_shape(answer: Option<bool>) -> Verdict {
    Verdict::from_answer(answer, || "a constant adds axes, or may".into())
}

/// Rewrites what `reading` takes for its function: the numbers found and wanted, and the operator.
fn recognise(cx: &mut Cx<'_>, class: Class, app: &App<'_>, reading: impl Fn(&Gated) -> Option<(Vec<(f64, f64)>, Op)>) {
    for g in gated(cx.view, class, app) {
        cx.begin();
        let Some((numbers, op)) = reading(&g) else { continue };
        let other = numbers.iter().find(|(found, want)| !near(*found, *want, g.dtype) && *found != *want);
        let verdict = match other {
            None => Verdict::Holds,
            Some((found, want)) => Verdict::Fails(format!("{found} stands where {want} would")),
        };
        if cx.require(CONSTANTS.name, verdict) && cx.require(SAME_SHAPE.name, same_shape(g.same_shape)) {
            cx.rewrite(g.term, Expr::op(op, vec![Some(g.x.into())]));
        }
    }
}

/// Sound by definition, whatever order the constants stand in, and with HardSigmoid in place of the Clip.
/// Requires: slope 1/6, middle 1/2, top 1.
/// Exactness: analytic (constants as the operator rounds them).
/// Pays: one pass over the map for four.
pub const HARD_SWISH: Rule = Rule {
    name: "hard-swish",
    equation: "product(x, HardSigmoid(x)) => HardSwish(x); \
               product(x, Clip(affine(x), ..)) => HardSwish(x) where it is x * clip(x + 3, 0, 6) / 6",
    conditions: &[CONSTANTS, SAME_SHAPE],
    exactness: Exactness::Analytic,
    types: Types::UP_TO_F32,
    pays: "one pass over the map for four",
    phase: Phase::Recognise,
    folds: false,
    proposals: None,
    roots: &["Mul", "Div"],
    search: |cx, class, app| {
        recognise(cx, class, app, |g| match g.curve {
            Curve::Bounded { a, b, top } => {
                let numbers = vec![(g.scale * top, 1.0), (g.scale * a, 1.0 / 6.0), (g.scale * b, 0.5), (g.shift, 0.0)];
                Some((numbers, Unary::new(UnaryKind::HardSwish).into()))
            }
            _ => None,
        });
    },
};

/// Sound by definition.
/// Requires: no other scale.
/// Exactness: analytic (a as the operator rounds it).
/// Pays: one pass over the map for two, where one operator is one pass; where it is written out, or slower than the two, the
/// cost leaves them.
pub const SWISH: Rule = Rule {
    name: "swish",
    equation: "product(x, Sigmoid(affine(x))) => Swish(x; alpha a) where it is x * sigmoid(a x)",
    conditions: &[CONSTANTS, SAME_SHAPE],
    exactness: Exactness::Analytic,
    types: Types::UP_TO_F32,
    pays: "one pass over the map for two",
    phase: Phase::Recognise,
    folds: false,
    proposals: None,
    roots: &["Mul", "Div"],
    search: |cx, class, app| {
        recognise(cx, class, app, |g| match g.curve {
            Curve::Sigmoid { a } => {
                let op = Unary { alpha: Some(a as f32), ..Unary::new(UnaryKind::Swish) };
                Some((vec![(g.scale, 1.0), (g.shift, 0.0)], op.into()))
            }
            _ => None,
        });
    },
};

/// Sound by definition; Softplus may be spelled out as a logarithm.
/// Requires: no other scale.
/// Exactness: analytic.
/// Pays: one pass over the map for three; the spelled-out logarithm stays where Softplus is slower than it.
pub const MISH: Rule = Rule {
    name: "mish",
    equation: "product(x, Tanh(softplus(x))) => Mish(x)",
    conditions: &[CONSTANTS, SAME_SHAPE],
    exactness: Exactness::Analytic,
    types: Types::FLOATS,
    pays: "one pass over the map for three",
    phase: Phase::Recognise,
    folds: false,
    proposals: None,
    roots: &["Mul", "Div"],
    search: |cx, class, app| {
        recognise(cx, class, app, |g| match g.curve {
            Curve::TanhSoftplus => Some((vec![(g.scale, 1.0), (g.shift, 0.0)], Unary::new(UnaryKind::Mish).into())),
            _ => None,
        });
    },
};

/// Sound by definition, whatever order the constants stand in and however the cube is spelled.
/// Requires: these constants.
/// Exactness: analytic (constants as the operator rounds them).
/// Pays: one pass over the map for five, or nine.
pub const GELU: Rule = Rule {
    name: "gelu",
    equation: "product(x, affine(Erf(affine(x)))) => Gelu(x; approximate none) where it is x * (1 + erf(x / sqrt 2)) / 2; \
               product(x, affine(Tanh(cubic(x)))) => Gelu(x; approximate tanh) where it is x * (1 + tanh(sqrt(2 / pi) (x + \
               0.044715 x^3))) / 2",
    conditions: &[CONSTANTS, SAME_SHAPE],
    exactness: Exactness::Analytic,
    types: Types::UP_TO_F32,
    pays: "one pass over the map for five, or nine",
    phase: Phase::Recognise,
    folds: false,
    proposals: None,
    roots: &["Mul", "Div"],
    search: |cx, class, app| {
        recognise(cx, class, app, |g| {
            let halves = [(g.scale, 0.5), (g.shift, 0.5)];
            let root = (2.0 / std::f64::consts::PI).sqrt();
            let (numbers, approximate) = match g.curve {
                Curve::Erf { a } => (vec![(a, std::f64::consts::FRAC_1_SQRT_2)], Approximate::None),
                Curve::Tanh { a, c } => (vec![(a, root), (c, 0.044_715 * root)], Approximate::Tanh),
                _ => return None,
            };
            Some((halves.into_iter().chain(numbers).collect(), Gelu { approximate }.into()))
        });
    },
};

/// Sound over the reals for a positive s: scaling commutes with bounds that are scaled.
/// Requires: bounds 0 and 1 once scaled; a scale behind the Clip, or a scale and shift before it that no convolution takes up.
/// Exactness: analytic (the slope and shift as the operator rounds them).
/// Pays: one pass over the map for three.
pub const HARD_SIGMOID: Rule = Rule {
    name: "hard-sigmoid",
    equation: "Clip(affine(x), ..) => HardSigmoid(x); \
               product(Clip(affine(x), ..)) => HardSigmoid(x) where it is clip(alpha x + beta, 0, 1)",
    conditions: &[CONSTANTS, SAME_SHAPE],
    exactness: Exactness::Analytic,
    types: Types::UP_TO_F32,
    pays: "one pass over the map for three",
    phase: Phase::Recognise,
    folds: false,
    proposals: None,
    roots: &["Clip", "Mul", "Div"],
    search: |cx, class, app| {
        let view = cx.view;
        let clip = |c: Class| {
            view.apps(c).into_iter().find_map(|app| {
                let Op::Clip(_) = app.op else { return None };
                let (bounds, known) = bounds_of(view, &app)?;
                let inner = app.operand(0)?;
                let (a, b, x, term) = whole_line(view, inner)?;
                (known && bounds.upper.is_finite()).then(|| {
                    let term = Expr::of(&app).with_operand(0, term);
                    ((bounds, a, b, x, x == inner), term)
                })
            })
        };
        let Some((scale, shift, (bounds, a, b, x, bare), term)) = line(view, class, 3, &clip) else { return };
        let Some(dtype) = view.fact(x).map(|x| x.dtype) else { return };
        let folds = ["Conv", "BatchNormalization", "Gemm", "MatMul"];
        let taken_up = bare || view.apps(x).iter().any(|a| folds.contains(&a.op.name()));
        if app.op.name() == "Clip" && taken_up {
            return;
        }
        let numbers = [(scale * bounds.upper + shift, 1.0), (bounds.lower, 0.0), (shift, 0.0)];
        let other = numbers.iter().find(|(found, want)| !near(*found, *want, dtype));
        let verdict = match other {
            None if scale > 0.0 => Verdict::Holds,
            None => Verdict::Fails("the scale is negative".into()),
            Some((found, want)) => Verdict::Fails(format!("{found} stands where {want} would")),
        };
        let same = same_shape(equal_shapes(view, x, class));
        if cx.require(CONSTANTS.name, verdict) && cx.require(SAME_SHAPE.name, same) {
            let (alpha, beta) = ((scale * a) as f32, (scale * b) as f32);
            let op = Unary { alpha: Some(alpha), beta: Some(beta), ..Unary::new(UnaryKind::HardSigmoid) };
            cx.rewrite(term, Expr::op(op, vec![Some(x.into())]));
        }
    },
};

/// A class as `a x + b`, where x is no such line itself.
fn whole_line(view: &dyn View, class: Class) -> Option<(f64, f64, Class, Expr)> {
    let is_line = |c: Class| line(view, c, 1, &|inner| (inner != c).then(|| ((), inner.into()))).is_some();
    line(view, class, DEPTH, &|c| (!is_line(c)).then(|| (c, c.into())))
}

/// The rules of this file.
pub const RULES: &[&Rule] = &[&HARD_SWISH, &SWISH, &MISH, &GELU, &HARD_SIGMOID];
