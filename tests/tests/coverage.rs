//! Every registered rule has a text, a golden in which it fires, and for each of its conditions one in which that stops it. The
//! conditions that all rules have are seen to stop them too, and to be needed.

use std::collections::BTreeSet;

use convc::{
    ir::{Graph, Value},
    rewrite::{
        rule::{EXECUTED, FINITE_WEIGHTS, Rule},
        rules,
        types::Types,
    },
};
use convc_runtime::DType;
use convc_tests::{
    agree::agree,
    filetests::{self, FileTest},
    rules::apply,
    subjects::SUBJECTS,
    types,
};

/// What a rule still lacks.
fn lacks(rule: &Rule, goldens: &[FileTest]) -> Vec<String> {
    let mut out = Vec::new();
    if [rule.name, rule.equation, rule.pays].iter().any(|t| t.trim().is_empty()) || !rule.equation.contains("=>") {
        out.push("a name, an equation `left => right` and what it pays".to_owned());
    }
    if rule.roots.is_empty() {
        out.push("an operator at its root".to_owned());
    }
    let named = |t: &&FileTest| {
        let stem = t.path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        let rest = stem.strip_prefix(rule.name);
        rest.is_some_and(|r| r.is_empty() || r.starts_with('-'))
    };
    if !goldens.iter().filter(named).any(|t| t.fired().contains(rule.name)) {
        out.push(format!("a golden filetests/rewrite/<family>/{}*.cir in which it fires", rule.name));
    }
    for c in rule.conditions {
        if c.text.trim().is_empty() {
            out.push(format!("a text of condition {}", c.name));
        }
        let stops = |t: &FileTest| t.not_fired().contains(&(rule.name, c.name)) && !t.fired().contains(rule.name);
        if !goldens.iter().any(stops) {
            out.push(format!("a golden with `not-fired: {}: {}: ..` in which it does not fire", rule.name, c.name));
        }
    }
    let names: BTreeSet<&str> = rule.conditions.iter().map(|c| c.name).collect();
    if names.len() != rule.conditions.len() {
        out.push("names for its conditions that differ".to_owned());
    }
    out
}

#[test]
fn every_rule_has_its_goldens() {
    let goldens = filetests::all();
    let all = rules::all();
    let lacking: Vec<String> = all
        .iter()
        .flat_map(|r| lacks(r, &goldens).into_iter().map(move |what| format!("{} lacks {what}", r.name)))
        .collect();
    assert!(lacking.is_empty(), "{}", lacking.join("\n"));
    let names: BTreeSet<&str> = all.iter().map(|r| r.name).collect();
    assert_eq!(names.len(), all.len(), "two rules share a name");
}

#[test]
fn goldens_name_rules_that_exist() {
    for t in filetests::all() {
        assert!(!t.only.is_empty(), "{}: `only:` names no rule", t.path.display());
        for name in &t.only {
            assert!(rules::find(name).is_some(), "{}: there is no rule {name}", t.path.display());
        }
    }
}

/// Rules that are right at more types than they declare, and why these are left out.
const NARROW: &[(&str, &str)] = &[
    ("clip-clip", "bounds are read as f64, which does not hold every i64"),
    ("blocks-as-space-to-depth", "index arithmetic is left as it is, for the rules that read it"),
];

