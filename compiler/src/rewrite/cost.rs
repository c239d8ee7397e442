//! Cost profiles: what one node costs, in microseconds of a nominal machine.
//!
//! A roofline: the larger of arithmetic and memory time, and a fixed price for every operator. The figures only have to
//! order alternatives; they are part of the format (a trace names its profile), not measured on the machine at hand.

use std::collections::BTreeMap;

use convc_runtime::{
    Bindings, Dim, Fact, Op, OpError, Symbol, Tensor,
    ops::{InferCx, compose::Composer, unary::UnaryKind},
};

use super::{Dialect, Options};
use crate::ops::primitives;

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
    /// How many times as long elements take that are picked one by one, or in another order.
    pub picked: f64,
    /// What a 1x1 depthwise convolution costs of that: more where a scale and shift has a cheaper operator of its own.
    pub per_channel: f64,
}

/// What ONNX Runtime and OpenVINO do with a node: for `optimize`.
pub const PORTABLE: Profile = Profile {
    name: "portable",
    macs: 50_000.0,
    bytes: 20_000.0,
    launch: 1.0,
    activation: 0.25,
    picked: 3.0,
    per_channel: 1.75,
};

/// What convc's own instructions do: for `compile`, `run` and `bench`.
pub const PLAN: Profile = Profile {
    name: "plan",
    macs: 100_000.0,
    bytes: 20_000.0,
    launch: 2.0,
    activation: 1.0,
    picked: 3.0,
    per_channel: 1.0,
};

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

/// An operand as the cost model sees it.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a> {
    /// Type and shape.
    pub fact: &'a Fact,
    /// Whether it is computed from constants alone.
    pub constant: bool,
}

/// What operators cost in a profile, at nominal sizes.
pub struct Pricing {
    profile: &'static Profile,
    nominal: Nominal,
    /// Whether an operator of domain `ai.convc` is one instruction, or what it is written out as.
    fused: bool,
}

/// The work of one operator.
#[derive(Default)]
struct Work {
    /// Multiply-adds.
    macs: f64,
    /// Microseconds in all.
    time: f64,
}

impl Pricing {
    /// The prices that these options ask for.
    #[must_use]
    pub fn new(options: &Options) -> Pricing {
        Pricing {
            profile: options.profile,
            nominal: Nominal::new(options.nominal.clone()),
            fused: options.dialect == Dialect::Convc,
        }
    }

    /// The nominal number of elements.
    #[must_use]
    pub fn elements(&self, fact: &Fact) -> f64 {
        self.nominal.elements(fact)
    }

    fn bytes(&self, fact: &Fact) -> f64 {
        self.nominal.elements(fact) * fact.dtype.bits() as f64 / 8.0
    }

