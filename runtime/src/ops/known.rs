//! Known elements of small tensors on their way through operators, and sizes between dims and machine integers.

use crate::{
    DType, Dim, Fact, Known, OpError, Real, Tensor,
    fact::Shape,
    ops::{InferCx, Operator, RunCx, helpers::optional},
    sys::Pool,
};

/// The sizes of a tensor as dims.
#[must_use]
pub(crate) fn dims(shape: &[usize]) -> Vec<Dim> {
    shape.iter().map(|&n| Dim::from(n)).collect()
}

/// Dims that a run has computed, as sizes whose product the context allows.
///
/// # Errors
/// [`OpError::TooLarge`], also for a negative size.
pub(crate) fn sizes(shape: &[Dim], cx: &RunCx<'_>) -> Result<Vec<usize>, OpError> {
    let sizes: Option<Vec<usize>> = shape.iter().map(|d| usize::try_from(d.as_fixed()?).ok()).collect();
    let sizes = sizes.ok_or_else(|| OpError::TooLarge { shape: Shape(shape).to_string(), limit: cx.max_elements })?;
    cx.count(&sizes)?;
    Ok(sizes)
}

/// An [`OpError::InputShape`] about a fact or tensor of these sizes.
#[must_use]
pub(crate) fn shape_error(index: usize, name: &'static str, shape: &[Dim], expected: impl Into<String>) -> OpError {
    OpError::InputShape { index, name, shape: Shape(shape).to_string(), expected: expected.into() }
}

/// An [`OpError::InputValue`].
#[must_use]
pub(crate) fn value_error(index: usize, name: &'static str, problem: impl Into<String>) -> OpError {
    OpError::InputValue { index, name, problem: problem.into() }
}

/// `axes` counted from the front, each at most once; an operand's contents.
///
/// # Errors
/// [`OpError::InputValue`].
pub(crate) fn axes_of(axes: &[i64], rank: usize, index: usize, name: &'static str) -> Result<Vec<usize>, OpError> {
    let mut out: Vec<usize> = Vec::with_capacity(axes.len());
    for &axis in axes {
        let a = crate::ops::helpers::normalize_axis(axis, rank, name)
            .map_err(|_| value_error(index, name, format!("axis {axis} lies outside a tensor of rank {rank}")))?;
        if out.contains(&a) {
            return Err(value_error(index, name, format!("axis {axis} is named twice")));
        }
        out.push(a);
    }
    Ok(out)
}

/// The elements of an integer operand that a run was given.
///
/// # Errors
/// [`OpError::InputType`].
pub(crate) fn ints(t: &Tensor, index: usize, name: &'static str) -> Result<Vec<i64>, OpError> {
    t.to_i64s().ok_or(OpError::InputType { index, name, dtype: t.dtype(), expected: "an integer type" })
}

/// Requires an operand that lists integers: an integer type and one dimension.
///
/// # Errors
/// [`OpError::InputType`], [`OpError::InputShape`].
pub(crate) fn expect_list(fact: &Fact, index: usize, name: &'static str) -> Result<(), OpError> {
    if !fact.dtype.is_integer() {
        return Err(OpError::InputType { index, name, dtype: fact.dtype, expected: "an integer type" });
    }
    if fact.rank() == 1 { Ok(()) } else { Err(shape_error(index, name, &fact.shape, "a list is needed")) }
}

/// How many integers an operand lists.
///
/// # Errors
/// [`OpError::Unsupported`] if that is not known, for then neither is the rank of the result.
pub(crate) fn list_length(fact: &Fact, index: usize, name: &'static str) -> Result<usize, OpError> {
    expect_list(fact, index, name)?;
    let n = fact.shape.first().and_then(Dim::as_fixed).and_then(|n| usize::try_from(n).ok());
    match n {
        Some(n) if n <= Fact::MAX_KNOWN => Ok(n),
        _ => Err(OpError::Unsupported(format!("an operand {name} of unknown or excessive length"))),
    }
}

/// The integers an operand lists, new symbols standing for those that are not known.
///
/// # Errors
/// As [`list_length`].
pub(crate) fn listed(fact: &Fact, index: usize, name: &'static str, cx: &mut InferCx<'_>) -> Result<Vec<Dim>, OpError> {
    let n = list_length(fact, index, name)?;
    Ok(fact.dims().filter(|d| d.len() == n).unwrap_or_else(|| (0..n).map(|_| cx.fresh()).collect()))
}

