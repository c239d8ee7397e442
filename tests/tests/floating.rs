//! What `docs/floating-point.md` says, statement by statement: graphs run at their own types before and after rewriting.

use std::collections::BTreeMap;

use convc::{
    ir::{Graph, text::parse},
    lower::lower,
    rewrite::{Options, Rewritten, rewrite},
};
use convc_runtime::{
    Tensor,
    session::{Session, SessionOptions},
};
use convc_tests::{agree::bindings, oracle::random_inputs};

const CONV: &str = "auto_pad=\"NOTSET\", dilations=[1, 1], group=1, pads=[0, 0, 0, 0], strides=[1, 1]";
const CONV3: &str = "auto_pad=\"NOTSET\", dilations=[1, 1], group=1, pads=[1, 1, 1, 1], strides=[1, 1]";

fn run(graph: &Graph, inputs: &BTreeMap<String, Tensor>) -> Vec<Tensor> {
    let plan = lower(graph).expect("the graph can be lowered");
    let session = Session::new(plan.into(), SessionOptions::default()).expect("the plan is sound");
    session.run(inputs).expect("it runs")
}

/// Rewrites a graph and compares its outputs, at their own types, on random inputs that `change` has gone over.
fn check(text: &str, options: &Options, change: impl Fn(&str, &Tensor) -> Option<Tensor>) -> Rewritten {
    let graph = parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let rewritten = rewrite(graph.clone(), options).expect("it can be rewritten");
    for b in bindings(&graph, 1) {
        let mut inputs = random_inputs(&graph, &b, 1);
        for (name, t) in &mut inputs {
            if let Some(other) = change(name, t) {
                *t = other;
            }
        }
        for (before, after) in run(&graph, &inputs).iter().zip(&run(&rewritten.graph, &inputs)) {
            assert_eq!((before.dtype(), before.shape()), (after.dtype(), after.shape()), "{text}");
            match (before.to_f64s(), after.to_f64s()) {
                (Some(a), Some(b)) => {
                    let size = a.iter().filter(|x| x.is_finite()).fold(1e-30, |m: f64, x| m.max(x.abs()));
                    for (x, y) in a.iter().zip(&b) {
                        let equal = x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= 1e-4 * size;
                        assert!(equal, "{y:?}, not {x:?}\n{text}");
                    }
                }
                _ => assert_eq!(before.to_i64s(), after.to_i64s(), "{text}"),
            }
        }
    }
    rewritten
}

fn stopped(r: &Rewritten, rule: &str, condition: &str) {
    let found = r.not_fired.iter().any(|n| n.rule == rule && n.condition == condition);
    assert!(found, "{condition} does not stop {rule}: {:?}", r.not_fired);
}

fn fired(r: &Rewritten, rule: &str) {
    assert!(r.steps.iter().any(|s| s.rule == rule), "{rule} does not fire: {:?}", r.not_fired);
}

fn as_is(_: &str, _: &Tensor) -> Option<Tensor> {
    None
}

#[test]
fn means_of_integers_are_rounded() {
    let text = "graph(x: i32[1, 3, 4, 4]) {\n  c: i32[1] = [3]\n  a: i64[2] = [2, 3]\n  %1 = Mul(x, c)\n  \
                %2 = ReduceMean(%1, a) {keepdims=1, noop_with_empty_axes=0}\n  return %2 as y\n}\n";
    let r = check(text, &Options::default(), as_is);
    stopped(&r, "mean-of-scaled", "element-type");
}

#[test]
fn constants_of_the_model_are_folded_at_its_types() {
    for (to, values) in [
        ("f16", "[70000.0, 65520.0, 65519.0, 1e-8, 1.0]"),
        ("bf16", "[3.4e38, 1.00390625, 1e-40, 65519.0, 1.0]"),
        ("i8", "[1.5, -1.5, 100.0, -128.0, 0.0]"),
        ("i32", "[1.5, -1.5, 16777217.0, 0.99, 2147483500.0]"),
    ] {
        let text = format!(
            "graph(x: f32[5]) {{\n  a: f32[5] = {values}\n  %1 = Cast(a) {{to=\"{to}\"}}\n  \
             %2 = Cast(%1) {{to=\"f32\"}}\n  %3 = Add(x, %2)\n  return %3 as y\n}}\n"
        );
        let r = check(&text, &Options::default(), as_is);
        assert_eq!(r.graph.nodes().iter().filter(|n| r.graph.node(**n).op().is_some()).count(), 1, "{text}");
    }
    // What a number beyond an integer type becomes is not said: the Cast stays.
    let text = "graph(x: i32[2]) {\n  a: f32[2] = [1.0, 3e9]\n  %1 = Cast(a) {to=\"i32\"}\n  %2 = Add(x, %1)\n  \
                return %2 as y\n}\n";
    let r = check(text, &Options::default(), as_is);
    assert!(r.graph.nodes().iter().any(|n| r.graph.node(*n).kind.name() == "Cast"));
    let text = "graph(x: f32[1]) {\n  a: f32[1] = [1e30]\n  %1 = Mul(a, a)\n  %2 = Div(%1, a)\n  %3 = Add(x, %2)\n  \
                return %3 as y\n}\n";
    check(text, &Options::default(), as_is);
}

