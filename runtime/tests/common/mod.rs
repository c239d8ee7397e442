//! What the tests of convolutions share: random cases, index arithmetic, and the comparison of all ways to run an operator.

use convc_runtime::{
    DType, Dim, Fact, Real, Symbol, Tensor,
    kernels::Isa,
    ops::{InferCx, Operator, RunCx},
    scalar::{Field, Scalar},
    sys::Pool,
};

/// A small generator of reproducible numbers (splitmix64).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `low..=high`.
    pub(crate) fn range(&mut self, low: i64, high: i64) -> i64 {
        low + (self.next() % (high - low + 1) as u64) as i64
    }

    fn list(&mut self, n: usize, low: i64, high: i64) -> Vec<i64> {
        (0..n).map(|_| self.range(low, high)).collect()
    }

    /// Multiples of 1/512 in -2..2, which sum exactly in f64.
    pub(crate) fn tensor(&mut self, shape: &[i64]) -> Tensor {
        let n: i64 = shape.iter().product();
        let v: Vec<f32> = (0..n).map(|_| self.range(-1000, 1000) as f32 / 512.0).collect();
        Tensor::new(shape.iter().map(|&d| d as usize).collect::<Vec<_>>(), v).unwrap()
    }
}

/// All index vectors below `sizes`, row-major.
pub(crate) fn indices(sizes: &[i64]) -> Vec<Vec<i64>> {
    sizes.iter().fold(vec![Vec::new()], |all, &n| {
        all.iter().flat_map(|i| (0..n).map(|j| [i.as_slice(), &[j]].concat()).collect::<Vec<_>>()).collect()
    })
}

/// The row-major position of `index` in `shape`.
pub(crate) fn at(shape: &[i64], index: &[i64]) -> usize {
    shape.iter().zip(index).fold(0, |o, (&n, &i)| o * n as usize + i as usize)
}

/// The sizes and attributes of one case.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) batch: i64,
    pub(crate) group: i64,
    /// Channels of a group of x.
    pub(crate) ci: i64,
    /// Channels of a group of y.
    pub(crate) co: i64,
    pub(crate) spatial: Vec<i64>,
    pub(crate) kernel: Vec<i64>,
    pub(crate) strides: Vec<i64>,
    pub(crate) dilations: Vec<i64>,
    /// Before and after each axis.
    pub(crate) pads: Vec<(i64, i64)>,
    pub(crate) bias: bool,
}

impl Case {
    pub(crate) fn random(rng: &mut Rng) -> Case {
        let n = [1, 1, 2, 2, 2, 3][rng.range(0, 5) as usize];
        let (ci, co, group) = match rng.range(0, 3) {
            0 => (1, rng.range(1, 2), rng.range(1, 20)),
            1 => (rng.range(1, 6), rng.range(1, 6), rng.range(1, 4)),
            _ => (rng.range(1, 20), rng.range(1, 20), 1),
        };
        Case {
            batch: rng.range(1, 3),
            group,
            ci,
            co,
            spatial: rng.list(n, 1, [40, 13, 6][n - 1]),
            kernel: rng.list(n, 1, [7, 4, 3][n - 1]),
            strides: rng.list(n, 1, 3),
            dilations: rng.list(n, 1, 3),
            pads: (0..n).map(|_| (rng.range(-1, 3), rng.range(-1, 3))).collect(),
            bias: rng.range(0, 1) == 1,
        }
    }

    pub(crate) fn x_shape(&self) -> Vec<i64> {
        [&[self.batch, self.group * self.ci], self.spatial.as_slice()].concat()
    }

    pub(crate) fn onnx_pads(&self) -> Vec<i64> {
        self.pads.iter().map(|p| p.0).chain(self.pads.iter().map(|p| p.1)).collect()
    }
}

pub(crate) fn elements<S: Scalar>(t: &Tensor) -> Vec<S> {
    t.to_f64s().unwrap().into_iter().map(S::from_f64).collect()
}

/// Compares with the sums, relative to the sums of absolute values.
pub(crate) fn near(found: &Tensor, expected: &(Vec<f64>, Vec<f64>), tolerance: f64, what: &str) {
    let found = found.to_f64s().unwrap();
    assert_eq!(found.len(), expected.0.len(), "{what}");
    for (i, (f, (e, scale))) in found.iter().zip(expected.0.iter().zip(&expected.1)).enumerate() {
        assert!((f - e).abs() <= tolerance * scale, "element {i}: {f} instead of {e}: {what}");
    }
}

pub(crate) fn run(op: &impl Operator, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Tensor {
    op.run(inputs, cx).unwrap().remove(0)
}

/// Runs `op` in f32 under every instruction set and number of threads, in f64 and in the field, and compares.
pub(crate) fn check(
    op: &impl Operator,
    inputs: &[Option<&Tensor>],
    out: &[i64],
    exact: &(Vec<f64>, Vec<f64>),
    field: &[Field],
    pools: &[Pool],
    what: &str,
) {
    let sizes: Vec<usize> = out.iter().map(|&d| d as usize).collect();
    let given = |real: Real| inputs.iter().map(|t| t.map(|t| t.to_real(real))).collect::<Vec<_>>();
    for (real, tolerance) in [(Real::Native, 1e-5), (Real::F64, 1e-13)] {
        let tensors = given(real);
        let inputs: Vec<Option<&Tensor>> = tensors.iter().map(Option::as_ref).collect();
        let mut first: Option<Vec<u64>> = None;
        for pool in pools {
            for &isa in Isa::ALL {
                let y = run(op, &inputs, &RunCx { isa, ..RunCx::new(real, pool) });
                assert_eq!(y.shape(), sizes, "{what}");
                near(&y, exact, tolerance, what);
                let bits: Vec<u64> = y.to_f64s().unwrap().iter().map(|v| v.to_bits()).collect();
                let first = first.get_or_insert_with(|| bits.clone());
                assert!(*first == bits, "{real:?}, {isa:?}, {} threads: bits differ: {what}", pool.threads());
            }
        }
    }
    let tensors = given(Real::Field);
    let mapped: Vec<Option<&Tensor>> = tensors.iter().map(Option::as_ref).collect();
    let y = run(op, &mapped, &RunCx::new(Real::Field, &pools[0]));
    assert_eq!(y.as_slice::<Field>().unwrap(), field, "{what}");
}

/// Compares the shape inferred from symbolic batch and spatial sizes, evaluated, with `out`.
pub(crate) fn check_symbolic(op: &impl Operator, inputs: &[Option<&Tensor>], out: &[i64], what: &str) {
    let x = inputs[0].unwrap();
    let symbols: Vec<Symbol> = (0..x.rank()).map(|a| Symbol::from(format!("d{a}").as_str())).collect();
    let dim = |(a, s): (usize, &Symbol)| if a == 1 { Dim::from(x.shape()[1]) } else { Dim::symbol(s.clone()) };
    let dims: Vec<Dim> = symbols.iter().enumerate().map(dim).collect();
    let mut facts: Vec<Option<Fact>> = inputs.iter().map(|t| t.map(Fact::of)).collect();
    facts[0] = Some(Fact::new(DType::F32, dims));
    let facts: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
    let y = op.infer(&facts, &mut InferCx::new(&mut || Dim::from(-1))).unwrap().remove(0);
    let bindings = symbols.iter().cloned().zip(x.shape().iter().map(|&d| d as i64)).collect();
    let found: Vec<i64> = y.shape.iter().map(|d| d.eval(&bindings).unwrap()).collect();
    assert_eq!(found, out, "{what}");
}
