//! Cost profiles: what one node costs, in microseconds of a nominal machine.
//!
//! A roofline: the larger of arithmetic and memory time, and a fixed price for every operator. The figures only have to
//! order alternatives; they are part of the format (a trace names its profile), not measured on the machine at hand.

use std::collections::{BTreeMap, BTreeSet};

use convc_runtime::{
    Bindings, Dim, Fact, Op, OpError, Symbol, Tensor,
    ops::{InferCx, compose::Composer},
};

pub use super::profile::{PLAN, PORTABLE, Profile};
use super::{
    language::{Graph as EGraph, Node},
    options::{Dialect, Options},
};
use crate::ops::{
    primitives, properties,
    properties::{Properties, Traffic},
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

    /// A count of operations at the nominal sizes of these facts, whose first axes count samples; `None` if it is beyond bounds.
    #[must_use]
    pub fn count(&self, count: &Dim, operands: &[Option<&Fact>], outputs: &[&Fact]) -> Option<f64> {
        if let Some(n) = count.as_fixed() {
            return Some(n as f64);
        }
        let facts = || operands.iter().flatten().chain(outputs);
        let samples: BTreeSet<Symbol> = facts().filter_map(|f| f.shape.first()).flat_map(Dim::symbols).collect();
        let size = |s: &Symbol| self.given.get(s).copied().unwrap_or(if samples.contains(s) { 1 } else { 56 });
        let bindings: Bindings = count.symbols().into_iter().map(|s| (s.clone(), size(&s))).collect();
        count.eval(&bindings).ok().map(|n| n as f64)
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
        let profile = self.profile;
        let Properties { effort, multiply_adds, .. } = properties(op);
        if effort.traffic == Traffic::None {
            return Work { macs: 0.0, time: profile.launch * 0.5 };
        }
        let facts: Vec<Option<&Fact>> = operands.iter().map(|o| o.map(|o| o.fact)).collect();
        let outputs: Vec<&Fact> = output.into_iter().collect();
        let products = multiply_adds.count(&facts, &outputs).and_then(|n| self.nominal.count(&n, &facts, &outputs));
        let macs = products.unwrap_or(0.0).max(effort.operations * output.map_or(0.0, |f| self.elements(f)));
        let share = match op {
            Op::Conv(c) if c.group > 1 && has_one_tap(&facts) => profile.per_channel,
            _ if effort.fuses => profile.activation,
            _ => 1.0,
        };
        let slower = if effort.traffic == Traffic::Picks { profile.picked } else { 1.0 };
        // Parameters of a channel each are nothing beside the map.
        let moved = self.moved(operands, output) * slower;
        let time = profile.launch * share + (macs / profile.macs).max(moved / profile.bytes);
        let passes = if self.fused { 1.0 } else { effort.portable_passes };
        Work { macs, time: time * passes }
    }
}

/// Whether a convolution multiplies each element of its result out of one element of its input.
fn has_one_tap(operands: &[Option<&Fact>]) -> bool {
    operands.get(1).copied().flatten().is_none_or(|w| w.shape.iter().skip(1).all(|d| d.as_fixed() == Some(1)))
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

/// The price of a constant term, per byte: small against anything that runs, so that fewer bytes win only between equals.
const CONSTANT: f64 = 1e-9;

/// The price of an e-node, without that of its operands.
pub(super) fn term_cost(egraph: &EGraph, id: egg::Id, node: &Node, pricing: &Pricing) -> f64 {
    let data = &egraph[id].data;
    match node {
        Node::Hole | Node::Tuple(_) => 0.0,
        Node::Leaf(_) => 0.0,
        Node::Op(_, _, args) => {
            if data.constant {
                return CONSTANT * data.fact.as_ref().map_or(1.0, |f| pricing.elements(f));
            }
            let operand = |a: &egg::Id| {
                let data = &egraph[*a].data;
                data.fact.as_ref().map(|fact| Operand { fact, constant: data.constant })
            };
            let operands: Vec<Option<Operand<'_>>> = args.iter().map(operand).collect();
            match egraph.analysis.op(node) {
                Some(op) => pricing.node(op, &operands, data.fact.as_ref()),
                None => 0.0,
            }
        }
    }
}
