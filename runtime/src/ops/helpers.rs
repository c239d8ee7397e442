//! What many operators share: reading inputs, axes, broadcasting.

use crate::{
    DType, Dim, Element, Fact, Known, OpError, Real, Tensor,
    fact::Shape,
    ops::{Operator, RunCx},
    sys::Pool,
};

/// The fact or tensor at `index`, which the operator requires.
///
/// # Errors
/// [`OpError::MissingInput`].
pub fn required<'a, T>(inputs: &[Option<&'a T>], index: usize, name: &'static str) -> Result<&'a T, OpError> {
    optional(inputs, index).ok_or(OpError::MissingInput { index, name })
}

/// The fact or tensor at `index`, if there is one.
#[must_use]
pub fn optional<'a, T>(inputs: &[Option<&'a T>], index: usize) -> Option<&'a T> {
    inputs.get(index).copied().flatten()
}

/// The elements of the input at `index` as `T`.
///
/// # Errors
/// [`OpError::InputType`].
pub fn elements<'a, T: Element>(t: &'a Tensor, index: usize, name: &'static str) -> Result<&'a [T], OpError> {
    t.as_slice().ok_or(OpError::InputType { index, name, dtype: t.dtype(), expected: T::DTYPE.name() })
}

/// `axis` counted from the front.
///
/// # Errors
/// [`OpError::Attribute`] if it lies outside `-rank..rank`.
pub fn normalize_axis(axis: i64, rank: usize, name: &'static str) -> Result<usize, OpError> {
    let r = rank as i64;
    let front = if axis < 0 { axis.checked_add(r) } else { Some(axis) };
    match front {
        Some(a) if (0..r).contains(&a) => Ok(a as usize),
        _ => Err(OpError::Attribute { name, problem: format!("axis {axis} lies outside a tensor of rank {rank}") }),
    }
}

/// The shape that `shapes` broadcast to by NumPy's rules, at all sizes at which they do, as a run checks again. Of two sizes
/// that are both open, the result is the one that is not 1: the larger one, but 0 where one of them is 0.
///
/// # Errors
/// [`OpError::InputShape`] if two sizes differ for certain and neither is 1.
pub fn broadcast(shapes: &[&[Dim]]) -> Result<Vec<Dim>, OpError> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut out = vec![Dim::from(1); rank];
    for (index, shape) in shapes.iter().enumerate() {
        for (axis, d) in shape.iter().enumerate() {
            let o = &mut out[rank - shape.len() + axis];
            if d.as_fixed() == Some(1) || o == d {
                continue;
            }
            match (o.as_fixed(), d.as_fixed()) {
                (Some(1), _) => *o = d.clone(),
                (Some(_), Some(_)) => {
                    return Err(OpError::InputShape {
                        index,
                        name: "operand",
                        shape: Shape(shape).to_string(),
                        expected: format!("which does not broadcast with {}", Shape(&out)),
                    });
                }
                // A fixed size other than 1 decides: the symbol is either 1 or equal to it.
                (None, Some(_)) => *o = d.clone(),
                (Some(_), None) => {}
                (None, None) if o.at_least(2) == Some(true) => {}
                (None, None) if d.at_least(2) == Some(true) => *o = d.clone(),
                (None, None) => *o = o.maximum(d) * Dim::from(1).minimum(o).minimum(d),
            }
        }
    }
    Ok(out)
}

/// [`broadcast`] of concrete sizes.
///
/// # Errors
/// [`OpError::InputShape`].
pub fn broadcast_sizes(shapes: &[&[usize]]) -> Result<Vec<usize>, OpError> {
    let dims: Vec<Vec<Dim>> = shapes.iter().map(|s| s.iter().map(|&n| Dim::from(n)).collect()).collect();
    let refs: Vec<&[Dim]> = dims.iter().map(Vec::as_slice).collect();
    Ok(broadcast(&refs)?.iter().filter_map(|d| usize::try_from(d.as_fixed()?).ok()).collect())
}

/// Row-major strides of `shape` when read as an operand of rank `out_rank`: 0 where it is broadcast.
#[must_use]
pub fn broadcast_strides(shape: &[usize], out: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; out.len()];
    let mut step = 1;
    for (axis, &n) in shape.iter().enumerate().rev() {
        let o = out.len() - shape.len() + axis;
        strides[o] = if n == 1 && out[o] != 1 { 0 } else { step };
        step *= n;
    }
    strides
}

