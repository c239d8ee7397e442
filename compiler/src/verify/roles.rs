//! What integer inputs are for: elements that index must lie in range, sizes must be small and positive, all others are free.

use std::collections::{BTreeMap, BTreeSet};

use convc_runtime::{Bindings, Dim};

use crate::ir::{Graph, Kind, Value};

/// What an input's elements are used as.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Role {
    /// The sizes of the axes that the elements index, if they index any: each element must lie below all of them.
    pub indexes: Vec<Dim>,
    /// The elements are sizes, or numbers of repetitions, or parts of a shape.
    pub sizes: bool,
    /// The elements are places in a tensor that may lie beyond it, as those of Slice.
    pub places: bool,
}

impl Role {
    /// Whether any element will do.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.indexes.is_empty() && !self.sizes && !self.places
    }

    /// The number of which every index must be below, where sizes are these.
    #[must_use]
    pub fn limit(&self, bindings: &Bindings) -> Option<i64> {
        self.indexes.iter().filter_map(|d| d.eval(bindings).ok()).min()
    }
}

/// Operators whose results are indices where their operands are, or are made of them.
const CARRIERS: &[&str] = &[
    "Abs",
    "Add",
    "Cast",
    "Clip",
    "Concat",
    "Div",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "Identity",
    "Max",
    "Min",
    "Mod",
    "Mul",
    "Neg",
    "Pad",
    "Range",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "Reshape",
    "ScatterElements",
    "ScatterND",
    "Slice",
    "Split",
    "Squeeze",
    "Sub",
    "Tile",
    "TopK",
    "Transpose",
    "Unsqueeze",
    "Where",
];

/// The role of each input of a graph, by what becomes of it.
#[must_use]
pub fn roles(graph: &Graph) -> BTreeMap<String, Role> {
    let name = |v: Value| Some((graph.value_name(v)?.to_owned(), role(graph, v)));
    graph.inputs().into_iter().filter_map(name).collect()
}

fn role(graph: &Graph, input: Value) -> Role {
    let mut role = Role::default();
    let mut seen = BTreeSet::from([input]);
    let mut stack = vec![input];
    while let Some(v) = stack.pop() {
        for (id, operand) in graph.uses(v) {
            let node = graph.node(id);
            let Kind::Op(op) = &node.kind else { continue };
            let axis = |name: &str| match op.to_attrs().get(name) {
                Some(convc_runtime::AttrValue::Int(axis)) => *axis,
                _ => 0,
            };
            let data = node.operands().first().copied().flatten().and_then(|d| graph.fact(d));
            let size = |axis: i64| {
                let rank = data.map_or(0, |d| i64::try_from(d.rank()).unwrap_or(0));
                let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
                data?.shape.get(axis).cloned()
            };
            match (op.name(), operand) {
                ("Gather" | "GatherElements" | "ScatterElements", 1) => role.indexes.extend(size(axis("axis"))),
                ("GatherND" | "ScatterND", 1) => role.indexes.extend(data.iter().flat_map(|d| d.shape.clone())),
                ("OneHot", 0) => {
                    let depth = node.operands().get(1).copied().flatten().and_then(|d| graph.fact(d)?.dims());
                    role.indexes.extend(depth.into_iter().flatten());
                }
                ("Slice", 1 | 2) => role.places = true,
                (
                    "Reshape" | "Expand" | "Tile" | "Split" | "TopK" | "OneHot" | "Pad" | "CenterCropPad" | "Col2Im",
                    1..,
                )
                | ("Resize", 3)
                | ("Slice", 4)
                | ("ConstantOfShape" | "EyeLike", 0)
                | ("Range", _) => role.sizes = true,
                _ => {}
            }
            let first_only = matches!(op.name(), "Gather" | "GatherElements" | "GatherND" | "Slice" | "Reshape");
            if CARRIERS.contains(&op.name()) && (operand == 0 || !first_only) {
                let results =
                    (0..node.outputs()).filter_map(|p| Some(Value { node: id, port: u32::try_from(p).ok()? }));
                stack.extend(results.filter(|r| graph.dtype(*r).is_some_and(|t| !t.is_float()) && seen.insert(*r)));
            }
        }
    }
    role
}