/// At a type outside of those that a rule declares it says that the type stops it, and where operators exist at that type, it is
/// wrong there or has no right side.
#[test]
fn every_rule_stops_outside_its_types() {
    let mut problems = Vec::new();
    for s in SUBJECTS {
        let rule = rules::find(s.rule).expect("the rule is registered");
        if rule.types == Types::ALL {
            continue;
        }
        let (mut named, mut wrong, mut equal, mut stopped) = (0, 0, 0, 0);
        let declared = types::declared(rule.types);
        for dtype in types::tried().into_iter().filter(|d| !declared.contains(d)) {
            match types::at_type(rule, s.generate, dtype, 6, 40) {
                Err(e) => problems.push(e),
                Ok(at) => {
                    (named, wrong) = (named + at.named, wrong + at.wrong);
                    (equal, stopped) = (equal + at.equal, stopped + at.stopped);
                }
            }
        }
        println!("{}: named {named} times; forced {stopped} times: {wrong} wrong, {equal} equal", rule.name);
        if stopped > 0 && named == 0 {
            problems.push(format!("{} does not say that its types stop it", rule.name));
        }
        if equal > 0 && wrong == 0 && !NARROW.iter().any(|n| n.0 == rule.name) {
            problems.push(format!("{} is right at other types than it declares", rule.name));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The families (folders of goldens) whose rules multiply or add weights. Others move them, or multiply by factors that a condition
/// of their own bounds.
const COMPUTE_WEIGHTS: &[&str] = &["branch", "compose", "dense", "mixed", "rows", "systems", "transposed"];

/// The families whose rules bring in operators that are not on their left sides.
const BRING_OPERATORS: &[&str] = &["activation", "affine", "dense", "pool", "space_to_depth"];

fn family(t: &FileTest) -> &str {
    t.path.parent().and_then(|p| p.file_name()).and_then(|n| n.to_str()).unwrap_or_default()
}

/// The goldens of a family in which this condition stops a rule, with that rule.
fn stopped<'t>(goldens: &'t [FileTest], of: &str, condition: &str) -> Vec<(&'t FileTest, &'static Rule)> {
    let here = goldens.iter().filter(|t| family(t) == of);
    let stops = |t: &'t FileTest| {
        let misses: Vec<&str> = t.not_fired().into_iter().filter(|m| m.1 == condition).map(|m| m.0).collect();
        misses.into_iter().filter_map(rules::find).map(move |r| (t, r)).collect::<Vec<_>>()
    };
    here.flat_map(stops).filter(|(t, r)| !t.fired().contains(r.name)).collect()
}

#[test]
fn weights_that_overflow_stop_every_family_that_computes_them() {
    let goldens = filetests::all();
    for of in COMPUTE_WEIGHTS {
        let found = stopped(&goldens, of, FINITE_WEIGHTS.name);
        assert!(!found.is_empty(), "{of} lacks a golden in which {} stops a rule", FINITE_WEIGHTS.name);
        for (t, rule) in found {
            let forced = t.rewrite_with(Some((rule.name, FINITE_WEIGHTS.name))).expect("it is rewritten");
            let after = agree::<f64>(&t.graph, &forced.graph, 1, 1e-5);
            assert!(
                after.is_err(),
                "{}: {} is forced, and the numbers are right: {after:?}",
                t.path.display(),
                rule.name
            );
        }
    }
}

/// The operators of a graph with the types of their results.
fn operators(graph: &Graph) -> BTreeSet<(&'static str, DType)> {
    let of = |id| Some((graph.node(id).op()?.name(), graph.dtype(Value { node: id, port: 0 })?));
    graph.nodes().into_iter().filter_map(of).collect()
}

#[test]
fn operators_that_nobody_executes_stop_every_family_that_brings_them_in() {
    let goldens = filetests::all();
    for of in BRING_OPERATORS {
        let found = stopped(&goldens, of, EXECUTED.name);
        assert!(!found.is_empty(), "{of} lacks a golden in which {} stops a rule", EXECUTED.name);
        for (t, rule) in found {
            let before = operators(&t.graph);
            let after = |g: Result<Graph, String>| operators(&g.expect("it has a right side"));
            let brings = |g| after(g).iter().any(|o| !before.contains(o) && o.1 != DType::F32);
            let forced = apply(&t.graph, rule, Some(EXECUTED.name)).0;
            let brought = forced.into_iter().any(|r| brings(r.graph));
            assert!(brought, "{}: {} is forced and brings in nothing", t.path.display(), rule.name);
        }
    }
}
