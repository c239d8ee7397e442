//! What the tests of operators that move elements share: seeded random choices, index arithmetic written out plainly, and a comparison of
//! [`Operator::infer`] with [`Operator::run`].

use std::collections::BTreeMap;

use crate::{
    Bindings, DType, Dim, Fact, Known, OpError, Real, Tensor,
    ops::{InferCx, Operator, RunCx},
    sys::Pool,
};

/// A small seeded generator.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// A number in `low..=high`.
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + (self.next() % (high - low + 1) as u64) as i64
    }

    pub(crate) fn chance(&mut self) -> bool {
        self.below(2) == 0
    }

    /// A shape of rank 0 to `rank` with sizes 1 to `size`, now and then 0.
    pub(crate) fn shape(&mut self, rank: usize, size: usize) -> Vec<usize> {
        let rank = self.below(rank + 1);
        self.shape_of(rank, size)
    }

    /// A shape of this rank with sizes 1 to `size`, now and then 0.
    pub(crate) fn shape_of(&mut self, rank: usize, size: usize) -> Vec<usize> {
        (0..rank).map(|_| if self.below(12) == 0 { 0 } else { 1 + self.below(size) }).collect()
    }

    pub(crate) fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut p: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            p.swap(i, self.below(i + 1));
        }
        p
    }

    /// `axis` from the front or the back.
    pub(crate) fn signed(&mut self, axis: usize, rank: usize) -> i64 {
        if self.chance() { axis as i64 } else { axis as i64 - rank as i64 }
    }

    /// A tensor of one of several types whose elements are all different.
    pub(crate) fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        match self.below(4) {
            0 => Tensor::new(shape, (0..n).map(|i| i as f32 + 0.5).collect::<Vec<_>>()),
            1 => Tensor::new(shape, (0..n).map(|i| i as i64 + 1).collect::<Vec<_>>()),
            2 => Tensor::new(shape, (0..n).map(|i| i as i32 - 7).collect::<Vec<_>>()),
            _ => Tensor::new(shape, (0..n).map(|i| format!("s{i}")).collect::<Vec<_>>()),
        }
        .unwrap()
    }
}

/// The multi-index of element `k` of `shape`.
pub(crate) fn unravel(k: usize, shape: &[usize]) -> Vec<usize> {
    let mut rest = k;
    let mut index = vec![0; shape.len()];
    for (i, &n) in index.iter_mut().zip(shape).rev() {
        *i = rest % n;
        rest /= n;
    }
    index
}

/// The position of a multi-index in `shape`.
pub(crate) fn ravel(index: &[usize], shape: &[usize]) -> usize {
    index.iter().zip(shape).fold(0, |p, (i, n)| p * n + i)
}

/// The tensor of `shape` whose element at each multi-index is that of `x` at `source(index)`.
pub(crate) fn gathered(x: &Tensor, shape: &[usize], source: impl Fn(&[usize]) -> Vec<usize>) -> Tensor {
    let n: usize = shape.iter().product();
    let positions: Vec<usize> = (0..n).map(|k| ravel(&source(&unravel(k, shape)), x.shape())).collect();
    crate::match_any!(x.data(), v => {
        Tensor::new(shape, positions.iter().filter_map(|&p| v.get(p)).cloned().collect::<Vec<_>>()).unwrap()
    })
}

pub(crate) fn run<O: Operator>(op: &O, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
    run_in(op, inputs, Real::Native)
}

pub(crate) fn run_in<O: Operator>(op: &O, inputs: &[Option<&Tensor>], real: Real) -> Result<Vec<Tensor>, OpError> {
    let pool = Pool::new(2);
    op.run(inputs, &RunCx { max_elements: 1 << 20, ..RunCx::new(real, &pool) })
}

pub(crate) fn infer<O: Operator>(op: &O, inputs: &[Option<&Fact>]) -> Result<Vec<Fact>, OpError> {
    let mut n = 0;
    let mut fresh = || {
        n += 1;
        Dim::symbol(format!("?fresh{n}"))
    };
    op.infer(inputs, &mut InferCx::new(&mut fresh))
}

