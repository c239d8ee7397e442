//! From a rewritten graph to its trace.

use std::collections::{BTreeMap, BTreeSet};

use super::lines::{
    AttributeLine, ConstantLine, DeclinedLine, HeaderLine, NodeLine, NotFiredLine, OutputLine, RegionLine, RuleLine,
    SCHEMA, STORED_ELEMENTS, Side, StepLine, TermLine, Trace, TypeLine, ValueLine,
};
use crate::{
    ir::{Graph, Kind, NodeId, Value},
    onnx::Written,
    rewrite::{
        Fp, Options, RewriteError, Rewritten,
        elements::Elements,
        rule::Rule,
        selected_rules,
        terms::{Head, Term, TermId},
    },
};

/// What a trace says besides the rewriting itself.
pub struct Meta<'a> {
    /// SHA-256 of the model's file.
    pub model_sha256: Option<String>,
    /// How it was rewritten.
    pub options: &'a Options,
    /// The graph as it was read.
    pub original: &'a Graph,
    /// What the file written calls nodes and values.
    pub written: &'a Written,
}

impl Trace {
    /// The record of a rewriting.
    ///
    /// # Errors
    /// [`RewriteError::UnknownRule`] if the options name a rule that does not exist.
    pub fn from_rewritten(rewritten: &Rewritten, meta: &Meta<'_>) -> Result<Trace, RewriteError> {
        let rules = selected_rules(meta.options)?;
        let mut trace = Trace { header: header(meta, &rules), ..Trace::default() };
        let read = Names::of_read(meta.original);
        for (side, graph, terms, names) in [
            (Side::Read, meta.original, &rewritten.original_values, &read),
            (Side::Written, &rewritten.graph, &rewritten.values, &Names::of_written(meta.written)),
        ] {
            trace.add_file(side, graph, terms, names);
        }
        trace.steps = rewritten
            .steps
            .iter()
            .enumerate()
            .map(|(n, s)| StepLine {
                n,
                rule: s.rule.clone(),
                region: s.region,
                lhs: s.lhs.0,
                rhs: s.rhs.0,
                conditions: s.conditions.clone(),
            })
            .collect();
        trace.regions = rewritten
            .regions
            .iter()
            .map(|r| RegionLine {
                region: r.region,
                nodes: r.nodes,
                roots: r.roots.iter().map(|(a, b)| (a.0, b.0)).collect(),
                before: r.before,
                after: r.after,
                stop: r.stop.clone(),
                iterations: r.iterations,
                e_nodes: r.e_nodes,
                changed: r.changed,
            })
            .collect();
        trace.not_fired = rewritten
            .not_fired
            .iter()
            .map(|n| NotFiredLine {
                rule: n.rule.clone(),
                condition: n.condition.clone(),
                reason: n.reason.clone(),
                origins: n.origins.iter().map(ToString::to_string).collect(),
            })
            .collect();
        trace.declined = rewritten
            .declined
            .iter()
            .map(|d| DeclinedLine {
                rule: d.rule.clone(),
                before: d.before,
                after: d.after,
                origins: d.origins.iter().map(ToString::to_string).collect(),
            })
            .collect();
        let ends = rewritten.outputs_before.iter().zip(&rewritten.outputs_after);
        trace.outputs = meta
            .original
            .outputs()
            .iter()
            .zip(ends)
            .map(|(o, (before, after))| OutputLine { name: o.name.clone(), before: before.0, after: after.0 })
            .collect();
        trace.terms = term_lines(&trace, rewritten);
        Ok(trace)
    }

    fn add_file(&mut self, side: Side, graph: &Graph, terms: &BTreeMap<Value, TermId>, names: &Names) {
        for (name, id) in &names.nodes {
            if !graph.contains(*id) {
                continue;
            }
            let node = graph.node(*id);
            let term = |v: &Value| terms.get(v).map(|t| t.0);
            let looked_into = matches!(node.kind, Kind::Op(_)) && node.outputs() == 1;
            self.nodes.push(NodeLine {
                side,
                name: name.clone(),
                op: node.kind.name().to_owned(),
                terms: results(graph, *id).filter_map(|v| term(&v)).collect(),
                operands: (!looked_into).then(|| node.operands().iter().map(|o| o.as_ref().and_then(&term)).collect()),
            });
        }
        for (v, name) in &names.values {
            self.values.extend(terms.get(v).map(|t| ValueLine { side, name: name.clone(), term: t.0 }));
        }
    }
}

