//! A trace as a Graphviz drawing: the outputs' terms before and after, side by side.

use std::{collections::BTreeMap, fmt::Write};

use super::lines::{NodeLine, Side, TermLine, Trace};

/// The drawing in the DOT language. Constants are left out; what is new is filled.
#[must_use]
pub fn dot(trace: &Trace) -> String {
    let mut out = String::from(
        "digraph trace {\n  rankdir=TB;\n  node [shape=box, style=\"rounded,filled\", fillcolor=white, fontname=\"sans-serif\"];\n",
    );
    let roots = |side: Side| -> Vec<u32> {
        trace.outputs.iter().map(|o| if side == Side::Read { o.before } else { o.after }).collect()
    };
    let (before, after) =
        (reach(trace, Side::Read, roots(Side::Read)), reach(trace, Side::Written, roots(Side::Written)));
    for (label, side, own, other) in
        [("before", Side::Read, &before, &after), ("after", Side::Written, &after, &before)]
    {
        let _ = writeln!(out, "  subgraph cluster_{label} {{\n    label=\"{label}\";");
        let nodes: BTreeMap<u32, &NodeLine> =
            trace.nodes.iter().filter(|n| n.side == side).flat_map(|n| n.terms.iter().map(move |t| (*t, n))).collect();
        for (id, (term, operands)) in own {
            let fill = if other.contains_key(id) { "" } else { ", fillcolor=\"#ffe9b0\"" };
            let _ = writeln!(out, "    {label}_{id} [label=\"{}\"{fill}];", text(nodes.get(id).copied(), term));
            for o in operands {
                let _ = writeln!(out, "    {label}_{o} -> {label}_{id};");
            }
        }
        for (i, o) in trace.outputs.iter().enumerate() {
            let from = if side == Side::Read { o.before } else { o.after };
            // An output may be a constant, which is not drawn otherwise.
            let _ = writeln!(out, "    {label}_out{i} [shape=plaintext, label=\"{}\"];", quoted(&o.name));
            if own.contains_key(&from) {
                let _ = writeln!(out, "    {label}_{from} -> {label}_out{i};");
            }
        }
        out.push_str("  }\n");
    }
    out.push_str("}\n");
    out
}

type Drawn<'t> = BTreeMap<u32, (&'t TermLine, Vec<u32>)>;

fn reach(trace: &Trace, side: Side, mut stack: Vec<u32>) -> Drawn<'_> {
    let nodes = trace.nodes.iter().filter(|n| n.side == side);
    let opaque: BTreeMap<u32, &Vec<Option<u32>>> = nodes
        .filter_map(|n| Some((n, n.operands.as_ref()?)))
        .flat_map(|(n, o)| n.terms.iter().map(move |t| (*t, o)))
        .collect();
    let mut found = Drawn::new();
    while let Some(id) = stack.pop() {
        let Some(t) = trace.term(id).filter(|t| t.constant.is_none() && !found.contains_key(&id)) else { continue };
        let operands = opaque.get(&id).map_or(&t.operands, |o| *o).iter().flatten().copied();
        let drawn = |o: &u32| trace.term(*o).is_some_and(|t| t.constant.is_none());
        let operands: Vec<u32> = operands.filter(drawn).collect();
        stack.extend(&operands);
        found.insert(id, (t, operands));
    }
    found
}

fn text(node: Option<&NodeLine>, term: &TermLine) -> String {
    let head = term.op.as_deref().or(node.map(|n| &*n.op)).or(term.value.as_deref()).unwrap_or_default();
    let mut lines = vec![quoted(head)];
    lines.extend(node.map(|n| quoted(&n.name)));
    lines.extend(term.r#type.as_ref().map(|t| quoted(&t.to_string())));
    lines.join("\\n")
}

/// The text as it stands between quotation marks in the DOT language.
fn quoted(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
