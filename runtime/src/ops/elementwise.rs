//! The loops of elementwise operators: maps and broadcasting pairs, shared out to threads when they are long.

use crate::{DType, Dim, Element, Fact, OpError, Tensor, fact::Shape, ops::helpers::elements, sys::Pool};

/// Elements that one thread takes at a time.
const PIECE: usize = 1 << 14;
/// Fewer elements than this are not worth a second thread.
const LARGE: usize = 1 << 16;

/// `f` of each element.
pub fn map<T: Sync, U: Element>(pool: &Pool, source: &[T], f: impl Fn(&T) -> U + Sync) -> Vec<U> {
    if pool.threads() == 1 || source.len() < LARGE {
        return source.iter().map(f).collect();
    }
    let mut out = vec![U::default(); source.len()];
    pool.for_each_chunk(&mut out, PIECE, &|i, piece| {
        for (o, x) in piece.iter_mut().zip(&source[i * PIECE..]) {
            *o = f(x);
        }
    });
    out
}

/// Elements and their shape.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a, T> {
    /// Row-major elements, as many as `shape` says.
    pub elements: &'a [T],
    /// The sizes.
    pub shape: &'a [usize],
}

impl<'a, T: Element> Operand<'a, T> {
    /// The tensor's elements as `T`; `index` and `name` say which input it is.
    ///
    /// # Errors
    /// [`OpError::InputType`].
    pub fn of(tensor: &'a Tensor, index: usize, name: &'static str) -> Result<Operand<'a, T>, OpError> {
        Ok(Operand { elements: elements(tensor, index, name)?, shape: tensor.shape() })
    }
}

/// One axis of a walk over two operands: its size and each operand's step.
#[derive(Debug, Clone, Copy)]
struct Step {
    size: usize,
    a: usize,
    b: usize,
}

