//! Every operator of domain `ai.convc` that a golden recognises is recognised again in its own definition.

use std::collections::BTreeSet;

use convc::{
    ir::Graph,
    ops::{newer_operators::introduced, primitives::is_system},
    rewrite::{Dialect, Options, rewrite, rule::Phase, rules},
};
use convc_runtime::Op;
use convc_tests::{agree::agree, filetests};

/// Rules that do not read their own operator's definition.
const ONE_WAY: &[&str] = &["involution"];

/// The operators of domain `ai.convc` in a graph.
fn systems(graph: &Graph) -> Vec<Op> {
    let ops = graph.topological().into_iter().filter_map(|id| graph.node(id).op().cloned());
    ops.filter(is_system).collect()
}

fn recognises(rule: &str) -> bool {
    rules::find(rule).is_some_and(|r| r.phase == Phase::Recognise) && !ONE_WAY.contains(&rule)
}

#[test]
fn definitions_are_recognised() {
    // Exploring may find something better than the operator.
    let settles = |r: &str| rules::find(r).is_some_and(|r| r.phase != Phase::Explore);
    let all: Vec<String> = rules::all().iter().map(|r| r.name.to_owned()).filter(|r| settles(r)).collect();
    let mut tried = BTreeSet::new();
    for t in filetests::all().iter().filter(|t| t.fired().iter().any(|r| recognises(r))) {
        let name = t.path.display();
        let kept = t.rewrite().unwrap_or_else(|e| panic!("{name}: {e}"));
        let found = systems(&kept.graph);
        // What comes of a rule may be an operator of ONNX's own.
        if found.is_empty() {
            continue;
        }
        tried.extend(t.fired().into_iter().filter(|r| recognises(r)).map(str::to_owned));
        let own: Vec<String> = t.only.iter().filter(|r| settles(r)).cloned().collect();
        for only in [&own, &all] {
            let with = |dialect| Options { dialect, only: only.clone(), ..Options::default() };
            let written = rewrite(kept.graph.clone(), &with(Dialect::Onnx)).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(systems(&written.graph), [], "{name}: not written out: {:?}", written.kept);
            match agree::<f64>(&kept.graph, &written.graph, 1, 1e-9) {
                Ok(0) => panic!("{name}: it runs on none of the sizes tried"),
                Ok(_) => {}
                Err(e) => panic!("{name}: the definition computes something else: {e}"),
            }
            let again = rewrite(written.graph, &with(Dialect::Convc)).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(systems(&again.graph), found, "{name}: with rules {only:?}");
        }
    }
    let least = [
        "ghost-module",
        "sc-conv",
        "split-attention",
        "mixed-conv-groups",
        "mixed-conv-experts",
        "mixed-conv-samples",
        "mixed-linear",
    ];
    assert!(tried.is_superset(&BTreeSet::from(least.map(str::to_owned))), "{tried:?}");
}

#[test]
fn late_operators_are_written_out_where_the_operator_set_lacks_them() {
    let late = |g: &Graph| -> Vec<String> {
        let ops = g.nodes().into_iter().filter_map(|id| g.node(id).op().filter(|op| introduced(op).is_some()));
        let mut names: Vec<String> = ops.map(|op| format!("{op:?}")).collect();
        names.sort();
        names
    };
    for rule in ["hard-swish", "swish", "mish", "gelu"] {
        let golden = filetests::all().into_iter().find(|t| t.path.ends_with(format!("activation/{rule}.cir"))).unwrap();
        let kept = golden.rewrite().unwrap();
        let found = late(&kept.graph);
        assert!(!found.is_empty(), "{rule}");
        let with = |opset, dialect| Options { opset: Some(opset), dialect, ..Options::default() };
        for dialect in [Dialect::Onnx, Dialect::Convc] {
            let written = rewrite(kept.graph.clone(), &with(13, dialect)).unwrap();
            assert_eq!(late(&written.graph), [""; 0], "{rule}");
            assert!(written.steps.iter().all(|s| s.rule == rule), "{rule}: {:?}", written.steps);
            assert!(agree::<f64>(&kept.graph, &written.graph, 1, 1e-6).unwrap() > 0);
            let again = rewrite(written.graph, &with(24, Dialect::Convc)).unwrap();
            assert_eq!(late(&again.graph), found, "{rule}");
            assert_eq!(late(&rewrite(kept.graph.clone(), &with(24, dialect)).unwrap().graph), found, "{rule}");
        }
    }
}
