//! A trace as text and as JSON for people and scripts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};

use super::{
    lines::{NotFiredLine, Side, StepLine, Trace},
    walk::{Found, Walk},
};
/// How many names a line lists before it counts the rest.
const LISTED: usize = 4;

/// How often each rule was used.
#[must_use]
pub fn rule_counts(trace: &Trace) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for s in &trace.steps {
        *counts.entry(&*s.rule).or_insert(0) += 1;
    }
    counts
}

/// How often each operator occurs among the nodes of the file read and of the file written.
#[must_use]
pub fn operators(trace: &Trace) -> BTreeMap<&str, [usize; 2]> {
    let mut counts: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for n in &trace.nodes {
        let [read, written] = counts.entry(&n.op).or_default();
        *match n.side {
            Side::Read => read,
            Side::Written => written,
        } += 1;
    }
    counts
}

/// The first names of a list, and how many there are besides.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>, between: &str) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let mut text = names.iter().take(LISTED).copied().collect::<Vec<_>>().join(between);
    if names.len() > LISTED {
        text += &format!("{between}{} more", names.len() - LISTED);
    }
    text
}

/// The names of a few nodes on one line; what they all begin with is said once.
fn nodes_text(names: &BTreeSet<&str>) -> String {
    let common = |a: &str, b: &str| {
        a.char_indices().zip(b.chars()).find(|((_, x), y)| x != y).map_or(a.len().min(b.len()), |((i, _), _)| i)
    };
    let (Some(first), Some(last)) = (names.first(), names.last()) else { return String::new() };
    // The names are sorted, so the first and the last differ earliest.
    let prefix = first.get(..common(first, last)).and_then(|p| p.rfind(['/', '.']).and_then(|i| p.get(..=i)));
    match prefix.filter(|p| names.len() > 1 && p.len() > 1) {
        Some(p) => format!("{p}{{{}}}", listed(names.iter().map(|n| n.get(p.len()..).unwrap_or(n)), " + ")),
        None => listed(names.iter().copied(), " + "),
    }
}

/// Head and type of a term.
pub(crate) fn term_text(trace: &Trace, id: u32) -> String {
    let Some(t) = trace.term(id) else { return format!("t{id}") };
    let head = match (&t.op, &t.constant, &t.value) {
        (Some(op), _, _) => op.clone(),
        (_, Some(c), _) => format!("{}{:?}", c.dtype, c.shape),
        (_, _, Some(name)) => name.clone(),
        _ => String::new(),
    };
    match &t.r#type {
        Some(ty) => format!("{head} {ty}"),
        None => head,
    }
}

/// One step on one line: the rule, the nodes that it is about, and what they become.
#[must_use]
pub fn step_text(walk: &Walk<'_>, trace: &Trace, step: &StepLine) -> String {
    let subject = walk.subject(step.n);
    let left = if subject.is_empty() { term_text(trace, step.lhs) } else { nodes_text(&subject) };
    let what = match &*step.rule {
        "merge-duplicates" => "one of the values that are equal".to_owned(),
        _ => term_text(trace, step.rhs),
    };
    format!("{:<18} {left}  =>  {what}", step.rule)
}

/// Equation, exactness and reason of a step's rule, and its conditions as sentences.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Reason {
    /// `left => right`.
    pub equation: String,
    /// In what sense both sides are equal.
    pub exactness: String,
    /// The conditions that were found to hold: name and what it says.
    pub conditions: BTreeMap<String, String>,
    /// Why the rule is worth having.
    pub pays: String,
}

/// Why a step may be taken and is.
#[must_use]
pub fn reason(trace: &Trace, step: &StepLine) -> Reason {
    let own = |equation: &str, exactness: &str, pays: &str| Reason {
        equation: equation.into(),
        exactness: exactness.into(),
        conditions: BTreeMap::new(),
        pays: pays.into(),
    };
    match &*step.rule {
        "fold-constants" => {
            own("f(constants) => constant", "bitwise", "what is computed from constants alone is computed now")
        }
        "fold-weights" => own("f(weights) => constant", "rounded once", "what rules make of weights is computed now"),
        "merge-duplicates" => own("f(x), f(x) => f(x)", "bitwise", "a value is computed once"),
        name => match trace.rule(name) {
            None => own("?", "?", "?"),
            Some(rule) => Reason {
                equation: rule.equation.clone(),
                exactness: rule.exactness.clone(),
                conditions: step
                    .conditions
                    .iter()
                    .map(|c| (c.clone(), rule.conditions.get(c).cloned().unwrap_or_default()))
                    .collect(),
                pays: rule.pays.clone(),
            },
        },
    }
}

