//! What pooling, normalisation and resampling share: planes spread over threads, windows walked row by row, sums in a
//! fixed order.

use crate::{Dim, Element, Fact, OpError, Tensor, fact::Shape, ops::RunCx, scalar::Scalar, window::Axis};

/// Below this many elementary steps a loop stays on the calling thread.
const STEPS_PER_PIECE: usize = 1 << 14;

/// Cuts `out` into planes of `plane` elements and calls `work(i, plane i)` for each, on the run's threads if `steps`, the
/// elementary steps a plane takes, make it worth while.
pub(crate) fn for_each_plane<T: Send>(
    cx: &RunCx<'_>,
    out: &mut [T],
    plane: usize,
    steps: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) {
    if plane == 0 {
        return;
    }
    let group = (STEPS_PER_PIECE / steps.max(1)).max(1);
    let pieces = |first: usize, piece: &mut [T]| {
        for (i, p) in piece.chunks_mut(plane).enumerate() {
            work(first + i, p);
        }
    };
    if out.len() / plane <= group {
        pieces(0, out);
    } else {
        cx.pool.for_each_chunk(out, plane * group, &|i, piece| pieces(i * group, piece));
    }
}

/// Calls `visit(tap, row)` for the taps over the `outer` axes that lie inside the input, in row-major order: the number of
/// the tap and the row of the input that row `row` of the output reads through it.
pub(crate) fn outer_taps(outer: &[Axis], row: usize, visit: &mut dyn FnMut(usize, usize)) {
    fn walk(axes: &[Axis], row: usize, tap: usize, source: usize, visit: &mut dyn FnMut(usize, usize)) {
        let Some((axis, rest)) = axes.split_first() else {
            visit(tap, source);
            return;
        };
        let below = rest.iter().map(|a| a.output).product::<usize>().max(1);
        for t in 0..axis.kernel {
            if let Some(s) = axis.source(row / below, t) {
                walk(rest, row % below, tap * axis.kernel + t, source * axis.input + s, visit);
            }
        }
    }
    walk(outer, row, 0, 0, visit);
}

/// Calls `step(y, x)` for each output of a row that tap `tap` reaches, in `range` only.
#[inline(always)]
pub(crate) fn tap_row<T: Copy, U>(
    axis: &Axis,
    tap: usize,
    range: std::ops::Range<usize>,
    y: &mut [U],
    x: &[T],
    step: impl Fn(&mut U, T),
) {
    if range.is_empty() {
        return;
    }
    let Some(first) = axis.source(range.start, tap) else { return };
    if axis.stride == 1 {
        let n = range.len();
        for (y, &x) in y[range].iter_mut().zip(&x[first..first + n]) {
            step(y, x);
        }
    } else {
        for (y, &x) in y[range].iter_mut().zip(x[first..].iter().step_by(axis.stride)) {
            step(y, x);
        }
    }
}

/// The number of elements of the input's and the output's plane.
pub(crate) fn plane_sizes(axes: &[Axis]) -> (usize, usize) {
    (axes.iter().map(|a| a.input).product(), axes.iter().map(|a| a.output).product())
}

/// The number of taps of a window.
pub(crate) fn tap_count(axes: &[Axis]) -> usize {
    axes.iter().fold(1, |n, a| n.saturating_mul(a.kernel))
}

/// The sum of `f(x)`, in 16 strands joined pairwise, so that it is fast, accurate and the same everywhere.
#[inline(always)]
pub(crate) fn sum_of<S: Scalar>(x: &[S], f: impl Fn(S) -> S) -> S {
    const STRANDS: usize = 16;
    let mut strands = [S::ZERO; STRANDS];
    let (whole, rest) = x.as_chunks::<STRANDS>();
    for chunk in whole {
        for (s, &v) in strands.iter_mut().zip(chunk) {
            *s = s.add(f(v));
        }
    }
    for (s, &v) in strands.iter_mut().zip(rest) {
        *s = s.add(f(v));
    }
    let mut width = STRANDS / 2;
    while width > 0 {
        for i in 0..width {
            strands[i] = strands[i].add(strands[i + width]);
        }
        width /= 2;
    }
    strands[0]
}

/// A count as a number.
pub(crate) fn number<S: Scalar>(n: usize) -> S {
    S::from_f64(n as f64)
}

