//! Runs the goldens of `filetests/rewrite`: what rewriting gives is what is blessed, and computes what the graph above computes.

use convc::rewrite::{rule::Exactness, rules};
use convc_tests::{
    agree::{agree, bindings},
    filetests, oracle,
};

const COMMAND: &str = "CONVC_BLESS=1 cargo test -p convc-tests --test filetests";

#[test]
fn goldens() {
    let bless = std::env::var("CONVC_BLESS").is_ok_and(|v| v == "1");
    let mut problems = Vec::new();
    let tests = filetests::all();
    assert!(!tests.is_empty());
    for t in &tests {
        let name = t.path.display();
        let rewritten = match t.rewrite() {
            Ok(r) => r,
            Err(e) => {
                problems.push(format!("{name}: {e}"));
                continue;
            }
        };
        // Folded constants are rounded once, and so are those of an operator that is recognised.
        let analytic = |rule: &str| rules::find(rule).is_some_and(|r| r.exactness == Exactness::Analytic);
        let folded =
            rewritten.steps.iter().any(|s| s.rule == "fold-constants" || s.rule == "fold-weights" || analytic(&s.rule));
        match agree::<f64>(&t.graph, &rewritten.graph, 1, if folded { 1e-5 } else { 1e-9 }) {
            Ok(0) => {
                let why = bindings(&t.graph, 1)
                    .iter()
                    .find_map(|b| oracle::run::<f64>(&t.graph, &oracle::random_inputs(&t.graph, b, 1)).err());
                problems.push(format!("{name}: it runs on none of the sizes tried: {}", why.unwrap_or_default()));
            }
            Ok(_) => {}
            Err(e) => problems.push(format!("{name}: the rewritten graph computes something else: {e}")),
        }
        let outcome = t.outcome(&rewritten);
        if outcome != t.blessed {
            if bless {
                t.bless(&outcome).unwrap_or_else(|e| panic!("{name}: {e}"));
            } else {
                problems.push(format!("{name}: rewriting gives\n{outcome}which is not\n{}", t.blessed));
            }
        }
    }
    assert!(
        problems.is_empty(),
        "{}\n{} of {} goldens failed. To accept what rewriting gives, run\n  {COMMAND}\nand read every change.",
        problems.join("\n"),
        problems.len(),
        tests.len()
    );
}