/// The shape that two shapes broadcast to.
///
/// # Errors
/// [`OpError::InputShape`] for the operand at `index`.
pub fn broadcast_pair(a: &[usize], b: &[usize], index: usize) -> Result<Vec<usize>, OpError> {
    let rank = a.len().max(b.len());
    let size = |s: &[usize], axis: usize| (axis + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
    (0..rank)
        .map(|axis| match (size(a, axis), size(b, axis)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(OpError::InputShape {
                index,
                name: "operand",
                shape: format!("{b:?}"),
                expected: format!("which does not broadcast with {a:?}"),
            }),
        })
        .collect()
}

/// The axes of `out` with neighbours merged where both operands allow it; axes of size 1 are gone.
fn steps(a: &[usize], b: &[usize], out: &[usize]) -> Vec<Step> {
    let (sa, sb) = (super::helpers::broadcast_strides(a, out), super::helpers::broadcast_strides(b, out));
    let mut merged: Vec<Step> = Vec::new();
    for ((&size, &a), &b) in out.iter().zip(&sa).zip(&sb).filter(|((size, _), _)| **size != 1) {
        match merged.last_mut() {
            Some(outer) if outer.a == a * size && outer.b == b * size => {
                *outer = Step { size: outer.size * size, a, b };
            }
            _ => merged.push(Step { size, a, b }),
        }
    }
    merged
}

/// `f` of each pair of elements of two operands that broadcast to `out`.
pub fn zip<A: Sync, B: Sync, U: Clone + Default + Send>(
    pool: &Pool,
    a: Operand<'_, A>,
    b: Operand<'_, B>,
    out: &[usize],
    f: impl Fn(&A, &B) -> U + Sync,
) -> Vec<U> {
    let count: usize = out.iter().product();
    if count == 0 {
        return Vec::new();
    }
    let mut outer = steps(a.shape, b.shape, out);
    let inner = outer.pop().unwrap_or(Step { size: 1, a: 0, b: 0 });
    if outer.is_empty() && inner.a == 1 && inner.b == 1 && (pool.threads() == 1 || count < LARGE) {
        return a.elements.iter().zip(b.elements).map(|(x, y)| f(x, y)).collect();
    }
    let mut y = vec![U::default(); count];
    let fill = |start: usize, piece: &mut [U]| {
        let (mut row, mut column) = (start / inner.size, start % inner.size);
        let (mut at_a, mut at_b) = (0, 0);
        let mut index = vec![0; outer.len()];
        for (i, s) in index.iter_mut().zip(&outer).rev() {
            *i = row % s.size;
            row /= s.size;
            at_a += *i * s.a;
            at_b += *i * s.b;
        }
        let mut rest = piece;
        loop {
            let n = rest.len().min(inner.size - column);
            let (head, tail) = rest.split_at_mut(n);
            match (inner.a, inner.b) {
                (0, _) => {
                    let x = &a.elements[at_a];
                    head.iter_mut().zip(&b.elements[at_b + column..]).for_each(|(o, y)| *o = f(x, y));
                }
                (_, 0) => {
                    let y = &b.elements[at_b];
                    head.iter_mut().zip(&a.elements[at_a + column..]).for_each(|(o, x)| *o = f(x, y));
                }
                _ => {
                    let pairs = a.elements[at_a + column..].iter().zip(&b.elements[at_b + column..]);
                    head.iter_mut().zip(pairs).for_each(|(o, (x, y))| *o = f(x, y));
                }
            }
            if tail.is_empty() {
                break;
            }
            rest = tail;
            column = 0;
            for (i, s) in index.iter_mut().zip(&outer).rev() {
                *i += 1;
                at_a += s.a;
                at_b += s.b;
                if *i < s.size {
                    break;
                }
                *i = 0;
                at_a -= s.a * s.size;
                at_b -= s.b * s.size;
            }
        }
    };
    if pool.threads() == 1 || count < LARGE {
        fill(0, &mut y);
    } else {
        pool.for_each_chunk(&mut y, PIECE, &|i, piece| fill(i * PIECE, piece));
    }
    y
}

/// `f` of each pair of known elements of two small integer tensors, if all are known and `f` decides for each pair.
#[must_use]
pub fn zip_dims<U: Clone + Send>(
    a: &Fact,
    b: &Fact,
    out: &[Dim],
    f: impl Fn(&Dim, &Dim) -> Option<U> + Sync,
) -> Option<Vec<U>> {
    let (da, db) = (a.dims()?, b.dims()?);
    let shape = Fact::new(DType::I64, out).fixed_shape()?;
    if crate::dim::element_count(&shape)? > Fact::MAX_KNOWN {
        return None;
    }
    let (sa, sb) = (a.fixed_shape()?, b.fixed_shape()?);
    let a = Operand { elements: &da, shape: &sa };
    let b = Operand { elements: &db, shape: &sb };
    zip(&Pool::new(1), a, b, &shape, f).into_iter().collect()
}

/// Requires that two inputs have the same element type.
///
/// # Errors
/// [`OpError::InputType`] for the second, which is at `index`.
pub fn same_type(first: DType, second: DType, index: usize, name: &'static str) -> Result<(), OpError> {
    if first == second {
        return Ok(());
    }
    Err(OpError::InputType { index, name, dtype: second, expected: "that of the first input" })
}

/// The error for a fact whose shape does not fit.
pub fn shape_error(index: usize, name: &'static str, fact: &Fact, expected: impl Into<String>) -> OpError {
    OpError::InputShape { index, name, shape: Shape(&fact.shape).to_string(), expected: expected.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_meet_as_index_arithmetic_says() {
        let cases: &[(&[usize], &[usize])] = &[
            (&[], &[]),
            (&[3], &[]),
            (&[], &[2, 3]),
            (&[2, 3, 4, 5], &[2, 3, 4, 5]),
            (&[2, 3, 4, 5], &[3, 1, 1]),
            (&[2, 3, 4, 5], &[5]),
            (&[2, 3, 4, 5], &[2, 1, 1, 5]),
            (&[2, 1, 4, 1], &[3, 1, 5]),
            (&[0, 3], &[1, 3]),
            (&[1, 1], &[4, 1, 1]),
            (&[70, 1, 31], &[1, 41, 31]),
        ];
        for &(sa, sb) in cases {
            let out = broadcast_pair(sa, sb, 1).unwrap();
            let a: Vec<usize> = (0..sa.iter().product()).collect();
            let b: Vec<usize> = (0..sb.iter().product()).map(|x: usize| x * 1_000_003).collect();
            let offset = |shape: &[usize], flat: usize| {
                let (mut rest, mut step, mut at) = (flat, 1, 0);
                for axis in (0..out.len()).rev() {
                    let i = rest % out[axis];
                    rest /= out[axis];
                    if let Some(k) = (axis + shape.len()).checked_sub(out.len()) {
                        at += if shape[k] == 1 { 0 } else { i * step };
                        step *= shape[k];
                    }
                }
                at
            };
            let want: Vec<usize> = (0..out.iter().product()).map(|i| a[offset(sa, i)] + b[offset(sb, i)]).collect();
            for threads in [1, 3] {
                let (a, b) = (Operand { elements: &a, shape: sa }, Operand { elements: &b, shape: sb });
                assert_eq!(zip(&Pool::new(threads), a, b, &out, |x, y| x + y), want, "{sa:?} {sb:?}");
            }
        }
        assert!(broadcast_pair(&[2, 3], &[2], 1).is_err());
    }
}
