//! Every rule on random graphs made from its left side: where it fires, the result is that of the original for all values of
//! the symbols; where a condition stops it, counting the condition as holding would give wrong numbers at least once.
//!
//! `CONVC_CASES` sets how many firing cases each rule is tried on, 200 if it is not given.

use std::collections::{BTreeMap, BTreeSet};

use convc::{
    ir::text::{parse, print},
    rewrite::{
        rule::{Phase, Rule},
        rules as registry,
    },
};
use convc_runtime::{DType, scalar::Field};
use convc_tests::{
    agree::agree,
    oracle::Number,
    random::Rng,
    rules::apply,
    subjects::{Numbers, SUBJECTS, Subject},
    types,
};

macro_rules! tests {
    ($($name:ident: $rule:literal $numbers:ident $generate:expr $(, rounding $rounding:expr)?;)*) => {
        $(#[test]
        fn $name() {
            check($rule);
        })*
    };
}

convc_tests::subjects!(tests);

#[test]
fn every_rule_is_tried() {
    let tried: BTreeSet<&str> = SUBJECTS.iter().map(|s| s.rule).collect();
    let registered: BTreeSet<&str> = registry::all().iter().map(|r| r.name).collect();
    assert_eq!(tried, registered, "SUBJECTS lists every registered rule, with a generator of its left side");
}

/// At every element type that a rule declares it fires, and gives what the oracle gives at that type; at others it does not.
#[test]
fn every_rule_at_every_type() {
    let wanted = 12;
    let mut problems = Vec::new();
    for s in SUBJECTS {
        let rule = registry::find(s.rule).expect("the rule is registered");
        let declared = types::declared(rule.types);
        for dtype in types::tried() {
            let most = if declared.contains(&dtype) { 2000 } else { 60 };
            match types::at_type(rule, s.generate, dtype, wanted, most) {
                Err(e) => problems.push(e),
                Ok(at) if declared.contains(&dtype) && at.compared == 0 && !is_drawn_elsewhere(rule.name, dtype) => {
                    problems.push(format!("{} never fires at {dtype}, which it declares: {at:?}", rule.name));
                }
                Ok(at) if !declared.contains(&dtype) && at.fired > 0 => {
                    problems.push(format!("{} fires at {dtype}, which it does not declare", rule.name));
                }
                Ok(at) if at.stopped > 0 => {
                    println!("{} at {dtype}, forced: {} of {} equal", rule.name, at.equal, at.stopped);
                }
                Ok(_) => {}
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Rules about movement whose generators draw functions that ONNX defines on floating-point numbers alone, or casts between
/// fixed types: at other types these graphs are none of the rule's.
fn is_drawn_elsewhere(rule: &str, dtype: DType) -> bool {
    match rule {
        "cast-same" => true,
        "concat-map" | "map-slice" | "slice-map" | "perm-map" | "constant-of-batch" => !dtype.is_float(),
        _ => false,
    }
}

/// What became of the candidates of one condition.
#[derive(Default)]
struct Misses {
    total: usize,
    /// Forced, the rule has a right side that type-checks and gives the same numbers on all sizes tried.
    equal: usize,
    /// Forced, the numbers are others.
    wrong: usize,
    /// Forced, the right side is refused: by its operators, or since its type differs.
    refused: usize,
    /// What was wrong first.
    example: String,
}

fn check(name: &str) {
    let subject = SUBJECTS.iter().find(|s| s.rule == name).expect("the rule is listed");
    let rule = registry::find(subject.rule).expect("the rule is registered");
    match subject.numbers {
        Numbers::Field => try_rule::<Field>(subject, rule, 0.0),
        Numbers::Float => try_rule::<f64>(subject, rule, 1e-12),
        Numbers::Rounded => try_rule::<f64>(subject, rule, 1e-6),
    }
}

fn try_rule<S: Number>(subject: &Subject, rule: &'static Rule, tolerance: f64) {
    let wanted: usize = std::env::var("CONVC_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let (mut fired, mut open_shapes, mut refused_texts, mut seed) = (0, 0, 0, 0);
    let mut held: BTreeSet<&str> = BTreeSet::new();
    let mut misses: BTreeMap<&str, Misses> = BTreeMap::new();
    let least = |misses: &BTreeMap<&str, Misses>| {
        rule.conditions.iter().all(|c| misses.get(c.name).is_some_and(|m| m.total >= wanted / 10))
    };
    while fired < wanted || !least(&misses) {
        seed += 1;
        assert!(
            seed < 100 * wanted as u64,
            "{}: of {seed} random graphs ({refused_texts} of them invalid) only {fired} fired; misses: {:?}",
            rule.name,
            misses.iter().map(|(c, m)| (c, m.total)).collect::<Vec<_>>()
        );
        let text = (subject.generate)(&mut Rng::new(seed));
        let graph = match parse(&text) {
            Ok(g) => g,
            Err(e) => {
                refused_texts += 1;
                assert!(refused_texts < 50 || refused_texts * 10 < seed * 9, "{e}\n{text}");
                continue;
            }
        };
        let (rewrites, missed) = apply(&graph, rule, None);
        let mut known: BTreeSet<String> = BTreeSet::new();
        for r in rewrites {
            held.extend(&r.conditions);
            open_shapes += usize::from(r.same_shape.is_none());
            let rewritten = r.graph.unwrap_or_else(|e| panic!("{}: ill-typed: {e}\n{text}", rule.name));
            known.insert(print(&rewritten));
            match agree::<S>(&graph, &rewritten, seed, tolerance) {
                Ok(tried) => fired += usize::from(tried > 0),
                Err(e) => panic!("{} (seed {seed}): {e}\n{text}becomes\n{}", rule.name, print(&rewritten)),
            }
        }
        for miss in missed {
            let m = misses.entry(miss.condition).or_default();
            m.total += 1;
            for r in apply(&graph, rule, Some(miss.condition)).0 {
                match r.graph {
                    Err(_) => m.refused += 1,
                    // It fires here without being forced.
                    Ok(rewritten) if known.contains(&print(&rewritten)) => {}
                    Ok(rewritten) => match agree::<S>(&graph, &rewritten, seed, tolerance) {
                        Ok(tried) => m.equal += usize::from(tried > 0),
                        Err(e) => {
                            m.wrong += 1;
                            if m.example.is_empty() {
                                m.example = format!("{}: {e}\n{text}", miss.reason);
                            }
                        }
                    },
                }
            }
        }
    }
    println!(
        "{}: {fired} cases fired of {seed} graphs, {open_shapes} of them with shapes not known to be equal",
        rule.name
    );
    for (condition, m) in &misses {
        let Misses { total, equal, wrong, refused, example } = m;
        println!("  {condition}: {total} misses; forced: {wrong} wrong, {refused} refused, {equal} equal all the same");
        println!("    {}", example.replace('\n', "\n    "));
    }
    for c in rule.conditions {
        assert!(held.contains(c.name), "{}: {} never holds", rule.name, c.name);
        let m = &misses[c.name];
        // In a region a right side of another type is dropped; on the graph itself it would be an error.
        let refused = rule.phase != Phase::Explore && m.refused > 0;
        assert!(
            m.wrong > 0 || refused || subject.rounding.contains(&c.name),
            "{}: forcing {} never gives wrong numbers ({} refused, {} equal): it is unneeded, or the graphs are too tame",
            rule.name,
            c.name,
            m.refused,
            m.equal
        );
    }
}
