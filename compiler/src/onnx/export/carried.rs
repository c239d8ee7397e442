//! Nodes that are carried as they were read: only names change.

use std::collections::{BTreeMap, HashSet};

use onnx_protobuf::{GraphProto, Message, NodeProto};

use super::Fresh;
use crate::{ir::Opaque, onnx::names::subgraphs};

/// Every name that graphs nested in `node` define.
pub(super) fn defined_within(node: &NodeProto) -> Vec<String> {
    let mut list = Vec::new();
    for g in subgraphs(node) {
        list.extend(defined(g).map(str::to_owned));
        list.extend(g.node.iter().flat_map(defined_within));
    }
    list
}

fn defined(g: &GraphProto) -> impl Iterator<Item = &str> {
    let inputs = g.input.iter().map(|v| v.name.as_str());
    let dense = g.initializer.iter().map(|t| t.name.as_str());
    let sparse = g.sparse_initializer.iter().map(|t| t.values.name.as_str());
    let outputs = g.node.iter().flat_map(|n| n.output.iter().map(String::as_str));
    inputs.chain(dense).chain(sparse).chain(outputs).filter(|n| !n.is_empty())
}

/// The node of `opaque` between values of these names. `outer` holds the names of the graph around it, which nested
/// graphs may not define again.
pub(super) fn carried(
    opaque: &Opaque,
    operands: &[Option<String>],
    outputs: &[String],
    outer: &HashSet<String>,
    names: &mut Fresh,
) -> Result<NodeProto, protobuf::Error> {
    let mut node = NodeProto::parse_from_bytes(&opaque.proto)?;
    let own = node.input.len();
    for (input, name) in node.input.iter_mut().zip(operands) {
        *input = name.clone().unwrap_or_default();
    }
    for (output, name) in node.output.iter_mut().zip(outputs) {
        if !output.is_empty() {
            output.clone_from(name);
        }
    }
    let captured = opaque.captures.iter().zip(operands.iter().skip(own));
    let map: BTreeMap<String, String> =
        captured.filter_map(|(inner, now)| Some((inner.clone(), now.clone()?))).collect();
    rename_within(&mut node, &map, outer, names);
    Ok(node)
}

fn rename_within(node: &mut NodeProto, map: &BTreeMap<String, String>, outer: &HashSet<String>, names: &mut Fresh) {
    for a in &mut node.attribute {
        for g in a.g.as_mut().into_iter().chain(&mut a.graphs) {
            rename_graph(g, map, outer, names);
        }
    }
}

fn rename_graph(g: &mut GraphProto, map: &BTreeMap<String, String>, outer: &HashSet<String>, names: &mut Fresh) {
    let mut map = map.clone();
    let inner: Vec<String> = defined(g).map(str::to_owned).collect();
    for name in inner {
        if outer.contains(&name) {
            let fresh = names.take(&name);
            map.insert(name, fresh);
        } else {
            map.remove(&name);
        }
    }
    if map.iter().all(|(from, to)| from == to) {
        return;
    }
    let rename = |name: &mut String| {
        if let Some(to) = map.get(name.as_str()) {
            name.clone_from(to);
        }
    };
    g.input.iter_mut().chain(&mut g.output).chain(&mut g.value_info).for_each(|v| rename(&mut v.name));
    g.initializer.iter_mut().for_each(|t| rename(&mut t.name));
    g.sparse_initializer.iter_mut().filter_map(|s| s.values.as_mut()).for_each(|t| rename(&mut t.name));
    for node in &mut g.node {
        node.input.iter_mut().chain(&mut node.output).for_each(rename);
        rename_within(node, &map, outer, names);
    }
}