    fn moved(&self, operands: &[Option<Operand<'_>>], output: Option<&Fact>) -> f64 {
        let read: f64 = operands.iter().flatten().map(|o| self.bytes(o.fact)).sum();
        read + output.map_or(0.0, |f| self.bytes(f))
    }

    /// Microseconds of `op` on these operands; `None` stands for a hole or an unknown.
    #[must_use]
    pub fn node(&self, op: &Op, operands: &[Option<Operand<'_>>], output: Option<&Fact>) -> f64 {
        if !primitives::is_system(op) {
            return self.primitive(op, operands, output).time;
        }
        let mut sum = Sum { pricing: self, total: Work::default() };
        let given: Vec<Option<Summand>> = operands
            .iter()
            .map(|o| o.map(|o| Summand { fact: o.fact.clone(), constant: o.constant, own: false }))
            .collect();
        let known = matches!(primitives::compose(op, &mut sum, &given), Some(Ok(_)));
        let Work { macs, time } = sum.total;
        let moved = self.moved(operands, output) / self.profile.bytes;
        match (self.fused, known) {
            (false, true) => time,
            // Intermediate results stay in the caches.
            (true, true) => self.profile.launch + (macs / self.profile.macs).max(moved),
            (_, false) => self.profile.launch + moved,
        }
    }

    fn primitive(&self, op: &Op, operands: &[Option<Operand<'_>>], output: Option<&Fact>) -> Work {
        let (profile, nominal) = (self.profile, &self.nominal);
        let fact = |i: usize| operands.get(i).copied().flatten().map(|o| o.fact);
        let out = output.map_or(0.0, |f| nominal.elements(f));
        // Views and bookkeeping move nothing.
        if matches!(op.name(), "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Identity" | "Shape" | "Size") {
            return Work { macs: 0.0, time: profile.launch * 0.5 };
        }
        let per_output = |f: Option<&Fact>, from: usize| {
            f.map_or(1.0, |w| w.shape.iter().enumerate().skip(from).map(|(a, d)| nominal.size(d, a)).product::<f64>())
        };
        let macs = match op.name() {
            "Conv" => out * per_output(fact(1), 1),
            "ConvTranspose" => fact(0).map_or(0.0, |x| nominal.elements(x)) * per_output(fact(1), 1),
            "MaxPool" => match op {
                Op::MaxPool(p) => out * p.kernel_shape.iter().map(|&k| k as f64).product::<f64>(),
                _ => out,
            },
            "MatMul" | "Gemm" => {
                let inner = fact(0).and_then(|a| a.shape.last().map(|d| nominal.size(d, 1))).unwrap_or(1.0);
                out * inner
            }
            "Einsum" => {
                let all = operands.iter().flatten().map(|o| nominal.elements(o.fact)).product::<f64>();
                all.sqrt() * out.sqrt()
            }
            _ => out,
        };
        // Parameters of a channel each are nothing beside the map.
        let moved = self.moved(operands, output);
        let share = match op {
            _ if matches!(op.name(), "Relu" | "Clip") => profile.activation,
            Op::Conv(c) if c.group > 1 && per_output(fact(1), 1) <= 1.0 => profile.per_channel,
            _ => 1.0,
        };
        let slower = match op.name() {
            "Gather" | "GatherElements" | "GatherND" | "ScatterND" | "ScatterElements" | "Transpose" => profile.picked,
            _ => 1.0,
        };
        let time = profile.launch * share + (macs / profile.macs).max(moved * slower / profile.bytes);
        let passes = match op {
            Op::Unary(u) if !self.fused => slow_elsewhere(u.kind),
            _ => 1.0,
        };
        Work { macs, time: time * passes }
    }
}

/// How many passes over a map a function is worth in ONNX Runtime, which has fast kernels for a Sigmoid times its argument, Exp,
/// Log and Tanh, but goes through Softplus element by element.
fn slow_elsewhere(kind: UnaryKind) -> f64 {
    match kind {
        UnaryKind::Swish => 4.0,
        UnaryKind::Softplus | UnaryKind::Mish => 20.0,
        _ => 1.0,
    }
}

/// A value of a definition as its cost sees it.
#[derive(Clone)]
struct Summand {
    fact: Fact,
    /// Whether it is computed from constants alone.
    constant: bool,
    /// Whether it is a constant of the definition's own.
    own: bool,
}

/// Adds up what a definition costs.
struct Sum<'a> {
    pricing: &'a Pricing,
    total: Work,
}

impl Composer for Sum<'_> {
    type Value = Summand;
    type Error = OpError;

    fn apply(&mut self, op: Op, operands: Vec<Option<Summand>>, _: usize) -> Result<Vec<Summand>, OpError> {
        let mut fresh = || Dim::symbol("?nominal");
        let facts: Vec<Option<&Fact>> = operands.iter().map(|o| o.as_ref().map(|o| &o.fact)).collect();
        let results = op.infer(&facts, &mut InferCx::new(&mut fresh))?;
        let constant = operands.iter().flatten().all(|o| o.constant);
        if !constant {
            let given: Vec<Option<Operand<'_>>> =
                operands.iter().map(|o| o.as_ref().map(|o| Operand { fact: &o.fact, constant: o.constant })).collect();
            // A kernel of the definition's own picks elements, which one instruction need not do by multiplying.
            let picks = matches!(op, Op::Conv(_)) && operands.get(1).is_some_and(|w| w.as_ref().is_some_and(|w| w.own));
            // Parts of a split count one by one, as the slices they are.
            for result in &results {
                let work = self.pricing.primitive(&op, &given, Some(result));
                self.total.macs += if picks { 0.0 } else { work.macs };
                self.total.time += work.time;
            }
        }
        Ok(results.into_iter().map(|fact| Summand { fact, constant, own: false }).collect())
    }

    fn constant(&mut self, tensor: Tensor) -> Result<Summand, OpError> {
        Ok(Summand { fact: Fact::of(&tensor), constant: true, own: true })
    }

    fn fact(&self, value: &Summand) -> Option<Fact> {
        Some(value.fact.clone())
    }
}