/// `trace show` as text.
#[must_use]
pub fn summary(trace: &Trace) -> String {
    let walk = Walk::new(trace);
    let mut out = format!("convc {}, --fp {}, profile {}\n", trace.header.convc, trace.header.fp, trace.header.profile);
    out += &format!("\n{:<28}{:>8}{:>8}\n", "operator", "before", "after");
    for (name, [before, after]) in operators(trace) {
        let mark = if before == after { "" } else { "  *" };
        out += &format!("{name:<28}{before:>8}{after:>8}{mark}\n");
    }
    out += &format!("\n{} steps\n", trace.steps.len());
    for (rule, n) in rule_counts(trace) {
        let exactness = trace.rule(rule).map_or("", |r| &r.exactness);
        out += &format!("{n:>6}  {rule:<20} {exactness}\n");
    }
    let changed: Vec<_> = trace.regions.iter().filter(|r| r.changed).collect();
    out += &format!("\n{} regions, {} of them replaced\n", trace.regions.len(), changed.len());
    for r in changed {
        out += &format!(
            "{:>6}  {} operators, cost {:.1} -> {:.1}, {} ({} rounds, {} e-nodes)\n",
            r.region, r.nodes, r.before, r.after, r.stop, r.iterations, r.e_nodes
        );
    }
    if !trace.steps.is_empty() {
        out += "\nsteps\n";
    }
    for s in &trace.steps {
        out += &format!("{:>6}  {}\n", s.n, step_text(&walk, trace, s));
    }
    let rows = not_fired_rows(&trace.not_fired.iter().collect::<Vec<_>>());
    if !rows.is_empty() {
        out += "\nnot fired\n";
    }
    for row in rows {
        out += &format!("{:>6}  {}\n", row.count, row.text());
    }
    out
}

/// Candidates that did not fire for the same reason.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct NotFiredRow {
    /// The rule.
    pub rule: String,
    /// The condition.
    pub condition: String,
    /// Why it does not hold.
    pub reason: String,
    /// How many.
    pub count: usize,
    /// The nodes they are about.
    pub origins: BTreeSet<String>,
}

impl NotFiredRow {
    pub(super) fn text(&self) -> String {
        let at = listed(self.origins.iter().map(String::as_str), ", ");
        format!("{:<18} {}: {}  at {at}", self.rule, self.condition, self.reason)
    }
}

/// Puts together what did not fire for the same reason.
#[must_use]
pub fn not_fired_rows(list: &[&NotFiredLine]) -> Vec<NotFiredRow> {
    let mut rows: BTreeMap<(&str, &str, &str), (usize, BTreeSet<String>)> = BTreeMap::new();
    for n in list {
        let row = rows.entry((&n.rule, &n.condition, &n.reason)).or_default();
        row.0 += 1;
        row.1.extend(n.origins.iter().cloned());
    }
    rows.into_iter()
        .map(|((rule, condition, reason), (count, origins))| NotFiredRow {
            rule: rule.into(),
            condition: condition.into(),
            reason: reason.into(),
            count,
            origins,
        })
        .collect()
}

fn step_json(walk: &Walk<'_>, trace: &Trace, step: &StepLine) -> Json {
    json!({
        "n": step.n,
        "rule": step.rule,
        "region": step.region,
        "nodes": walk.subject(step.n),
        "lhs": term_text(trace, step.lhs),
        "rhs": term_text(trace, step.rhs),
        "reason": reason(trace, step),
    })
}

