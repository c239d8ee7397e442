//! Saturated regions, member by member, and whole rewrites with every rule.

use convc::{
    ir::{
        Graph,
        text::{parse, print},
    },
    rewrite::{Options, audit::audit, rewrite},
};
use convc_runtime::Real;
use convc_tests::{
    agree::{agree, bindings},
    blocks::BLOCKS,
    filetests, oracle,
    random::Rng,
    subjects::{Numbers, SUBJECTS},
};

fn problems(name: &str, graph: &Graph, real: Real) -> (usize, Vec<String>) {
    let mut nodes = 0;
    let mut out = Vec::new();
    // The last sizes are large enough for every window.
    for b in bindings(graph, 3).into_iter().rev().take(2) {
        if oracle::run::<f64>(graph, &oracle::random_inputs(graph, &b, 1)).is_err() {
            continue;
        }
        let audit = audit(graph.clone(), &Options::default(), &b, real).unwrap_or_else(|e| panic!("{name}: {e}"));
        nodes += audit.nodes;
        out.extend(audit.problems.into_iter().map(|p| format!("{name} with {b:?}: {p}")));
    }
    (nodes, out)
}

#[test]
fn members_of_a_class_agree() {
    let mut nodes = 0;
    let mut all = Vec::new();
    let blocks = BLOCKS.iter().map(|(name, text)| ((*name).to_owned(), parse(text).unwrap()));
    let goldens = filetests::all().into_iter().map(|t| (t.path.display().to_string(), t.graph));
    for (name, graph) in blocks.chain(goldens) {
        // Means have constants that are no dyadic fractions, and a maximum of maxima is one only among numbers with an order.
        let ordered = ["AveragePool", "MaxPool"].iter().any(|op| print(&graph).contains(op));
        let real = if ordered { Real::F64 } else { Real::Field };
        let (n, problems) = problems(&name, &graph, real);
        nodes += n;
        all.extend(problems);
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
    assert!(nodes > 2000, "only {nodes} e-nodes were evaluated");
}

#[test]
fn an_audit_finds_what_a_forced_condition_breaks() {
    let golden = filetests::all();
    let chain = golden.iter().find(|t| t.path.ends_with("conv-compose-border-exact.cir")).unwrap();
    let options = Options { forced: Some(("conv-compose", "border-exact")), ..Options::default() };
    let b = bindings(&chain.graph, 3).pop().unwrap();
    let found = audit(chain.graph.clone(), &options, &b, Real::Field).unwrap();
    assert!(found.problems.iter().any(|p| p.contains("differs")), "{:?}", found.problems);
}

/// Every left side with all rules on, as a model would meet them.
#[test]
fn random_graphs_are_rewritten_by_all_rules() {
    let cases = std::env::var("CONVC_CASES").ok().and_then(|n| n.parse::<u64>().ok()).unwrap_or(200) / 4;
    for (k, subject) in SUBJECTS.iter().enumerate() {
        let real = if subject.numbers == Numbers::Field { Real::Field } else { Real::F64 };
        for seed in 0..cases {
            // Weights that are computed are rounded to their type: 16 bits would hide what is compared here.
            let text = (subject.generate)(&mut Rng::new(seed + 1_000_000 * k as u64))
                .replace("bf16", "f32")
                .replace("f16", "f32");
            let Ok(graph) = parse(&text) else { continue };
            let rewritten = rewrite(graph.clone(), &Options::default()).unwrap_or_else(|e| panic!("{e}\n{text}"));
            assert!(rewritten.ill_typed.is_empty(), "{:?}\n{text}", rewritten.ill_typed);
            agree::<f64>(&graph, &rewritten.graph, seed, 1e-5)
                .unwrap_or_else(|e| panic!("{e}\n{text}becomes\n{}", print(&rewritten.graph)));
            let (_, problems) = problems(&text, &graph, real);
            assert!(problems.is_empty(), "{}", problems.join("\n"));
        }
    }
}

/// The conditions that guard against rounding and infinities are needed where numbers are rounded.
#[test]
fn rounding_conditions_are_needed() {
    let cases = [
        // x - m cancels before it is scaled up; scaled first and rounded, the digits are lost.
        (
            ("bn-as-conv", "scale-is-sane"),
            r#"graph(x: f32[N, 2, H, W]) {
  w: f32[2, 2, 1, 1] = [0.0009765625, 0.0, 0.0, 0.0009765625]
  b: f32[2] = [8.1, 8.1]
  v: f32[2, 2, 1, 1] = [0.3, 0.0, 0.0, 0.7]
  gamma: f32[2] = [1.0, 1.0]
  beta: f32[2] = [0.0, 0.0]
  mean: f32[2] = [8.1, 8.1]
  var: f32[2] = [0.0, 0.0]
  %1 = Conv(x, w, b) {auto_pad="NOTSET", dilations=[1, 1], group=1, pads=[0, 0, 0, 0], strides=[1, 1]}
  %2 = Relu(%1)
  %3 = BatchNormalization(%2, gamma, beta, mean, var) {epsilon=1e-15}
  %4 = Conv(%3, v) {auto_pad="NOTSET", dilations=[1, 1], group=1, pads=[0, 0, 0, 0], strides=[1, 1]}
  return %4 as y
}"#,
        ),
    ];
    for (forced, text) in cases {
        let graph = parse(text).unwrap();
        let sound = rewrite(graph.clone(), &Options::default()).unwrap();
        assert!(sound.not_fired.iter().any(|m| m.rule == forced.0 && m.condition == forced.1), "{forced:?}");
        assert!(agree::<f64>(&graph, &sound.graph, 1, 1e-5).unwrap() > 0);
        let broken = rewrite(graph.clone(), &Options { forced: Some(forced), ..Options::default() }).unwrap();
        let wrong = agree::<f64>(&graph, &broken.graph, 1, 1e-5);
        assert!(wrong.is_err(), "{forced:?} is forced and nothing breaks:\n{}", print(&broken.graph));
    }
}

