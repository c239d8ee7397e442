//! Names: of domains, and in nested graphs, where some refer to values outside.

use std::collections::HashSet;

use onnx_protobuf::{GraphProto, NodeProto};

/// The operator domain of a file as convc spells it.
pub(super) fn domain_of(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// The nested graphs of a node, in the order of its attributes.
pub(super) fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|a| a.g.as_ref().into_iter().chain(&a.graphs))
}

/// The names that the nested graphs of `node` use and do not define, each once, in the order of first use.
pub(super) fn free_in_node(node: &NodeProto) -> Vec<&str> {
    let mut seen = HashSet::new();
    subgraphs(node).flat_map(free_in_graph).filter(|n| seen.insert(*n)).collect()
}

/// The names that `graph` uses and does not define, each once, in the order of first use.
pub(super) fn free_in_graph(graph: &GraphProto) -> Vec<&str> {
    let mut defined: HashSet<&str> = graph.input.iter().map(|v| v.name.as_str()).collect();
    defined.extend(graph.initializer.iter().map(|t| t.name.as_str()));
    defined.extend(graph.sparse_initializer.iter().map(|t| t.values.name.as_str()));
    defined.extend(graph.node.iter().flat_map(|n| n.output.iter().map(String::as_str)));
    let mut free = Vec::new();
    let mut seen = HashSet::new();
    let mut use_name = |name: &'_ str| !name.is_empty() && !defined.contains(name) && seen.insert(name.to_owned());
    for node in &graph.node {
        free.extend(node.input.iter().map(String::as_str).filter(|n| use_name(n)));
        free.extend(free_in_node(node).into_iter().filter(|n| use_name(n)));
    }
    free.extend(graph.output.iter().map(|v| v.name.as_str()).filter(|n| use_name(n)));
    free
}