/// `trace show --json`.
#[must_use]
pub fn summary_json(trace: &Trace) -> Json {
    let walk = Walk::new(trace);
    json!({
        "convc": trace.header.convc,
        "model_sha256": trace.header.model_sha256,
        "fp": trace.header.fp,
        "profile": trace.header.profile,
        "operators": operators(trace),
        "rules": rule_counts(trace),
        "regions": trace.regions,
        "steps": trace.steps.iter().map(|s| step_json(&walk, trace, s)).collect::<Vec<_>>(),
        "not_fired": not_fired_rows(&trace.not_fired.iter().collect::<Vec<_>>()),
    })
}

/// A name that a trace does not know, and those that it does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the trace knows no {what} {name:?}")]
pub struct Unknown {
    /// What it should name.
    pub what: &'static str,
    /// The name.
    pub name: String,
    /// The names there are.
    pub known: Vec<String>,
}

/// What leads to a node or value of the file written, and from one of the file read.
#[derive(Debug, Clone)]
pub struct Explanation<'t> {
    trace: &'t Trace,
    name: String,
    /// Of the node or value of that name in the file written, if there is one.
    pub back: Option<Found>,
    /// Of the node or value of that name in the file read, if there is one.
    pub forwards: Option<Found>,
}

/// `trace explain`.
///
/// # Errors
/// If no node and no value has this name.
pub fn explain<'t>(walk: &Walk<'_>, trace: &'t Trace, name: &str) -> Result<Explanation<'t>, Unknown> {
    let terms = |side: Side| -> Option<Vec<u32>> {
        let nodes = trace.nodes.iter().filter(|n| n.side == side && n.name == name);
        let nodes: Vec<u32> = nodes.flat_map(|n| n.terms.iter().copied()).collect();
        let values = trace.values.iter().filter(|v| v.side == side && v.name == name).map(|v| v.term);
        let found: Vec<u32> = if nodes.is_empty() { values.collect() } else { nodes };
        (!found.is_empty()).then_some(found)
    };
    let (written, read) = (terms(Side::Written), terms(Side::Read));
    if written.is_none() && read.is_none() {
        let nodes = trace.nodes.iter().map(|n| n.name.clone());
        let known: BTreeSet<String> = nodes.chain(trace.values.iter().map(|v| v.name.clone())).collect();
        let known = known.into_iter().collect();
        return Err(Unknown { what: "node or value", name: name.into(), known });
    }
    Ok(Explanation {
        trace,
        name: name.into(),
        back: written.map(|t| walk.back(&t)),
        forwards: read.map(|t| walk.forwards(&t)),
    })
}

impl Explanation<'_> {
    /// As text.
    #[must_use]
    pub fn text(&self, walk: &Walk<'_>) -> String {
        let mut out = String::new();
        let all = |names: &BTreeSet<String>| names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        if let Some(found) = &self.back {
            out += &format!("{} of the file written comes from {}\n", self.name, all(&found.read));
            self.steps_text(walk, found, &mut out);
        }
        if let Some(found) = &self.forwards {
            if !out.is_empty() {
                out.push('\n');
            }
            let to = if found.written.is_empty() { "no node".to_owned() } else { all(&found.written) };
            out += &format!("{} of the file read goes into {to} of the file written\n", self.name);
            self.steps_text(walk, found, &mut out);
        }
        out
    }

    fn steps_text(&self, walk: &Walk<'_>, found: &Found, out: &mut String) {
        if found.steps.is_empty() {
            out.push_str("  unchanged: no step is about it\n");
        }
        for step in found.steps.iter().filter_map(|n| self.trace.steps.get(*n)) {
            let why = reason(self.trace, step);
            *out += &format!("{:>6}  {}\n", step.n, step_text(walk, self.trace, step));
            *out += &format!("        {}\n", why.equation);
            for (name, text) in &why.conditions {
                *out += &format!("        holds: {name}: {text}\n");
            }
            *out += &format!("        {}; {}\n", why.exactness, why.pays);
        }
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self, walk: &Walk<'_>) -> Json {
        let part = |found: &Found| {
            let steps = found.steps.iter().filter_map(|n| self.trace.steps.get(*n));
            json!({
                "read": found.read,
                "written": found.written,
                "steps": steps.map(|s| step_json(walk, self.trace, s)).collect::<Vec<_>>(),
            })
        };
        json!({ "name": self.name, "back": self.back.as_ref().map(part), "forwards": self.forwards.as_ref().map(part) })
    }
}