/// Mean of `x` and mean square distance from it; 0 for no elements.
pub(crate) fn mean_and_variance<S: Scalar>(x: &[S]) -> (S, S) {
    if x.is_empty() {
        return (S::ZERO, S::ZERO);
    }
    let n = number::<S>(x.len());
    let mean = sum_of(x, |v| v).div(n);
    let variance = sum_of(x, |v| {
        let d = v.sub(mean);
        d.mul(d)
    })
    .div(n);
    (mean, variance)
}

/// `sqrt(x)`, rounded once.
pub(crate) fn sqrt<S: Scalar>(x: S) -> S {
    x.apply("Sqrt", libm::sqrt)
}

/// The elements of a floating-point operand of any width as `S`.
///
/// # Errors
/// [`OpError::InputType`].
pub(crate) fn parameters<S: Scalar + Element>(t: &Tensor, index: usize, name: &'static str) -> Result<Vec<S>, OpError> {
    if let Some(v) = t.as_slice::<S>() {
        return Ok(v.to_vec());
    }
    let v =
        t.to_f64s().ok_or(OpError::InputType { index, name, dtype: t.dtype(), expected: "a floating-point type" })?;
    Ok(v.into_iter().map(S::from_f64).collect())
}

/// Runs `$body` with `$S` the type that `$x` accumulates in, and `$v` its elements. Half precision must have been widened.
macro_rules! accumulating {
    ($x:expr, $name:literal, $S:ident, $v:ident => $body:expr) => {
        match $x.data() {
            $crate::Data::F32(v) => {
                type $S = f32;
                let $v: &[$S] = v;
                $body
            }
            $crate::Data::F64(v) => {
                type $S = f64;
                let $v: &[$S] = v;
                $body
            }
            $crate::Data::Field(v) => {
                type $S = $crate::scalar::Field;
                let $v: &[$S] = v;
                $body
            }
            _ => {
                return Err($crate::OpError::InputType {
                    index: 0,
                    name: $name,
                    dtype: $x.dtype(),
                    expected: "a floating-point type",
                })
            }
        }
    };
}
pub(crate) use accumulating;

/// Requires that `fact` is floating-point.
///
/// # Errors
/// [`OpError::InputType`].
pub(crate) fn expect_float(fact: &Fact, index: usize, name: &'static str) -> Result<(), OpError> {
    super::helpers::expect_dtype(fact, index, name, "a floating-point type", crate::DType::is_float)
}

/// Requires at least `rank` dimensions.
///
/// # Errors
/// [`OpError::InputShape`].
pub(crate) fn expect_rank(fact: &Fact, rank: usize, index: usize, name: &'static str) -> Result<(), OpError> {
    if fact.rank() >= rank {
        return Ok(());
    }
    Err(shape_error(fact, index, name, format!("at least {rank} dimensions are needed")))
}

/// Requires that `fact` has one dimension of `size` elements.
///
/// # Errors
/// [`OpError::InputShape`].
pub(crate) fn expect_vector(fact: &Fact, size: &Dim, index: usize, name: &'static str) -> Result<(), OpError> {
    if fact.rank() == 1 && fact.shape[0].equals(size) != Some(false) {
        return Ok(());
    }
    Err(shape_error(fact, index, name, format!("[{size}] is needed")))
}

/// An [`OpError::InputShape`] about `fact`.
pub(crate) fn shape_error(fact: &Fact, index: usize, name: &'static str, expected: String) -> OpError {
    OpError::InputShape { index, name, shape: Shape(&fact.shape).to_string(), expected }
}

/// What [`super::Operator::infer`] says of tensors, as sizes.
///
/// # Errors
/// Those of `infer`, and if a size is not known even now.
pub(crate) fn output_shapes<O: super::Operator>(
    op: &O,
    inputs: &[Option<&Tensor>],
) -> Result<Vec<Vec<usize>>, OpError> {
    let facts: Vec<Option<Fact>> = inputs.iter().map(|t| t.map(known)).collect();
    let facts: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
    let mut fresh = || Dim::symbol("?");
    let inferred = op.infer(&facts, &mut super::InferCx::new(&mut fresh))?;
    inferred
        .iter()
        .map(|f| f.fixed_shape().ok_or_else(|| OpError::Unsupported(format!("an output of the sizes {f}"))))
        .collect()
}

/// The fact about `t`; the elements only of what may be sizes or scales.
fn known(t: &Tensor) -> Fact {
    if t.rank() <= 1 { Fact::of(t) } else { Fact::fixed(t.dtype(), t.shape()) }
}