/// The more telling of two dims that must be equal in every run.
///
/// # Errors
/// The error that `problem` makes, if they certainly differ.
pub(crate) fn unify(a: &Dim, b: &Dim, problem: impl FnOnce() -> OpError) -> Result<Dim, OpError> {
    match a.equals(b) {
        Some(false) => Err(problem()),
        _ if b.is_fixed() => Ok(b.clone()),
        _ => Ok(a.clone()),
    }
}

/// The tensor a fact knows in full.
#[must_use]
pub(crate) fn known_tensor(fact: &Fact) -> Option<Tensor> {
    match fact.known.as_ref()? {
        Known::Constant(t) => Some(t.clone()),
        Known::Dims(d) => {
            let v: Vec<i64> = d.iter().map(Dim::as_fixed).collect::<Option<_>>()?;
            let shape = fact.fixed_shape()?;
            match fact.dtype {
                DType::I64 => Tensor::new(shape, v).ok(),
                DType::I32 => {
                    let v: Vec<i32> = v.iter().map(|&x| i32::try_from(x).ok()).collect::<Option<_>>()?;
                    Tensor::new(shape, v).ok()
                }
                _ => None,
            }
        }
    }
}

/// `out` with the known elements of `x`, in the same order.
#[must_use]
pub(crate) fn carried(x: &Fact, out: Fact) -> Fact {
    match (&x.known, out.fixed_shape()) {
        (Some(Known::Dims(d)), Some(_)) => out.with_dims(d.clone()),
        (Some(Known::Constant(t)), Some(shape)) => {
            let known = t.reshaped(shape).ok().map(Known::Constant);
            Fact { known, ..out }
        }
        _ => out,
    }
}

/// Runs `op` on few elements, for what it does to known ones.
pub(crate) fn run_small<O: Operator>(op: &O, inputs: &[Option<&Tensor>]) -> Option<Vec<Tensor>> {
    let pool = Pool::new(1);
    op.run(inputs, &RunCx { max_elements: Fact::MAX_KNOWN, ..RunCx::new(Real::Native, &pool) }).ok()
}

/// `outputs` with the elements that are known because those of the inputs are. The inputs at `moved` are those whose
/// elements `op` only moves (all others must be known in full): they may be expressions.
#[must_use]
pub(crate) fn propagate<O: Operator>(
    op: &O,
    inputs: &[Option<&Fact>],
    moved: impl Fn(usize) -> bool,
    mut outputs: Vec<Fact>,
) -> Vec<Fact> {
    let small = |f: &Fact| {
        f.element_count().as_fixed().is_some_and(|n| n <= Fact::MAX_KNOWN as i64) && f.fixed_shape().is_some()
    };
    if !outputs.iter().all(small) || inputs.iter().flatten().any(|f| f.known.is_none()) {
        return outputs;
    }
    let symbolic = inputs.iter().enumerate().any(|(i, f)| moved(i) && f.is_some_and(|f| known_tensor(f).is_none()));
    // Number 0 stands for the zeros that an operator makes itself, the others for elements of the moved inputs.
    let mut elements = vec![Dim::from(0)];
    let mut tensors: Vec<Option<Tensor>> = Vec::with_capacity(inputs.len());
    for i in 0..inputs.len() {
        let Some(f) = optional(inputs, i) else {
            tensors.push(None);
            continue;
        };
        let tensor = match &f.known {
            Some(Known::Dims(d)) if symbolic && moved(i) => {
                let first = elements.len() as i64;
                elements.extend(d.iter().cloned());
                f.fixed_shape().and_then(|s| Tensor::new(s, (first..elements.len() as i64).collect::<Vec<i64>>()).ok())
            }
            _ if symbolic && moved(i) => None,
            _ => known_tensor(f),
        };
        let Some(tensor) = tensor else { return outputs };
        tensors.push(Some(tensor));
    }
    let refs: Vec<Option<&Tensor>> = tensors.iter().map(Option::as_ref).collect();
    let Some(results) = run_small(op, &refs) else { return outputs };
    for (out, result) in outputs.iter_mut().zip(&results) {
        if out.fixed_shape().as_deref() != Some(result.shape()) {
            continue;
        }
        if !symbolic {
            if result.dtype() == out.dtype {
                *out = Fact::of(result);
            }
            continue;
        }
        let numbers = result.as_slice::<i64>().unwrap_or_default();
        let found: Option<Vec<Dim>> =
            numbers.iter().map(|&n| elements.get(usize::try_from(n).ok()?).cloned()).collect();
        if let Some(found) = found {
            *out = out.clone().with_dims(found);
        }
    }
    outputs
}
