//! `trace why-not`: what kept a rule from firing.

use std::collections::BTreeSet;

use super::{
    lines::{DeclinedLine, Side, Trace},
    show::{NotFiredRow, Unknown, listed, not_fired_rows},
};
use crate::rewrite::rules;

/// What kept a rule from firing.
#[derive(Debug, Clone, PartialEq)]
pub struct WhyNot {
    /// The candidates for which a condition did not hold.
    pub not_fired: Vec<NotFiredRow>,
    /// Those that cost decided against.
    pub declined: Vec<DeclinedLine>,
}

/// A cost to three digits.
fn rounded(cost: f64) -> String {
    let text = format!("{cost:.2}");
    if cost != 0.0 && cost.abs() < 0.01 { format!("{cost:.2e}") } else { text }
}

/// `trace why-not`: what kept a rule from firing, at a node of the file read or anywhere.
///
/// # Errors
/// If there is no such rule or node.
pub fn why_not(trace: &Trace, rule: &str, node: Option<&str>) -> Result<WhyNot, Unknown> {
    let known: BTreeSet<&str> =
        rules::all().iter().map(|r| r.name).chain(trace.header.rules.iter().map(|r| &*r.name)).collect();
    if !known.contains(rule) {
        let known = known.into_iter().map(str::to_owned).collect();
        return Err(Unknown { what: "rule", name: rule.into(), known });
    }
    if let Some(node) = node {
        let nodes: BTreeSet<&String> = trace
            .nodes
            .iter()
            .filter(|n| n.side == Side::Read)
            .map(|n| &n.name)
            .chain(trace.not_fired.iter().flat_map(|n| &n.origins))
            .chain(trace.declined.iter().flat_map(|d| &d.origins))
            .collect();
        if !nodes.contains(&node.to_owned()) {
            let known = nodes.into_iter().cloned().collect();
            return Err(Unknown { what: "node", name: node.into(), known });
        }
    }
    let wanted = |of: &str, origins: &[String]| of == rule && node.is_none_or(|name| origins.iter().any(|o| o == name));
    let stopped: Vec<_> = trace.not_fired.iter().filter(|n| wanted(&n.rule, &n.origins)).collect();
    let declined = trace.declined.iter().filter(|d| wanted(&d.rule, &d.origins)).cloned().collect();
    Ok(WhyNot { not_fired: not_fired_rows(&stopped), declined })
}

/// The answer as text.
#[must_use]
pub fn text(trace: &Trace, rule: &str, node: Option<&str>, why: &WhyNot) -> String {
    if !why.not_fired.is_empty() || !why.declined.is_empty() {
        let mut out: String = why.not_fired.iter().map(|r| format!("{:>6}  {}\n", r.count, r.text())).collect();
        for d in &why.declined {
            let at = listed(d.origins.iter().map(String::as_str), ", ");
            out += &format!(
                "        {:<18} cost decided against it: before {}, after {}  at {at}\n",
                d.rule,
                rounded(d.before),
                rounded(d.after)
            );
        }
        return out;
    }
    let at = node.map(|n| format!(" at {n:?}")).unwrap_or_default();
    let used = trace.steps.iter().filter(|s| s.rule == rule).count();
    if trace.rule(rule).is_none() {
        format!("{rule} was not tried: --fp, --only or --skip left it out\n")
    } else if used > 0 {
        format!("nothing kept {rule} from firing{at}; {used} steps use it\n")
    } else {
        format!("{rule} found no candidate{at}\n")
    }
}
