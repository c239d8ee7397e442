//! Split, whose outputs rules see as the slices they are.
//!
//! Terms have one output, so a part of fixed place is the term `Slice(x, starts, ends, axes)`. While rewriting lasts the graph
//! has Slice nodes as well; in the end slices of one value that do not overlap become a Split again.

use std::collections::BTreeMap;

use convc_runtime::{
    Constant, Dim, Op,
    ops::{Slice, Split},
};

use super::{
    RewriteError,
    engine::Engine,
    keys::ConstantKey,
    rules::{
        read::axes::{axis, from_either_end},
        weights::ints,
    },
    terms::{TermId, Terms},
};
use crate::ir::{Graph, NodeId, Origin, Value};

/// The part of a Split at an output: the axis, its first element and the one behind its last; `None` if any is not fixed.
fn part(graph: &Graph, id: NodeId, port: usize) -> Option<(usize, i64, i64)> {
    let node = graph.node(id);
    let Some(Op::Split(split)) = node.op() else { return None };
    let x = graph.fact(node.operands().first().copied().flatten()?)?;
    let axis = axis(split.axis, x.rank())?;
    let sizes: Option<Vec<i64>> =
        node.facts().iter().map(|f| f.as_ref()?.shape.get(axis)?.as_fixed()).take(port + 1).collect();
    let sizes = sizes?;
    let start: i64 = sizes.iter().take(port).sum();
    Some((axis, start, start + sizes.get(port)?))
}

/// The operands of a Slice along one axis, but for the first.
fn bounds(axis: usize, start: i64, end: i64) -> [Constant; 3] {
    [ints(&[start]), ints(&[end]), ints(&[i64::try_from(axis).unwrap_or(i64::MAX)])]
}

/// The term of an output of a Split on the term `x`, where its place is fixed.
pub(super) fn term_of_part(graph: &Graph, terms: &mut Terms, id: NodeId, port: usize, x: TermId) -> Option<TermId> {
    let (axis, start, end) = part(graph, id, port)?;
    let mut operands = vec![Some(x)];
    operands.extend(bounds(axis, start, end).iter().map(|c| Some(terms.constant(c))));
    let fact = graph.node(id).facts().get(port).cloned().flatten();
    Some(terms.apply(&Slice {}.into(), operands, fact.as_ref()))
}

/// A Slice along one axis in steps of 1 at a fixed place of an axis of fixed size.
struct Cut {
    id: NodeId,
    start: i64,
    end: i64,
}

/// Reads a node as a [`Cut`]: the value, the axis and its size, and the cut.
fn cut(graph: &Graph, id: NodeId) -> Option<(Value, usize, i64, Cut)> {
    let node = graph.node(id);
    let Some(Op::Slice(_)) = node.op() else { return None };
    let operand = |i: usize| node.operands().get(i).copied().flatten();
    let x = operand(0)?;
    let list = |i: usize| -> Option<Vec<i64>> { graph.constant(operand(i)?)?.to_tensor().ok()?.to_i64s() };
    let (starts, ends) = (list(1)?, list(2)?);
    let ([start], [_]) = (starts.as_slice(), ends.as_slice()) else { return None };
    let start = *start;
    if operand(4).is_some() && list(4)? != [1] {
        return None;
    }
    let fact = graph.fact(x)?;
    let axis = if operand(3).is_some() { *from_either_end(&list(3)?, fact.rank())?.first()? } else { 0 };
    let size = fact.shape.get(axis)?.as_fixed()?;
    let start = if start < 0 { start + size } else { start }.clamp(0, size);
    let length = graph.fact(Value { node: id, port: 0 })?.shape.get(axis).and_then(Dim::as_fixed)?;
    (length > 0).then_some((x, axis, size, Cut { id, start, end: start + length }))
}

