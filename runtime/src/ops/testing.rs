//! What the tests of operators share.

use super::{InferCx, Operator, RunCx};
use crate::{Dim, Fact, OpError, Real, Tensor, sys::Pool};

/// A run on native numbers.
pub(crate) fn native(pool: &Pool) -> RunCx<'_> {
    RunCx { max_elements: 1 << 24, ..RunCx::new(Real::Native, pool) }
}

/// The outputs, after a check that `infer` foretells their types and shapes, with the operands' elements known and not.
pub(crate) fn run(op: &impl Operator, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
    run_as(op, inputs, Real::Native)
}

/// As [`run`], with other numbers.
pub(crate) fn run_as(op: &impl Operator, inputs: &[&Tensor], real: Real) -> Result<Vec<Tensor>, OpError> {
    run_holes(op, &inputs.iter().map(|t| Some(*t)).collect::<Vec<_>>(), real)
}

/// As [`run_as`], with holes.
pub(crate) fn run_holes(op: &impl Operator, inputs: &[Option<&Tensor>], real: Real) -> Result<Vec<Tensor>, OpError> {
    let pool = Pool::new(1);
    let outputs = op.run(inputs, &RunCx { real, ..native(&pool) });
    for known in [false, true] {
        let facts: Vec<Option<Fact>> = inputs
            .iter()
            .map(|t| {
                t.map(|t| if known && real == Real::Native { Fact::of(t) } else { Fact::fixed(t.dtype(), t.shape()) })
            })
            .collect();
        let refs: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
        let mut next = 0;
        let mut fresh = || {
            next += 1;
            Dim::symbol(format!("?{next}"))
        };
        let inferred = op.infer(&refs, &mut InferCx::new(&mut fresh));
        let Ok(outputs) = &outputs else { continue };
        let inferred = inferred.unwrap_or_else(|e| panic!("runs, but is not inferred: {e}"));
        assert_eq!(inferred.len(), outputs.len(), "number of outputs");
        for (fact, tensor) in inferred.iter().zip(outputs) {
            assert_eq!(fact.dtype, tensor.dtype(), "inferred {fact}");
            assert_eq!(fact.rank(), tensor.rank(), "inferred {fact}, got {:?}", tensor.shape());
            for (d, &n) in fact.shape.iter().zip(tensor.shape()) {
                assert!(d.as_fixed().is_none_or(|d| d == n as i64), "inferred {fact}, got {:?}", tensor.shape());
            }
            if let Some(v) = fact.i64s() {
                assert_eq!(Some(v), tensor.to_i64s(), "known elements");
            }
        }
    }
    // What any shape error looks like is the operator's affair; that it is one is not.
    outputs
}

/// Small numbers that differ, reproducibly.
pub(crate) fn numbers(shape: &[usize], seed: u64) -> Tensor {
    let n: usize = shape.iter().product();
    let v =
        (0..n as u64).map(|i| (crate::scalar::Field::hash(seed, &[i]).get() % 4001) as f32 / 1000.0 - 2.0).collect();
    Tensor::new(shape, v).unwrap_or_else(|e| panic!("{e}"))
}

/// Every index of a tensor of these sizes, row-major.
pub(crate) fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
    let n: usize = shape.iter().product();
    (0..n)
        .map(|flat| {
            let mut rest = flat;
            let mut index: Vec<usize> = shape
                .iter()
                .rev()
                .map(|&s| {
                    let i = rest % s;
                    rest /= s;
                    i
                })
                .collect();
            index.reverse();
            index
        })
        .collect()
}

/// The position of `index` in a tensor of `shape` that is broadcast to the index's rank.
pub(crate) fn position(shape: &[usize], index: &[usize]) -> usize {
    let skip = index.len() - shape.len();
    shape.iter().zip(&index[skip..]).fold(0, |at, (&n, &i)| at * n + if n == 1 { 0 } else { i })
}

/// Panics unless the f32 tensors agree within `tolerance`.
pub(crate) fn close(got: &Tensor, want: &Tensor, tolerance: f64) {
    assert_eq!(got.shape(), want.shape());
    let (g, w) = (got.to_f64s().unwrap_or_default(), want.to_f64s().unwrap_or_default());
    assert_eq!(g.len(), got.len());
    for (i, (g, w)) in g.iter().zip(&w).enumerate() {
        let same = g == w || (g.is_nan() && w.is_nan());
        assert!(same || (g - w).abs() <= tolerance * (1.0 + w.abs()), "element {i}: {g}, not {w}");
    }
}