/// 1 / s is infinite in the first channel, and times the zeros of a merged kernel no number in the second. The condition on
/// the scale keeps it out; where that does not hold, the bound on weights does.
#[test]
fn an_infinite_scale_is_kept_out_twice() {
    let text = r#"graph(x: f32[N, 2, H, W]) {
  w: f32[2, 2, 1, 1] = random(1)
  s: f32[2, 1, 1] = [1e-39, 2.0]
  %1 = Conv(x, w) {auto_pad="NOTSET", dilations=[1, 1], group=1, pads=[0, 0, 0, 0], strides=[1, 1]}
  %2 = Div(x, s)
  %3 = Add(%1, %2)
  return %3 as y
}"#;
    let graph = parse(text).unwrap();
    let scale = ("scale-as-conv", "finite-scale");
    for forced in [None, Some(scale)] {
        let rewritten = rewrite(graph.clone(), &Options { forced, ..Options::default() }).unwrap();
        let missed = rewritten.not_fired.iter().any(|m| (m.rule.as_str(), m.condition.as_str()) == scale);
        assert_eq!(missed, forced.is_none());
        assert!(agree::<f64>(&graph, &rewritten.graph, 1, 1e-5).unwrap() > 0);
    }
}

/// The floor of 10 * 0.7 is 7 in f32 and 6 in f64: folding gives what the model's own run gives.
#[test]
fn folding_keeps_the_side_of_a_step() {
    let text = r#"graph(x: f32[N]) {
  ten: f32[1] = [10.0]
  scale: f32[1] = [0.7]
  %1 = Mul(ten, scale)
  %2 = Floor(%1)
  %3 = Cast(%1) {to="i64"}
  %4 = Cast(%3) {to="f32"}
  %5 = Add(x, %2)
  %6 = Mul(%5, %4)
  return %6 as y
}"#;
    let rewritten = rewrite(parse(text).unwrap(), &Options::default()).unwrap();
    let text = print(&rewritten.graph);
    assert_eq!(text.matches("= [7.0]").count(), text.matches("f32[1] =").count(), "{text}");
}