impl Engine {
    /// Replaces every Split whose parts have fixed places by slices.
    ///
    /// # Errors
    /// If Slice refuses its operands, which would be a defect.
    pub fn splits_to_slices(&mut self) -> Result<(), RewriteError> {
        for id in self.graph.topological() {
            let outputs = self.graph.node(id).outputs();
            let parts: Option<Vec<(usize, i64, i64)>> = (0..outputs).map(|p| part(&self.graph, id, p)).collect();
            let (Some(parts), Some(&Some(x))) = (parts, self.graph.node(id).operands().first()) else { continue };
            let (name, origins) = (self.graph.node(id).name.clone(), self.graph.node(id).origins.clone());
            for (port, (axis, start, end)) in parts.into_iter().enumerate() {
                let v = Value { node: id, port: u32::try_from(port).unwrap_or(u32::MAX) };
                if self.graph.uses(v).is_empty() && !self.graph.is_output(v) {
                    continue;
                }
                let operands: Vec<Option<Value>> = std::iter::once(Some(x))
                    .chain(bounds(axis, start, end).into_iter().map(|c| Some(self.graph.add_constant(c))))
                    .collect();
                let slice = add(&mut self.graph, Slice {}.into(), operands, 1)?;
                self.graph.annotate(slice, name.clone(), origins.clone());
                self.hand_over(v, Value { node: slice, port: 0 });
            }
        }
        self.graph.remove_dead();
        self.refresh();
        Ok(())
    }

    /// Makes one Split of the slices of a value along an axis that do not overlap, where there are two or more.
    ///
    /// # Errors
    /// If Split refuses its operands, which would be a defect.
    pub fn slices_to_splits(&mut self) -> Result<(), RewriteError> {
        let mut groups: BTreeMap<(Value, usize), (i64, Vec<Cut>)> = BTreeMap::new();
        for id in self.graph.topological() {
            if let Some((x, axis, size, cut)) = cut(&self.graph, id) {
                groups.entry((x, axis)).or_insert_with(|| (size, Vec::new())).1.push(cut);
            }
        }
        for ((x, axis), (size, mut cuts)) in groups {
            cuts.sort_by_key(|c| c.start);
            let apart = cuts.windows(2).all(|w| w[0].end <= w[1].start);
            let covered: i64 = cuts.iter().map(|c| c.end - c.start).sum();
            // What lies between is copied for nothing, so it must be the lesser part.
            if cuts.len() < 2 || !apart || covered * 2 < size {
                continue;
            }
            self.join(x, axis, size, &cuts)?;
        }
        self.graph.remove_dead();
        self.refresh();
        Ok(())
    }

    fn join(&mut self, x: Value, axis: usize, size: i64, cuts: &[Cut]) -> Result<(), RewriteError> {
        let mut sizes = Vec::new();
        let mut ports = Vec::new();
        let mut at = 0;
        for c in cuts {
            if c.start > at {
                sizes.push(c.start - at);
            }
            ports.push(sizes.len());
            sizes.push(c.end - c.start);
            at = c.end;
        }
        if at < size {
            sizes.push(size - at);
        }
        let count = i64::try_from(sizes.len()).unwrap_or(i64::MAX);
        let each = (size + count - 1) / count;
        let even =
            (1..count).zip(&sizes).all(|(_, &s)| s == each) && sizes.last() == Some(&(size - each * (count - 1)));
        let parts = ints(&sizes);
        // Sizes that the model does not hold would be a constant that nothing in it leads to.
        if !even && self.terms.find_constant(&ConstantKey::of(&parts)).is_none() {
            return Ok(());
        }
        let origins: Vec<Origin> = {
            let all = cuts.iter().flat_map(|c| self.graph.node(c.id).origins.iter().cloned());
            all.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
        };
        let name = self.name_from("Split", &origins);
        let op = Split { axis: i64::try_from(axis).unwrap_or(i64::MAX), num_outputs: count };
        let mut operands = vec![Some(x)];
        if !even {
            operands.push(Some(self.graph.add_constant(parts)));
        }
        let split = add(&mut self.graph, op.into(), operands, sizes.len())?;
        self.graph.annotate(split, name, origins);
        for (c, port) in cuts.iter().zip(ports) {
            let new = Value { node: split, port: u32::try_from(port).unwrap_or(u32::MAX) };
            self.hand_over(Value { node: c.id, port: 0 }, new);
        }
        Ok(())
    }
}

fn add(graph: &mut Graph, op: Op, operands: Vec<Option<Value>>, outputs: usize) -> Result<NodeId, RewriteError> {
    let name = op.name();
    graph.add_op(op, operands, outputs).map_err(|source| RewriteError::Emit { op: name, term: name.into(), source })
}
