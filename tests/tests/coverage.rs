//! Every registered rule has a text, a golden in which it fires, and for each of its conditions one in which that stops it.

use std::collections::BTreeSet;

use convc::rewrite::{rule::Rule, rules};
use convc_tests::filetests::{self, FileTest};

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