/// Requires that `fact` has one of `dtypes`.
///
/// # Errors
/// [`OpError::InputType`].
pub fn expect_dtype(
    fact: &Fact,
    index: usize,
    name: &'static str,
    expected: &'static str,
    ok: impl Fn(DType) -> bool,
) -> Result<(), OpError> {
    if ok(fact.dtype) { Ok(()) } else { Err(OpError::InputType { index, name, dtype: fact.dtype, expected }) }
}

/// The tensor that a fact describes in full, if its elements are all known.
#[must_use]
pub fn known_tensor(fact: &Fact) -> Option<Tensor> {
    let shape = fact.fixed_shape()?;
    match fact.known.as_ref()? {
        Known::Constant(t) => Some(t.clone()),
        Known::Dims(d) => {
            let v: Vec<i64> = d.iter().map(Dim::as_fixed).collect::<Option<_>>()?;
            match fact.dtype {
                DType::I64 => Tensor::new(shape, v).ok(),
                DType::I32 => {
                    let v: Vec<i32> = v.into_iter().map(|x| i32::try_from(x).ok()).collect::<Option<_>>()?;
                    Tensor::new(shape, v).ok()
                }
                _ => None,
            }
        }
    }
}

/// What running `op` says of its outputs, if every input is known in full and the outputs are small.
#[must_use]
pub fn fold(op: &impl Operator, inputs: &[Option<&Fact>]) -> Option<Vec<Fact>> {
    let tensors: Vec<Option<Tensor>> =
        inputs.iter().map(|f| f.map_or(Some(None), |f| known_tensor(f).map(Some))).collect::<Option<_>>()?;
    let refs: Vec<Option<&Tensor>> = tensors.iter().map(Option::as_ref).collect();
    let pool = Pool::new(1);
    let cx = RunCx { max_elements: Fact::MAX_KNOWN, ..RunCx::new(Real::Native, &pool) };
    Some(op.run(&refs, &cx).ok()?.iter().map(Fact::of).collect())
}

/// The facts about these very tensors, elements left out: to check the operands of a run as `infer` does.
#[must_use]
pub fn facts(tensors: &[Option<&Tensor>]) -> Vec<Option<Fact>> {
    tensors.iter().map(|t| t.map(|t| Fact::fixed(t.dtype(), t.shape()))).collect()
}

/// Requires a floating-point type that is executed.
///
/// # Errors
/// [`OpError::InputType`].
pub fn expect_float(fact: &Fact, index: usize, name: &'static str) -> Result<(), OpError> {
    expect_dtype(fact, index, name, "a floating-point type", DType::is_float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bindings;

    #[test]
    fn open_sizes_broadcast_to_what_a_run_finds() {
        let texts = ["N", "M", "'?K'", "N + 1", "floor(H/2)", "2*M", "floor(N/2)*M", "1", "3"];
        let dims = texts.map(|t| Dim::parse(t).unwrap());
        let mut tried = 0;
        for k in 0..dims.len().pow(3) {
            let of = |place: u32| &dims[k / dims.len().pow(place) % dims.len()];
            let operands = [of(0), of(1), of(2)];
            let Ok(whole) = broadcast(&operands.map(std::slice::from_ref)) else { continue };
            for i in 0..4i64.pow(4) {
                let value = |place: u32, least: i64| least + i / 4i64.pow(place) % 4;
                let bindings = Bindings::from([
                    ("N".into(), value(0, 1)),
                    ("M".into(), value(1, 1)),
                    ("?K".into(), value(2, 0)),
                    ("H".into(), value(3, 1)),
                ]);
                let sizes = operands.map(|d| usize::try_from(d.eval(&bindings).unwrap()).unwrap());
                let Ok(found) = broadcast_sizes(&[&sizes[..1], &sizes[1..2], &sizes[2..]]) else { continue };
                assert_eq!(whole[0].eval(&bindings), Ok(found[0] as i64), "{operands:?} at {bindings:?}: {}", whole[0]);
                tried += 1;
            }
        }
        assert!(tried > 1000);
    }
}
