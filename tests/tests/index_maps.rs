//! Rules that read index maps, on index arithmetic that turns at some size: whatever fires is right at sizes around every number of
//! the model, none of which the rule has seen.
//!
//! `CONVC_CASES` sets how many graphs are tried, 400 if it is not given.

use convc::{
    ir::text::{parse, print},
    lower::lower,
    rewrite::rules as registry,
};
use convc_runtime::{
    Bindings,
    session::{Session, SessionOptions},
};
use convc_tests::{
    oracle::{self, Array, Number},
    random::{self, Rng},
    rules::apply,
};

#[test]
fn what_turns_at_some_size_is_not_recognised() {
    let cases: u64 = std::env::var("CONVC_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400);
    let rules = ["blocks-as-space-to-depth", "involution"].map(|name| registry::find(name).expect("it is registered"));
    let options = || SessionOptions { real: f64::REAL, ..SessionOptions::default() };
    let (mut fired, mut tried) = ([0, 0], 0);
    for seed in 0..cases {
        let random::Turning { text, sizes } = random::turning(&mut Rng::new(seed));
        let graph = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let before = Session::new(lower(&graph).unwrap().into(), options()).unwrap();
        for (rule, fired) in rules.iter().zip(&mut fired) {
            for rewrite in apply(&graph, rule, None).0 {
                *fired += 1;
                let rewritten = rewrite.graph.unwrap_or_else(|e| panic!("{}: ill-typed: {e}\n{text}", rule.name));
                let after = Session::new(lower(&rewritten).unwrap().into(), options()).unwrap();
                for &h in &sizes {
                    let inputs = oracle::random_inputs(&graph, &Bindings::from([("H".into(), h)]), seed);
                    let Ok(expected) = before.run(&inputs) else { continue };
                    let expected: Vec<Array<f64>> = expected.iter().map(oracle::read).collect();
                    let found = after.run(&inputs).unwrap_or_else(|e| panic!("{} at H = {h}: {e}\n{text}", rule.name));
                    oracle::compare(&expected, &found, 1e-12).unwrap_or_else(|e| {
                        panic!("{} at H = {h}: {e}\n{text}becomes\n{}", rule.name, print(&rewritten))
                    });
                    tried += 1;
                }
            }
        }
    }
    println!("{fired:?} fired of {cases} graphs, {tried} sizes");
    assert!(fired.iter().all(|n| *n * 20 > cases), "the plain forms are not recognised: {fired:?} of {cases}");
}
