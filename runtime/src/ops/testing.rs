//! What the tests of operators share.

use super::{InferCx, Operator, RunCx};
use crate::{Bindings, Dim, Fact, OpError, Real, Tensor, sys::Pool};

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

/// Numbers that look random and are the same in every run: splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Any 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below 1 in size.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// A tensor of multiples of 1/64 in [-1, 1), so that short sums are exact.
pub(crate) fn random_f32(shape: &[usize], seed: u64) -> Tensor {
    let mut random = Random(seed);
    let v = (0..shape.iter().product()).map(|_| ((random.unit() * 64.0).floor() / 64.0) as f32).collect();
    Tensor::new(shape, v).unwrap()
}

/// A tensor of numbers in [-1, 1).
pub(crate) fn random_f64(shape: &[usize], seed: u64) -> Tensor {
    let mut random = Random(seed);
    Tensor::new(shape, (0..shape.iter().product()).map(|_| random.unit()).collect::<Vec<f64>>()).unwrap()
}

/// Runs with two threads and with one, which must agree to the bit.
pub(crate) fn run_threads<O: Operator>(op: &O, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
    run_threads_as(op, inputs, Real::Native)
}

/// As [`run_threads`], with what stands for floating-point numbers.
pub(crate) fn run_threads_as<O: Operator>(
    op: &O,
    inputs: &[Option<&Tensor>],
    real: Real,
) -> Result<Vec<Tensor>, OpError> {
    let run = |threads| {
        let pool = Pool::new(threads);
        op.run(inputs, &RunCx { real, ..native(&pool) })
    };
    let (one, two) = (run(1), run(2));
    if let (Ok(a), Ok(b)) = (&one, &two) {
        assert_eq!(format!("{a:?}"), format!("{b:?}"), "the number of threads matters");
    }
    one
}

/// Requires that `infer` says of `inputs` what `run` gives: with all sizes fixed, and with a symbol for each size of
/// operand 0 that may be one (others keep theirs). Operators that need some size fixed may refuse the latter.
pub(crate) fn check_symbolic<O: Operator>(op: &O, inputs: &[Option<&Tensor>]) {
    let results = run_threads(op, inputs).unwrap();
    let fixed: Vec<Option<Fact>> = inputs.iter().map(|t| t.map(Fact::of)).collect();
    let infer = |facts: &[Option<Fact>]| {
        let facts: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
        let mut n = 0;
        let mut fresh = || {
            n += 1;
            Dim::symbol(format!("?fresh{n}"))
        };
        op.infer(&facts, &mut InferCx::new(&mut fresh))
    };
    for (fact, t) in infer(&fixed).unwrap().iter().zip(&results) {
        assert_eq!(fact, &Fact { known: fact.known.clone(), ..Fact::fixed(t.dtype(), t.shape()) });
    }
    let Some(x) = inputs.first().copied().flatten() else { return };
    let (mut symbolic, mut bindings) = (fixed, Bindings::new());
    let shape: Vec<Dim> = x
        .shape()
        .iter()
        .enumerate()
        .map(|(axis, &n)| {
            let name = format!("?d{axis}");
            bindings.insert(name.as_str().into(), n as i64);
            Dim::symbol(name)
        })
        .collect();
    symbolic[0] = Some(Fact::new(x.dtype(), shape));
    let facts = match infer(&symbolic) {
        Ok(facts) => facts,
        Err(OpError::Unsupported(_)) => return,
        Err(e) => panic!("with symbols: {e}"),
    };
    for (fact, t) in facts.iter().zip(&results) {
        assert_eq!((fact.dtype, fact.rank()), (t.dtype(), t.rank()));
        for (d, &n) in fact.shape.iter().zip(t.shape()) {
            if let Ok(v) = d.eval(&bindings) {
                assert_eq!(v, n as i64, "{fact} against {:?}", t.shape());
            }
        }
    }
}
