//! Cost profiles: what one node costs, in microseconds of a nominal machine.
//!
//! A roofline: the larger of arithmetic and memory time, and a fixed price for every operator. The figures only have to
//! order alternatives; they are part of the format (a trace names its profile), not measured on the machine at hand.

use std::collections::BTreeMap;

use convc_runtime::{Bindings, Dim, Fact, Op, Symbol};

/// Figures of a nominal machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Its name, as traces say it.
    pub name: &'static str,
    /// Multiply-adds per microsecond.
    pub macs: f64,
    /// Bytes per microsecond.
    pub bytes: f64,
    /// Microseconds per operator.
    pub launch: f64,
    /// What an activation costs of that: little where it is fused into the convolution before it.
    pub activation: f64,
    /// What a 1x1 depthwise convolution costs of that: more where a scale and shift has a cheaper operator of its own.
    pub per_channel: f64,
}

/// What ONNX Runtime and OpenVINO do with a node: for `optimize`.
pub const PORTABLE: Profile =
    Profile { name: "portable", macs: 50_000.0, bytes: 20_000.0, launch: 1.0, activation: 0.25, per_channel: 1.75 };

/// What convc's own instructions do: for `compile`, `run` and `bench`.
pub const PLAN: Profile =
    Profile { name: "plan", macs: 100_000.0, bytes: 20_000.0, launch: 2.0, activation: 1.0, per_channel: 1.0 };

/// Sizes to reckon with where the model leaves them open: 1 for a batch, 56 for the rest.
#[derive(Debug, Clone, Default)]
pub struct Nominal {
    given: BTreeMap<Symbol, i64>,
}

impl Nominal {
    /// Nominal sizes with some symbols given.
    #[must_use]
    pub fn new(given: BTreeMap<Symbol, i64>) -> Nominal {
        Nominal { given }
    }

    /// The nominal size of a dimension, at least 1.
    #[must_use]
    pub fn size(&self, dim: &Dim, axis: usize) -> f64 {
        if let Some(n) = dim.as_fixed() {
            return n.max(1) as f64;
        }
        let bindings: Bindings = dim
            .symbols()
            .into_iter()
            .map(|s| (s.clone(), self.given.get(&s).copied().unwrap_or(if axis == 0 { 1 } else { 56 })))
            .collect();
        dim.eval(&bindings).unwrap_or(1).max(1) as f64
    }

    /// The nominal number of elements.
    #[must_use]
    pub fn elements(&self, fact: &Fact) -> f64 {
        fact.shape.iter().enumerate().map(|(axis, d)| self.size(d, axis)).product()
    }
}

/// What `op` costs on operands with these facts; `None` stands for a hole or an unknown.
#[must_use]
pub fn node_cost(
    profile: &Profile,
    nominal: &Nominal,
    op: &Op,
    operands: &[Option<&Fact>],
    output: Option<&Fact>,
) -> f64 {
    let bytes = |f: &Fact| nominal.elements(f) * f.dtype.bits() as f64 / 8.0;
    let out = output.map_or(0.0, |f| nominal.elements(f));
    // Views and bookkeeping move nothing.
    if matches!(op.name(), "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Identity" | "Shape" | "Size") {
        return profile.launch * 0.5;
    }
    let weights = |i: usize| operands.get(i).copied().flatten();
    let per_output = |f: Option<&Fact>, from: usize| {
        f.map_or(1.0, |w| w.shape.iter().enumerate().skip(from).map(|(a, d)| nominal.size(d, a)).product::<f64>())
    };
    let macs = match op.name() {
        "Conv" => out * per_output(weights(1), 1),
        "ConvTranspose" => {
            operands.first().copied().flatten().map_or(0.0, |x| nominal.elements(x)) * per_output(weights(1), 1)
        }
        "MatMul" | "Gemm" => {
            let inner = weights(0).and_then(|a| a.shape.last().map(|d| nominal.size(d, 1))).unwrap_or(1.0);
            out * inner
        }
        "Einsum" => operands.iter().flatten().map(|f| nominal.elements(f)).product::<f64>().sqrt() * out.sqrt(),
        _ => out,
    };
    // Parameters of a channel each are nothing beside the map.
    let moved: f64 = operands.iter().flatten().map(|f| bytes(f)).sum::<f64>() + output.map_or(0.0, bytes);
    let share = match op {
        _ if matches!(op.name(), "Relu" | "Clip") => profile.activation,
        Op::Conv(c) if c.group > 1 && per_output(weights(1), 1) <= 1.0 => profile.per_channel,
        _ => 1.0,
    };
    let launch = profile.launch * share;
    launch + (macs / profile.macs).max(moved / profile.bytes)
}
