//! `If`: two nested graphs that become branches with explicit captures.

use std::collections::{BTreeSet, HashSet};

use convc_runtime::{Dim, Fact, Symbol};
use onnx_protobuf::{AttributeProto, GraphProto};

use super::{
    Env, Importer, Names, OnnxError, Severity,
    nodes::{Refusal, Site, unknown},
    shown,
};
use crate::{
    ir::{Branch, Graph, Kind, Value},
    onnx::names::free_in_graph,
    ops::ImportError,
};

impl<'a> Importer<'a> {
    /// Reads an `If`.
    pub(super) fn branches(
        &mut self,
        graph: &mut Graph,
        names: &Names,
        site: &Site<'_>,
        env: &Env<'_>,
        operands: &[Option<Value>],
        attributes: &[AttributeProto],
    ) -> Result<Result<Vec<Value>, Refusal>, OnnxError> {
        let invalid = |what: String| Ok(Err(ImportError::Invalid(what).into()));
        let branch = |name: &str| attributes.iter().find(|a| a.name == name).and_then(|a| a.g.as_ref());
        let (Some(yes), Some(no)) = (branch("then_branch"), branch("else_branch")) else {
            return invalid("needs the attributes then_branch and else_branch".into());
        };
        let [Some(condition)] = operands else { return invalid(format!("has {} inputs, not one", operands.len())) };
        let wanted = site.node.output.len();
        for (name, g) in [("then_branch", yes), ("else_branch", no)] {
            if g.output.len() != wanted {
                return invalid(format!("has {wanted} outputs, and its {name} has {}", g.output.len()));
            }
            if !g.input.is_empty() {
                return invalid(format!("has a {name} with inputs"));
            }
        }
        if env.depth >= self.limits.depth {
            return Err(OnnxError::Limit {
                place: format!("node {}", shown(&site.label)),
                needed: (env.depth + 1).to_string(),
                what: "levels of nested graphs",
                limit: u64::try_from(self.limits.depth).unwrap_or(u64::MAX),
            });
        }
        let mut captured: Vec<(&str, Value)> = Vec::new();
        let mut seen = HashSet::new();
        for name in free_in_graph(yes).into_iter().chain(free_in_graph(no)) {
            if let Some(Some(v)) = names.get(name)
                && seen.insert(name)
            {
                captured.push((name, *v));
            }
        }
        // A small constant is known in the branch too; a large one is not stored twice.
        let (known, captured): (Vec<_>, Vec<_>) =
            captured.into_iter().partition(|(_, v)| graph.constant(*v).is_some_and(|c| c.len() <= Fact::MAX_KNOWN));
        let (then_branch, then_believed) = self.branch(graph, site, env, yes, names, &known, &captured, "then")?;
        let (else_branch, else_believed) = self.branch(graph, site, env, no, names, &known, &captured, "else")?;
        let shared = captured.iter().filter_map(|(_, v)| graph.fact(*v)).flat_map(|f| &f.shape);
        let shared: BTreeSet<Symbol> = shared.flat_map(Dim::symbols).collect();
        let facts = (0..wanted).map(|i| merged(graph, &then_branch, &else_branch, i, &shared)).collect();
        let operands = std::iter::once(Some(*condition)).chain(captured.iter().map(|c| Some(c.1))).collect();
        let kind = Kind::If {
            then_branch: Branch { graph: Box::new(then_branch) },
            else_branch: Branch { graph: Box::new(else_branch) },
        };
        let id = graph.add_node(kind, operands, facts);
        graph.annotate(id, format!("{}{}", env.prefix, site.node.name), vec![site.label.as_str().into()]);
        let values: Vec<Value> =
            (0..wanted).map(|p| Value { node: id, port: u32::try_from(p).unwrap_or(u32::MAX) }).collect();
        let believed = then_believed.iter().zip(&else_believed).map(|(a, b)| a | b);
        self.beliefs.values.extend(values.iter().zip(believed).filter_map(|(v, b)| b.then_some(*v)));
        Ok(Ok(values))
    }

    /// Reads a branch, and which of its outputs have a type that is believed.
    #[allow(clippy::too_many_arguments)]
    fn branch(
        &mut self,
        outer: &mut Graph,
        site: &Site<'_>,
        env: &Env<'_>,
        proto: &GraphProto,
        outer_names: &Names,
        known: &[(&str, Value)],
        captured: &[(&str, Value)],
        which: &str,
    ) -> Result<(Graph, Vec<bool>), OnnxError> {
        let mut graph = outer.nested();
        let mut names = Names::new();
        let outside = std::mem::take(&mut self.beliefs);
        for (name, v) in captured {
            let inner = graph.add_input(*name, outer.fact(*v).cloned(), None);
            if outside.values.contains(v) {
                self.beliefs.values.insert(inner);
            }
            names.insert((*name).to_owned(), Some(inner));
        }
        for (name, v) in known {
            if let Some(c) = outer.constant(*v) {
                let inner = graph.add_constant(c.clone());
                let label = outer.node(v.node);
                graph.annotate(inner.node, label.name.clone(), label.origins.clone());
                names.insert((*name).to_owned(), Some(inner));
            }
        }
        // Inputs of a function that its caller leaves out.
        for name in free_in_graph(proto) {
            if outer_names.get(name) == Some(&None) {
                names.insert(name.to_owned(), None);
            }
        }
        for (name, constant) in self.initializers(proto)? {
            let v = graph.add_constant(constant);
            graph.set_value_name(v, format!("{}{name}", env.prefix));
            graph.annotate(v.node, name.clone(), vec![name.as_str().into()]);
            names.insert(name, Some(v));
        }
        let inside = Env {
            opsets: env.opsets.clone(),
            attributes: env.attributes.clone(),
            prefix: env.prefix.clone(),
            calls: env.calls.clone(),
            depth: env.depth + 1,
            value_info: proto.value_info.iter().map(|v| (v.name.as_str(), v)).collect(),
        };
        self.nodes(&mut graph, &mut names, &proto.node, &inside)?;
        for info in &proto.output {
            let value = match names.get(&info.name) {
                Some(Some(v)) => *v,
                _ => {
                    let what =
                        format!("has output {} in its {which}_branch, which nothing computes", shown(&info.name));
                    self.fail(site.problem(Severity::Error, what, "add its node"))?;
                    unknown(&mut graph, &info.name)
                }
            };
            let mut name = info.name.clone();
            while graph.outputs().iter().any(|o| o.name == name) {
                name.push('_');
            }
            graph.add_output(name, value, None);
        }
        self.without_read_sequences(&mut graph);
        outer.adopt_symbols(&graph);
        let inside = std::mem::replace(&mut self.beliefs, outside);
        let believed = graph.outputs().iter().map(|o| inside.values.contains(&o.value)).collect();
        Ok((graph, believed))
    }
}

/// What is known of output `i` whichever branch is taken, in the symbols of the captures.
fn merged(outer: &mut Graph, a: &Graph, b: &Graph, i: usize, shared: &BTreeSet<Symbol>) -> Option<Fact> {
    let (a, b) = (a.fact(a.outputs().get(i)?.value)?, b.fact(b.outputs().get(i)?.value)?);
    if a.dtype != b.dtype || a.rank() != b.rank() {
        return None;
    }
    let dtype = a.dtype;
    let dims: Vec<Dim> = a
        .shape
        .iter()
        .zip(&b.shape)
        .map(|(x, y)| if x == y && x.symbols().is_subset(shared) { x.clone() } else { outer.fresh_dim() })
        .collect();
    Some(Fact::new(dtype, dims))
}
