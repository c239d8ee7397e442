//! From a graph to its text.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use convc_runtime::{AttrValue, Constant, DType, Fact};

use super::{generate::recognise, is_bare};
use crate::ir::{Graph, Kind, Value};

/// Constants up to this many elements are written out.
const LISTED: usize = 64;

/// The text of a graph. Results of operators are numbered in topological order. A constant of many elements that no
/// generator makes is written `..`, and nodes that are no operators of convc's by their name: such a text cannot be read back.
#[must_use]
pub fn print(graph: &Graph) -> String {
    let mut names = Names::default();
    let mut out = String::from("graph(");
    for (i, v) in graph.inputs().into_iter().enumerate() {
        let name = names.unique(v, graph.value_name(v).unwrap_or("x"));
        let default = graph.default_of(v).map_or_else(String::new, |c| format!(" = {}", literal(c)));
        let _ = write!(out, "{}{}: {}{default}", if i > 0 { ", " } else { "" }, quoted(&name), fact(graph.fact(v)));
    }
    out.push_str(") {\n");
    let mut results = 0;
    for id in graph.topological() {
        let node = graph.node(id);
        let values: Vec<Value> =
            (0..node.outputs()).map(|port| Value { node: id, port: u32::try_from(port).unwrap_or(u32::MAX) }).collect();
        match &node.kind {
            Kind::Input => {}
            Kind::Constant(c) => {
                let Some(&v) = values.first() else { continue };
                let name = names.unique(v, graph.value_name(v).unwrap_or("c"));
                let _ = writeln!(out, "  {}: {} = {}", quoted(&name), of_constant(c), literal(c));
            }
            kind => {
                let operands: Vec<String> = node.operands().iter().map(|o| names.operand(*o)).collect();
                let made: Vec<String> = values
                    .iter()
                    .map(|&v| {
                        results += 1;
                        names.unique(v, &format!("%{results}"))
                    })
                    .collect();
                let attributes = node.op().map_or_else(String::new, attributes);
                let types: Vec<String> = node.facts().iter().map(|f| fact(f.as_ref())).collect();
                let (made, operands, types) = (made.join(", "), operands.join(", "), types.join(", "));
                let _ = writeln!(out, "  {made} = {}({operands}){attributes} : {types}", kind.name());
            }
        }
    }
    let outputs: Vec<String> =
        graph.outputs().iter().map(|o| format!("{} as {}", names.operand(Some(o.value)), quoted(&o.name))).collect();
    let _ = writeln!(out, "  return {}\n}}", outputs.join(", "));
    out
}

#[derive(Default)]
struct Names {
    of: BTreeMap<Value, String>,
    used: BTreeSet<String>,
}

impl Names {
    fn unique(&mut self, v: Value, wish: &str) -> String {
        let mut name = wish.to_owned();
        let mut n = 1;
        // `_` is a hole, and `%3` names the third result.
        while self.used.contains(&name) || name == "_" {
            n += 1;
            name = format!("{wish}.{n}");
        }
        self.used.insert(name.clone());
        self.of.insert(v, name.clone());
        name
    }

    fn operand(&self, v: Option<Value>) -> String {
        match v {
            None => "_".to_owned(),
            Some(v) => self.of.get(&v).map_or_else(|| format!("\"{}:{}\"", v.node, v.port), |name| quoted(name)),
        }
    }
}

fn quoted(name: &str) -> String {
    if is_bare(name) { name.to_owned() } else { format!("{name:?}") }
}

fn fact(fact: Option<&Fact>) -> String {
    fact.map_or_else(|| "?".to_owned(), ToString::to_string)
}

fn of_constant(c: &Constant) -> String {
    format!("{}{:?}", c.dtype(), c.shape())
}

/// A constant's elements, without its type.
fn literal(c: &Constant) -> String {
    let listed = |c: &Constant| -> Option<String> {
        let t = c.to_tensor().ok()?;
        match t.to_f64s() {
            // The shortest text that comes back as the same f32.
            Some(v) if c.dtype() == DType::F32 => {
                Some(format!("{:?}", v.iter().map(|&x| x as f32).collect::<Vec<_>>()))
            }
            Some(v) => Some(format!("{v:?}")),
            None => Some(format!("{:?}", t.to_i64s()?)),
        }
    };
    match recognise(c) {
        Some(g) if c.len() > 4 => g.to_string(),
        _ if c.len() <= LISTED => listed(c).unwrap_or_else(|| "..".to_owned()),
        _ => "..".to_owned(),
    }
}

fn attributes(op: &convc_runtime::Op) -> String {
    let attrs = op.to_attrs();
    if attrs.is_empty() {
        return String::new();
    }
    let each: Vec<String> = attrs.iter().map(|(name, value)| format!("{name}={}", attribute(value))).collect();
    format!(" {{{}}}", each.join(", "))
}

fn attribute(value: &AttrValue) -> String {
    match value {
        // An empty list does not show what it would be a list of.
        AttrValue::Floats(v) if v.is_empty() => "[]floats".to_owned(),
        AttrValue::Strs(v) if v.is_empty() => "[]strings".to_owned(),
        AttrValue::Tensor(t) => match Constant::from_tensor(t) {
            Ok(c) => format!("{} = {}", of_constant(&c), literal(&c)),
            Err(_) => "..".to_owned(),
        },
        other => other.to_string(),
    }
}