fn results(graph: &Graph, id: NodeId) -> impl Iterator<Item = Value> + use<> {
    (0..u32::try_from(graph.node(id).outputs()).unwrap_or(u32::MAX)).map(move |port| Value { node: id, port })
}

fn header(meta: &Meta<'_>, rules: &[&'static Rule]) -> HeaderLine {
    let fp = match meta.options.fp {
        Fp::Strict => "strict",
        Fp::Real => "real",
        Fp::Fast => "fast",
    };
    HeaderLine {
        schema: SCHEMA.into(),
        convc: env!("CARGO_PKG_VERSION").into(),
        model_sha256: meta.model_sha256.clone(),
        fp: fp.into(),
        profile: meta.options.profile.name.into(),
        rules: rules
            .iter()
            .map(|r| RuleLine {
                name: r.name.into(),
                equation: r.equation.into(),
                exactness: r.exactness.to_string(),
                pays: r.pays.into(),
                conditions: r.conditions.iter().map(|c| (c.name.to_owned(), c.text.to_owned())).collect(),
            })
            .collect(),
    }
}

/// The names of nodes and values in a file, in an order of its own.
struct Names {
    nodes: Vec<(String, NodeId)>,
    values: Vec<(Value, String)>,
}

impl Names {
    fn of_read(graph: &Graph) -> Names {
        let mut names = Names { nodes: Vec::new(), values: Vec::new() };
        for id in graph.nodes() {
            let node = graph.node(id);
            if !matches!(node.kind, Kind::Input | Kind::Constant(_)) {
                names.nodes.push((node.origins.first().map_or(&*node.name, |o| &**o).to_owned(), id));
            }
            names.values.extend(results(graph, id).filter_map(|v| Some((v, graph.value_name(v)?.to_owned()))));
        }
        // An output may have a name besides that of its value.
        for o in graph.outputs() {
            if graph.value_name(o.value) != Some(&o.name) {
                names.values.push((o.value, o.name.clone()));
            }
        }
        names
    }

    fn of_written(written: &Written) -> Names {
        Names {
            nodes: written.nodes.clone(),
            values: written.values.iter().map(|(v, name)| (*v, name.clone())).collect(),
        }
    }
}

/// The lines of the terms that the trace speaks of, and of those they are made of.
fn term_lines(trace: &Trace, rewritten: &Rewritten) -> Vec<TermLine> {
    let table = &rewritten.terms;
    let mut stack: Vec<TermId> = Vec::new();
    let mut want = |ids: &mut dyn Iterator<Item = u32>| stack.extend(ids.map(TermId));
    want(&mut trace.steps.iter().flat_map(|s| [s.lhs, s.rhs]));
    want(&mut trace.regions.iter().flat_map(|r| &r.roots).flat_map(|(a, b)| [*a, *b]));
    want(&mut trace.outputs.iter().flat_map(|o| [o.before, o.after]));
    want(&mut trace.values.iter().map(|v| v.term));
    want(&mut trace.nodes.iter().flat_map(|n| n.terms.iter().copied()));
    want(&mut trace.nodes.iter().flat_map(|n| n.operands.iter().flatten().flatten().copied()));
    let mut seen: BTreeSet<TermId> = BTreeSet::new();
    while let Some(id) = stack.pop() {
        if seen.insert(id) {
            stack.extend(table.get(id).operands.iter().flatten());
        }
    }
    seen.into_iter().map(|id| term_line(id, table.get(id))).collect()
}

fn term_line(id: TermId, term: &Term) -> TermLine {
    let mut line = TermLine {
        id: id.0,
        op: None,
        attributes: BTreeMap::new(),
        operands: term.operands.iter().map(|o| o.map(|o| o.0)).collect(),
        constant: None,
        value: None,
        whole: false,
        r#type: None,
        origins: term.origins.iter().map(ToString::to_string).collect(),
    };
    match &term.head {
        Head::Op(op) => {
            line.op = Some(op.name().to_owned());
            line.attributes = op.to_attrs().iter().map(|(k, v)| (k.clone(), AttributeLine::of(v))).collect();
        }
        Head::Constant(c) => line.constant = Some(ConstantLine::of(c, STORED_ELEMENTS)),
        Head::Value(name) => {
            line.value = Some(name.to_string());
            line.whole = term.elements == Elements::READ;
        }
    }
    // A constant says its type itself.
    if line.constant.is_none() {
        line.r#type = term.fact.as_ref().map(TypeLine::of);
    }
    line
}