/// Runs `op` and checks that what it infers says the same: from sizes alone, from full knowledge, and with every size
/// of the inputs at `symbolic` a symbol. Returns what the run gave.
pub(crate) fn checked<O: Operator>(op: &O, inputs: &[Option<&Tensor>], symbolic: &[usize]) -> Vec<Tensor> {
    let results = run(op, inputs).unwrap_or_else(|e| panic!("{}: {e}", op.name()));
    let mut bindings = Bindings::new();
    let mut values = BTreeMap::new();
    let mut next = 0;
    for variant in 0..4 {
        let facts: Vec<Option<Fact>> = inputs
            .iter()
            .enumerate()
            .map(|(i, t)| {
                let t = (*t)?;
                let mut fact = Fact::of(t);
                match variant {
                    0 => fact.known = None,
                    1 => {}
                    // Every size a symbol of its own.
                    2 if symbolic.contains(&i) => {
                        fact.known = None;
                        for (d, &n) in fact.shape.iter_mut().zip(t.shape()) {
                            next += 1;
                            let name = if n == 0 { format!("?s{next}") } else { format!("s{next}") };
                            bindings.insert(name.as_str().into(), n as i64);
                            *d = Dim::symbol(name);
                        }
                    }
                    // Every known integer of the data an expression.
                    3 if symbolic.contains(&i) => {
                        if let (Some(Known::Dims(dims)), Some(ints)) = (&mut fact.known, t.to_i64s()) {
                            for (d, v) in dims.iter_mut().zip(ints) {
                                next += 1;
                                let name = format!("s{next}");
                                bindings.insert(name.as_str().into(), 1);
                                values.insert(name.clone(), v);
                                *d = Dim::symbol(name) + (v - 1);
                            }
                        }
                    }
                    _ => {}
                }
                Some(fact)
            })
            .collect();
        let refs: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
        let facts = match infer(op, &refs) {
            Ok(f) => f,
            Err(OpError::Unsupported(_)) if variant == 0 || variant == 2 => continue,
            Err(e) => panic!("{} variant {variant}: {e}", op.name()),
        };
        assert_eq!(facts.len(), results.len(), "{}: number of outputs", op.name());
        for (f, r) in facts.iter().zip(&results) {
            assert_eq!(f.dtype, r.dtype(), "{}: element type", op.name());
            assert_eq!(f.rank(), r.rank(), "{} variant {variant}: rank of {f} against {:?}", op.name(), r.shape());
            for (d, &n) in f.shape.iter().zip(r.shape()) {
                let fresh = d.symbols().iter().any(|s| s.starts_with("?fresh"));
                assert!(!(fresh && variant == 1) || f.known.is_none(), "{}: {f} is known", op.name());
                if !fresh {
                    assert_eq!(
                        d.eval(&bindings),
                        Ok(n as i64),
                        "{} variant {variant}: {f}, ran {:?}",
                        op.name(),
                        r.shape()
                    );
                }
            }
            match (&f.known, r.to_i64s()) {
                (Some(Known::Dims(dims)), Some(ints)) => {
                    let got: Vec<_> = dims.iter().map(|d| d.eval(&bindings).unwrap()).collect();
                    assert_eq!(got, ints, "{}: known elements", op.name());
                }
                (Some(Known::Constant(t)), _) => assert_eq!(t, r, "{}: known elements", op.name()),
                (Some(Known::Dims(_)), None) => panic!("{}: integers known of {}", op.name(), r.dtype()),
                (None, _) => {}
            }
            if variant == 3
                && matches!(r.dtype(), DType::I64 | DType::I32)
                && r.len() <= Fact::MAX_KNOWN
                && inputs.iter().flatten().all(|t| t.len() <= Fact::MAX_KNOWN)
                && symbolic.first() == Some(&0)
                && inputs[0].is_some_and(|t| t.dtype() == r.dtype())
            {
                assert!(f.known.is_some(), "{}: the elements of {f} are known but were lost", op.name());
            }
        }
    }
    results
}
