//! What verification looks at, and that it finds what is wrong.

use super::{
    sizes::{around, corners, open_sizes},
    *,
};
use crate::{
    ir::text::parse,
    rewrite::{Options, rewrite},
};

fn request() -> Request {
    Request { threads: 2, ..Request::default() }
}

/// Verifies what the rules make of a graph if a condition counts as holding that does not.
fn forced(text: &str, rule: &'static str, condition: &'static str) -> Result<Report, VerifyError> {
    let graph = parse(text).unwrap();
    let options = Options { forced: Some((rule, condition)), ..Options::default() };
    let rewritten = rewrite(graph.clone(), &options).unwrap();
    assert!(rewritten.steps.iter().any(|s| s.rule == rule), "{rule} fires when {condition} is forced");
    verify_request(&graph, &rewritten, &request())
}

const INTEGER_MEAN: &str = "graph(x: i32[1, 3, 4, 4]) {
  c: i32[1] = [3]
  axes: i64[2] = [2, 3]
  t = Mul(x, c)
  y = ReduceMean(t, axes) {keepdims=1, noop_with_empty_axes=0}
  return y as y
}";

#[test]
fn an_integer_mean_of_a_product_is_found() {
    let found = forced(INTEGER_MEAN, "mean-of-scaled", "element-type");
    assert!(matches!(found, Err(VerifyError::Region { .. } | VerifyError::Output { .. })), "{found:?}");
}

#[test]
fn corners_are_numbers_of_shape_arithmetic_and_what_reaches_them() {
    let graph = parse(
        "graph(x: f32[N, 3, H]) {
  start: i64[1] = [0]
  end: i64[1] = [200]
  axis: i64[1] = [2]
  pads: i64[2] = [2, 2]
  up = Concat(x, x) {axis=2}
  y = Slice(up, start, end, axis)
  return y as y
}",
    )
    .unwrap();
    let open = open_sizes(&graph, &BTreeSet::new());
    assert_eq!(open.iter().map(|o| (&*o.symbol, o.batch)).collect::<Vec<_>>(), [("H", false), ("N", true)]);
    let nominal = [("N".into(), 2), ("H".into(), 64)].into();
    let found = corners(&graph, &open, &nominal);
    assert!(found.contains(&200) && found.contains(&100), "{found:?}");
    let bindings = around(100, &open, &nominal);
    let sizes: BTreeSet<i64> = bindings.iter().map(|b| b["H"]).collect();
    assert!([99, 100, 101].iter().all(|n| sizes.contains(n)), "{bindings:?}");
    assert!(bindings.iter().any(|b| b["N"] == 2 && b["H"] == 99));
    assert!([99, 100, 101].iter().all(|n| bindings.iter().any(|b| b["N"] == *n)));
}

/// A rewritten graph that is right up to a size only.
fn right_up_to(limit: usize) -> (Graph, Rewritten) {
    let text = |body: &str| format!("graph(x: f32[N, H]) {{\n{body}\n  return y as y\n}}");
    let sliced = text(&format!(
        "  start: i64[1] = [0]\n  end: i64[1] = [{limit}]\n  axis: i64[1] = [1]\n  s = Slice(x, start, end, axis)\n  y = Relu(s)"
    ));
    let graph = parse(&sliced).unwrap();
    let mut rewritten = rewrite(graph.clone(), &Options::default()).unwrap();
    rewritten.graph = parse(&text("  y = Relu(x)")).unwrap();
    (graph, rewritten)
}

#[test]
fn a_rewrite_that_is_right_up_to_a_size_only_is_found() {
    for limit in [65, 100, 200, 333, 1000] {
        let (graph, rewritten) = right_up_to(limit);
        let found = verify_request(&graph, &rewritten, &request());
        assert!(matches!(found, Err(VerifyError::At { .. })), "{limit}: {found:?}");
    }
}

#[test]
fn an_overflow_that_is_gone_is_found() {
    let text = |body: &str| {
        format!(
            "graph(x: f32[1, 64]) {{\n  a: f32[1] = [1e38]\n  b: f32[1] = [100.0]\n  c: f32[1] = [1e-38]\n{body}\n  return y as y\n}}"
        )
    };
    let verified = |before: &str, after: &str| {
        let graph = parse(&text(before)).unwrap();
        let mut rewritten = rewrite(graph.clone(), &Options::default()).unwrap();
        rewritten.graph = parse(&text(after)).unwrap();
        verify_request(&graph, &rewritten, &request())
    };
    let (overflows, finite) = ("  t = Mul(x, a)\n  u = Mul(t, b)\n  y = Mul(u, c)", "  y = Mul(x, b)");
    // In f64 they are equal, since nothing overflows there.
    for (before, after) in [(overflows, finite), (finite, overflows)] {
        let found = verified(before, after);
        assert!(matches!(found, Err(VerifyError::Output { .. })), "{found:?}");
    }
}

#[test]
fn the_report_says_at_which_sizes() {
    let graph = parse("graph(x: f32[N, 3, H, W]) {\n  y = Relu(x)\n  return y as y\n}").unwrap();
    let rewritten = rewrite(graph.clone(), &Options::default()).unwrap();
    let report = verify_request(&graph, &rewritten, &request()).unwrap();
    let nominal = report.bindings.first().unwrap();
    assert_eq!((nominal.why.as_str(), nominal.sizes["N"]), ("nominal", 2));
    assert!(report.bindings.iter().any(|b| b.why.starts_with("drawn") && b.skipped.is_none() && b.sizes["N"] >= 2));
    let other = verify_request(&graph, &rewritten, &Request { seed: 7, ..request() }).unwrap();
    assert_ne!(other.bindings.last().unwrap().sizes, report.bindings.last().unwrap().sizes);
}

#[test]
fn integers_that_index_are_in_range_and_others_are_not_all_0() {
    let text = "graph(x: f32[5, 3], i: i64[4], k: i64[4], n: i64[1], b: bool[1]) {
  g = Gather(x, i) {axis=0}
  c = Cast(k) {to=\"f32\"}
  shift: i64[1] = [1]
  m = Sub(n, shift)
  one: f32[1] = ones
  t = Expand(one, m)
  w = Where(b, g, g)
  return w as w, c as c, t as t
}";
    let Ok(graph) = parse(text) else { panic!("{:?}", parse(text).err()) };
    let request = request();
    let cases = Cases::new(&graph, &request);
    let sizes = cases.nominal().remove(0);
    let inputs = cases.inputs(&sizes, 0).unwrap();
    let ints = |name: &str| inputs[name].to_i64s().unwrap();
    assert!(ints("i").iter().all(|v| (0..5).contains(v)) && ints("i").iter().any(|v| *v != 0));
    assert!(ints("k").iter().any(|v| v % 2 != 0));
    assert!((1..=3).contains(&ints("n")[0]));
    let (others, _) = cases.others(&sizes.bindings);
    let flipped = cases.inputs(&others[0], 0).unwrap();
    assert_ne!(flipped["b"], inputs["b"], "a boolean that is alone takes both values");
}