#[test]
fn weights_stay_finite_and_large_factors_apart() {
    let body = |k: &str, rest: &str| {
        format!(
            "graph(x: f32[1, 2, 4, 4]) {{\n  k: f32[2, 2, 1, 1] = [{k}, {k}, 1.0, {k}]\n  s: f32[] = [1e30]\n  \
             t: f32[] = [1e-30]\n{rest}  return %9 as y\n}}\n"
        )
    };
    let chain = format!("  %1 = Conv(x, k) {{{CONV}}}\n  %2 = Mul(%1, s)\n  %9 = Mul(%2, t)\n");
    let r = check(&body("1e30", &chain), &Options::default(), as_is);
    stopped(&r, "scale-as-conv", "finite-weights");
    let before = format!("  %1 = Mul(x, s)\n  %9 = Conv(%1, k) {{{CONV}}}\n");
    check(&body("1e30", &before), &Options::default(), as_is);
    let r = check(
        &body("1e-30", &format!("  %1 = Conv(x, k) {{{CONV}}}\n  %9 = Mul(%1, t)\n")),
        &Options::default(),
        as_is,
    );
    assert!(r.steps.iter().all(|s| s.rule != "conv-compose") || !r.not_fired.is_empty());
    let bn = format!(
        "graph(x: f32[1, 2, 4, 4]) {{\n  k: f32[2, 2, 1, 1] = [1e35, 1e35, 2e34, 3e34]\n  g: f32[2] = [9000.0, 9000.0]\n  \
         b: f32[2] = [0.5, -0.5]\n  m: f32[2] = [0.5, 0.5]\n  v: f32[2] = [1.0, 1.0]\n  %1 = Conv(x, k) {{{CONV}}}\n  \
         %2 = BatchNormalization(%1, g, b, m, v) {{epsilon=1e-5}}\n  return %2 as y\n}}\n"
    );
    let r = check(&bn, &Options::default(), as_is);
    stopped(&r, "conv-compose", "finite-weights");
    // A bias that is an infinity is moved, and computed with by no rule.
    let text = format!(
        "graph(x: f32[1, 2, 4, 4]) {{\n  w: f32[2, 2, 1, 1] = random(1)\n  b: f32[2] = [inf, 1.0]\n  v: f32[2, 2, 1, 1] = \
         [0.0, 1.0, 1.0, 1.0]\n  %1 = Conv(x, w, b) {{{CONV}}}\n  %2 = Conv(%1, v) {{{CONV}}}\n  return %2 as y\n}}\n"
    );
    let r = check(&text, &Options::default(), as_is);
    stopped(&r, "conv-compose", "finite-weights");
}

/// An infinity as one element of the channel.
fn infinity(t: &Tensor, at: usize) -> Option<Tensor> {
    let mut v = t.to_f64s()?;
    *v.get_mut(at)? = f64::INFINITY;
    Some(Tensor::new(t.shape(), v).ok()?.rounded_to(t.dtype()))
}

#[test]
fn elements_that_are_not_read_may_be_infinite() {
    let slice = "  s: i64[1] = [0]\n  e: i64[1] = [2]\n  a: i64[1] = [1]\n";
    let text = format!(
        "graph(x: f32[1, 4, 6, 6]) {{\n  w: f32[3, 2, 3, 3] = random(1)\n{slice}  %1 = Slice(x, s, e, a)\n  \
         %2 = Conv(%1, w) {{{CONV3}}}\n  return %2 as y\n}}\n"
    );
    let r = check(&text, &Options::default(), |_, t| infinity(t, 2 * 36 + 14));
    stopped(&r, "slice-in", "finite-elements");
    // What Log makes of 0 is minus infinity, which a 1x1 kernel in a 3x3 window must not see.
    let text = format!(
        "graph(x: f32[1, 2, 6, 6]) {{\n  w: f32[2, 2, 1, 1] = random(1)\n  v: f32[2, 2, 3, 3] = random(2)\n  %0 = Abs(x)\n  \
         %1 = Log(%0)\n  %2 = Conv(%1, w) {{{CONV}}}\n  %3 = Conv(%1, v) {{{CONV3}}}\n  %4 = Concat(%2, %3) {{axis=1}}\n  \
         return %4 as y\n}}\n"
    );
    let options = Options { only: vec!["cat-out".into()], ..Options::default() };
    let r = check(&text, &options, |_, t| {
        let mut v = t.to_f64s()?;
        v[14] = 0.0;
        Some(Tensor::new(t.shape(), v).ok()?.rounded_to(t.dtype()))
    });
    stopped(&r, "cat-out", "finite-elements");
}

#[test]
fn no_operator_comes_at_a_type_that_nobody_executes() {
    let text = "graph(x: f64[2, 3, 5, 5]) {\n  s: f64[3, 1, 1] = [-0.25, 0.5, 0.125]\n  t: f64[3, 1, 1] = [1.5, 0.5, 0.75]\n  \
                g: f64[3] = [0.5, -0.25, -0.5]\n  v: f64[3] = [1.25, 1.0, 0.75]\n  %1 = Mul(x, s)\n  %2 = Add(%1, t)\n  \
                %3 = BatchNormalization(%2, g, g, g, v) {epsilon=1e-5}\n  return %3 as y\n}\n";
    let for_onnx = Options { opset: Some(17), ..Options::default() };
    let r = check(text, &for_onnx, as_is);
    stopped(&r, "bn-as-conv", "is-executed");
    fired(&check(text, &Options::default(), as_is), "bn-as-conv");
    fired(&check(&text.replace("f64", "f32"), &for_onnx, as_is), "bn-as-conv");
}
