//! Sequences of tensors, where it is known while reading which tensor is meant: `SequenceAt` and `ConcatFromSequence` of what
//! `SplitToSequence` or `SequenceConstruct` makes, as exporters write `unbind`, `chunk` and `stack`. Other uses of sequences are
//! carried through.

use convc_runtime::{
    Dim, Tensor,
    ops::{Concat, Gather, Slice, Unsqueeze},
};

use super::{ImportError, NodeReader, Reader};
use crate::ir::{Graph, Kind, Value};

/// The operators that make sequences: nodes that are carried, and dead once every use is read.
const MAKERS: [&str; 2] = ["SplitToSequence", "SequenceConstruct"];

/// The operators that are read here.
pub(super) const READS: [&str; 2] = ["SequenceAt", "ConcatFromSequence"];

/// The reader of one of [`READS`].
pub(super) fn reader(op_type: &str) -> Option<Reader> {
    match op_type {
        "SequenceAt" => Some(at),
        "ConcatFromSequence" => Some(concat),
        _ => None,
    }
}

/// Whether nodes of this type only make a sequence, so that nothing is lost with one that nothing uses.
#[must_use]
pub fn makes_sequence(domain: &str, op_type: &str) -> bool {
    domain.is_empty() && MAKERS.contains(&op_type)
}

/// A sequence whose tensors can be told while reading.
enum Sequence {
    /// The tensors.
    Of(Vec<Value>),
    /// Pieces of a tensor along an axis.
    Pieces { x: Value, axis: i64, by: Pieces },
}

/// How long the pieces are.
enum Pieces {
    /// 1 each, without the axis.
    Unbound,
    /// As long as this, but for the last.
    Equal(i64),
    /// Each its own.
    Own(Vec<i64>),
}

fn unsupported(what: &str) -> ImportError {
    ImportError::Unsupported(format!("{what}, and sequences are not executed"))
}

/// The sequence that an operand is.
fn sequence(graph: &Graph, operand: Value) -> Result<Sequence, ImportError> {
    let unknown = || unsupported("which tensors the sequence holds is not known");
    let node = graph.node(operand.node);
    let Kind::Opaque(maker) = &node.kind else { return Err(unknown()) };
    if maker.op_type == "SequenceConstruct" {
        return node.operands().iter().copied().collect::<Option<Vec<_>>>().map(Sequence::Of).ok_or_else(unknown);
    }
    if maker.op_type != "SplitToSequence" {
        return Err(unknown());
    }
    let int = |name: &str| maker.integers.get(name).copied();
    let x = node.operands().first().copied().flatten().ok_or_else(unknown)?;
    let axis = int("axis").unwrap_or(0);
    let by = match node.operands().get(1).copied().flatten() {
        None if int("keepdims") == Some(0) => Pieces::Unbound,
        None => Pieces::Equal(1),
        Some(split) => {
            let sizes = graph.constant(split).and_then(|c| c.to_tensor().ok()).ok_or_else(unknown)?;
            let list = sizes.to_i64s().ok_or_else(unknown)?;
            match *list {
                [size] if sizes.shape().is_empty() => Pieces::Equal(size),
                _ => Pieces::Own(list.to_vec()),
            }
        }
    };
    Ok(Sequence::Pieces { x, axis, by })
}

/// `SequenceAt(sequence, position)` of a constant position.
fn at(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
    let of = node.required(0, "input_sequence")?;
    node.required(1, "position")?;
    node.finish()?;
    let position = node.constant(1).and_then(|t| t.to_i64s()?.first().copied());
    let position = position.ok_or_else(|| unsupported("the position is not constant"))?;
    let outside = |count: usize| ImportError::Invalid(format!("position {position} of a sequence of {count} tensors"));
    let index = |count: usize| {
        let i = if position < 0 { position.checked_add(count as i64) } else { Some(position) };
        i.and_then(|i| usize::try_from(i).ok()).filter(|&i| i < count).ok_or_else(|| outside(count))
    };
    match sequence(node.graph(), of)? {
        Sequence::Of(tensors) => Ok(vec![tensors[index(tensors.len())?]]),
        Sequence::Pieces { x, axis, by } => {
            let axis = node.from_front_of(x, axis, 0);
            let whole = |node: &NodeReader<'_>| {
                let fact = node.fact_of(x)?;
                fact.shape.get(usize::try_from(axis).ok()?).and_then(Dim::as_fixed)
            };
            let bounds = match by {
                Pieces::Unbound => {
                    let i = node.add_constant(&Tensor::scalar(position))?;
                    return node.emit(Gather { axis }, vec![Some(x), Some(i)]);
                }
                Pieces::Equal(1) => {
                    let i = node.add_ints(&[position])?;
                    return node.emit(Gather { axis }, vec![Some(x), Some(i)]);
                }
                Pieces::Own(sizes) => {
                    let i = index(sizes.len())?;
                    let sum = |of: &[i64]| of.iter().try_fold(0i64, |s, &n| s.checked_add(n).filter(|_| n >= 0));
                    let (Some(start), Some(all)) = (sum(&sizes[..i]), sum(&sizes)) else {
                        return Err(ImportError::Invalid(format!("pieces of {sizes:?} elements")));
                    };
                    if let Some(whole) = whole(node).filter(|w| *w != all) {
                        return Err(ImportError::Invalid(format!("the pieces are {all} together, not {whole}")));
                    }
                    [start, start + sizes[i]]
                }
                Pieces::Equal(size) if size > 0 => {
                    let whole = whole(node).ok_or_else(|| unsupported("the number of pieces is not known"))?;
                    let count = usize::try_from(whole.div_euclid(size) + i64::from(whole % size != 0));
                    let start = index(count.unwrap_or(0))? as i64 * size;
                    [start, (start + size).min(whole)]
                }
                Pieces::Equal(size) => return Err(ImportError::Invalid(format!("pieces of {size} elements"))),
            };
            let [start, end] = bounds;
            let [start, end, axis] = [node.add_ints(&[start])?, node.add_ints(&[end])?, node.add_ints(&[axis])?];
            node.emit(Slice {}, vec![Some(x), Some(start), Some(end), Some(axis)])
        }
    }
}

/// `ConcatFromSequence(SequenceConstruct(..))`.
fn concat(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
    let of = node.required(0, "input_sequence")?;
    let axis = node.int("axis")?.ok_or_else(|| ImportError::Invalid("attribute axis is missing".into()))?;
    let stacks = node.int("new_axis")?.unwrap_or(0) != 0;
    node.finish()?;
    let Sequence::Of(tensors) = sequence(node.graph(), of)? else {
        return Err(unsupported("the sequence is the pieces of a tensor"));
    };
    let axis = tensors.first().map_or(axis, |t| node.from_front_of(*t, axis, usize::from(stacks)));
    let mut parts = Vec::with_capacity(tensors.len());
    for t in tensors {
        parts.push(Some(if stacks {
            let axes = node.add_ints(&[axis])?;
            node.add(Unsqueeze {}, vec![Some(t), Some(axes)], 1)?[0]
        } else {
            t
        }));
    }
    node.emit(Concat { axis }, parts)
}
