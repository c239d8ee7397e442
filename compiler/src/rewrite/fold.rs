//! Folding: what is computed from constants alone is computed now.
//!
//! There are two kinds of it. What the *model* computes from its constants is computed as a run would do it: every operator at
//! the types of the model, so that a Cast rounds, a sum overflows and a quotient is truncated (`fold-constants`). What *rules*
//! compute from weights is algebra over the reals that no model asked for: it is computed in f64 and rounded once, to the type of
//! the result (`fold-weights`). A value of the second kind is computed at the types of the model too if every bit must stay, if
//! an operator of the model takes part in it, or if one of its operators jumps where its operand changes by a rounding. Rules see
//! to it that what they build is finite in its type ([`super::magnitude`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use convc_runtime::{
    Constant, DType, Fact, Op, Real, Tensor,
    session::{Session, SessionOptions},
};

use super::{
    engine::{Engine, Step},
    error::RewriteError,
};
use crate::{
    ir::{Graph, Kind, NodeId, Value},
    lower::lower,
    ops::properties,
};

/// How much folding may add.
#[derive(Debug, Clone, Copy)]
pub struct FoldLimits {
    /// A folded value may have this many bytes more than the constants it is made of.
    pub growth: usize,
    /// No folded value may have more elements.
    pub elements: usize,
    /// Whether folding computes in the types of the model, so that every bit stays; otherwise in f64, rounded once.
    pub keep_bits: bool,
}

/// A folded value may be this many times as large as what it is made of: a kernel set into a larger one is.
const GROWTH_FACTOR: usize = 16;

/// Bytes of constants that are folded together.
const BATCH: usize = 1 << 25;

impl Default for FoldLimits {
    fn default() -> FoldLimits {
        FoldLimits { growth: 1 << 20, elements: 1 << 28, keep_bits: false }
    }
}

impl Engine {
    /// Replaces by constants all values that are computed from constants alone, and integer values whose elements follow
    /// from shapes. Returns how many.
    ///
    /// # Errors
    /// If an operator fails on constants, which makes the model invalid.
    pub fn fold(&mut self, limits: FoldLimits) -> Result<usize, RewriteError> {
        let known = self.fold_known()?;
        if known > 0 {
            self.refresh();
        }
        Ok(known + self.fold_constants(limits)?)
    }

    /// Values whose elements inference knows: shape arithmetic.
    fn fold_known(&mut self) -> Result<usize, RewriteError> {
        self.refresh();
        let mut folded = 0;
        // What depends on elements that ONNX leaves open.
        let mut open: BTreeSet<NodeId> = BTreeSet::new();
        for id in self.graph.topological() {
            let node = self.graph.node(id);
            let Some(op) = node.op() else { continue };
            let reads_elements = !matches!(op, Op::Shape(_) | Op::Size(_));
            let from_open = reads_elements && node.operands().iter().flatten().any(|o| open.contains(&o.node));
            if from_open || !is_defined(&self.graph, id) {
                open.insert(id);
                continue;
            }
            if node.outputs() != 1 {
                continue;
            }
            let v = Value { node: id, port: 0 };
            let Some(fact) = self.graph.fact(v) else { continue };
            let Some(constant) = known_constant(fact) else { continue };
            self.put(v, &constant, FOLD_CONSTANTS)?;
            folded += 1;
        }
        self.graph.remove_dead();
        Ok(folded)
    }

    fn put(&mut self, v: Value, constant: &Constant, rule: &str) -> Result<(), RewriteError> {
        let term = self.term(v);
        let rhs = self.terms.constant(constant);
        let origins = self.terms.get(term).origins.clone();
        self.terms.derive_origins(term, rhs);
        self.terms.add_origins(rhs, origins);
        self.steps.push(Step { rule: rule.into(), region: None, lhs: term, rhs, conditions: Vec::new() });
        self.replace(v, rhs)
    }

    /// The nodes that can be computed now, and their values that are used by others: the model's own nodes alone, or all.
    fn candidates(&self, limits: FoldLimits, refused: &BTreeSet<NodeId>, own: bool) -> (BTreeSet<NodeId>, Vec<Value>) {
        let order = self.graph.topological();
        let mut foldable: BTreeSet<NodeId> = BTreeSet::new();
        for &id in &order {
            let node = self.graph.node(id);
            let small = || node.facts().iter().all(|f| f.as_ref().is_some_and(|f| is_small(f, limits)));
            let now = match &node.kind {
                Kind::Constant(c) => c.dtype().is_executed(),
                Kind::Op(_) => {
                    !(refused.contains(&id) || own && self.is_made(id))
                        && node.operands().iter().flatten().all(|o| foldable.contains(&o.node))
                        && small()
                        && is_defined(&self.graph, id)
                }
                _ => false,
            };
            if now {
                foldable.insert(id);
            }
        }
        let roots = order
            .iter()
            .filter(|id| foldable.contains(id) && self.graph.node(**id).op().is_some())
            .flat_map(|&id| {
                (0..self.graph.node(id).outputs())
                    .map(move |p| Value { node: id, port: u32::try_from(p).unwrap_or(u32::MAX) })
            })
            .filter(|v| {
                self.graph.is_output(*v) || self.graph.uses(*v).iter().any(|(user, _)| !foldable.contains(user))
            })
            .collect();
        (foldable, roots)
    }

    /// Whether rules alone made a value of constants, by operators that follow small changes of their operands.
    fn is_weight(&self, v: Value) -> bool {
        cone(&self.graph, &[v])
            .into_iter()
            .all(|id| self.graph.node(id).op().is_none() || (self.is_made(id) && !jumps(&self.graph, id)))
    }

    /// Whether a value is not much larger than the constants it is made of.
    fn worth_its_bytes(&self, v: Value, limits: FoldLimits) -> bool {
        let mut seen = BTreeSet::new();
        let mut stack = vec![v.node];
        let mut given = 0usize;
        while let Some(id) = stack.pop() {
            if seen.insert(id) {
                given = given.saturating_add(constant_bytes(&self.graph, id));
                stack.extend(self.graph.node(id).operands().iter().flatten().map(|o| o.node));
            }
        }
        let Some(fact) = self.graph.fact(v) else { return false };
        let count = fact.element_count().as_fixed().and_then(|n| usize::try_from(n).ok());
        let bytes = count.and_then(|n| fact.dtype.bytes_for(n));
        bytes.is_none_or(|b| b <= given.saturating_mul(GROWTH_FACTOR).saturating_add(limits.growth))
    }

    /// The values in batches, in their order, that are made of so many bytes at most: all that is computed at once is in memory
    /// in f64 at once.
    fn batches(&self, roots: Vec<Value>) -> Vec<Vec<Value>> {
        let mut batches: Vec<Vec<Value>> = Vec::new();
        let mut bytes = BATCH;
        for v in roots {
            let given: usize = cone(&self.graph, &[v]).into_iter().map(|id| constant_bytes(&self.graph, id)).sum();
            bytes = bytes.saturating_add(given);
            match batches.last_mut() {
                Some(batch) if bytes < BATCH => batch.push(v),
                _ => {
                    batches.push(vec![v]);
                    bytes = given;
                }
            }
        }
        batches
    }

    fn fold_constants(&mut self, limits: FoldLimits) -> Result<usize, RewriteError> {
        let own = self.fold_nodes(limits, true)?;
        if own > 0 {
            // What rules made of the results starts from them as they are rounded.
            self.refresh();
        }
        Ok(own + self.fold_nodes(limits, false)?)
    }

    /// Folds what the model's own nodes compute, or everything.
    fn fold_nodes(&mut self, limits: FoldLimits, own: bool) -> Result<usize, RewriteError> {
        let mut refused = BTreeSet::new();
        let (foldable, roots) = loop {
            let (foldable, roots) = self.candidates(limits, &refused, own);
            // What would grow the file too much is computed at run time; what it is made of may still be folded.
            let too_large: Vec<NodeId> =
                roots.iter().filter(|v| !self.worth_its_bytes(**v, limits)).map(|v| v.node).collect();
            if too_large.is_empty() {
                break (foldable, roots);
            }
            refused.extend(too_large);
        };
        if roots.is_empty() {
            return Ok(0);
        }
        let count = roots.len();
        let (weights, native): (Vec<Value>, Vec<Value>) =
            roots.into_iter().partition(|v| !limits.keep_bits && self.is_weight(*v));
        let mut folded = Vec::with_capacity(count);
        for (rule, real, values) in [(FOLD_CONSTANTS, Real::Native, native), (FOLD_WEIGHTS, Real::F64, weights)] {
            for batch in self.batches(values) {
                let results = evaluate(&self.graph, &batch, &foldable, real)?;
                for (v, tensor) in batch.into_iter().zip(results) {
                    folded.push((v, rounded(&self.graph, v, &tensor)?, rule));
                }
            }
        }
        for (v, constant, rule) in folded {
            self.put(v, &constant, rule)?;
        }
        self.graph.remove_dead();
        Ok(count)
    }
}

/// The step that computes what the model computes from constants, at the model's types.
pub(crate) const FOLD_CONSTANTS: &str = "fold-constants";
/// The step that computes what rules make of weights, in f64 and rounded once.
pub(crate) const FOLD_WEIGHTS: &str = "fold-weights";

/// The constant whose elements inference knows.
pub(crate) fn known_constant(fact: &Fact) -> Option<Constant> {
    let (shape, elements) = (fact.fixed_shape()?, fact.i64s()?);
    let tensor = match fact.dtype {
        DType::I64 => Tensor::new(shape, elements),
        DType::I32 => Tensor::new(shape, elements.iter().map(|&x| i32::try_from(x).ok()).collect::<Option<Vec<_>>>()?),
        _ => return None,
    };
    tensor.and_then(|t| Constant::from_tensor(&t)).ok()
}

/// A value computed in f64, in the type it has in the graph.
fn rounded(graph: &Graph, v: Value, tensor: &Tensor) -> Result<Constant, RewriteError> {
    let tensor = graph.fact(v).map_or(tensor.clone(), |f| tensor.rounded_to(f.dtype));
    Constant::from_tensor(&tensor).map_err(|e| RewriteError::Fold(e.to_string()))
}

/// The value of `v` in a graph that is computed from constants alone, as the folding step of this name makes it.
///
/// # Errors
/// If it cannot be computed, or the step is not for such operators.
pub(crate) fn constant_of(graph: &Graph, v: Value, rule: &str) -> Result<Constant, RewriteError> {
    let all = graph.nodes().into_iter().collect();
    let real = if rule == FOLD_WEIGHTS { Real::F64 } else { Real::Native };
    if real == Real::F64 && cone(graph, &[v]).iter().any(|id| jumps(graph, *id)) {
        return Err(RewriteError::Fold(format!("{rule} is not for operators that round or jump")));
    }
    match evaluate(graph, &[v], &all, real)?.first() {
        Some(tensor) => rounded(graph, v, tensor),
        None => Err(RewriteError::Fold("there is no result".into())),
    }
}

pub(crate) fn is_small(fact: &Fact, limits: FoldLimits) -> bool {
    // A size that only the data decides is checked when it is computed.
    fact.element_count().as_fixed().is_none_or(|n| usize::try_from(n).is_ok_and(|n| n <= limits.elements))
}

fn constant_bytes(graph: &Graph, id: NodeId) -> usize {
    match &graph.node(id).kind {
        Kind::Constant(c) => c.bytes().len(),
        _ => 0,
    }
}

/// Whether ONNX says what an operator makes of its constants. What a Cast makes of a number beyond the integers of its type is left
/// to whoever runs the model: machines differ. Its operand is folded before it is asked.
fn is_defined(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let to = graph.dtype(Value { node: id, port: 0 });
    let (Some(Op::Cast(_)), Some(to), Some(x)) = (node.op(), to, node.operands().first().copied().flatten()) else {
        return true;
    };
    if !to.is_integer() || !graph.dtype(x).is_some_and(DType::is_float) {
        return true;
    }
    let power = 2f64.powi(i32::try_from(to.bits()).unwrap_or(0));
    let signed = matches!(to, DType::I8 | DType::I16 | DType::I32 | DType::I64);
    let (low, high) = if signed { (-power / 2.0, power / 2.0) } else { (0.0, power) };
    let values = graph.constant(x).and_then(|c| c.to_tensor().ok()?.to_f64s());
    values.is_some_and(|v| v.iter().all(|v| (low..high).contains(&v.trunc())))
}

/// Whether an operator's result jumps where its floating-point operand changes by a rounding, or is rounded itself: the floor of
/// 10 times the f32 nearest to 0.7 is 7 in f32, and 6 in f64.
fn jumps(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let float = |v: Value| graph.dtype(v).is_some_and(DType::is_float);
    let from_float = node.operands().iter().flatten().any(|v| float(*v));
    node.op().is_some_and(|op| matches!(op, Op::Cast(_)) || (from_float && properties(op).jumps))
}

/// The nodes that `roots` are computed from.
fn cone(graph: &Graph, roots: &[Value]) -> BTreeSet<NodeId> {
    let mut needed: BTreeSet<NodeId> = BTreeSet::new();
    let mut stack: Vec<NodeId> = roots.iter().map(|v| v.node).collect();
    while let Some(id) = stack.pop() {
        if needed.insert(id) {
            stack.extend(graph.node(id).operands().iter().flatten().map(|v| v.node));
        }
    }
    needed
}

/// The values of `roots`, computed from the constants below them.
fn evaluate(
    graph: &Graph,
    roots: &[Value],
    foldable: &BTreeSet<NodeId>,
    real: Real,
) -> Result<Vec<Tensor>, RewriteError> {
    let needed = cone(graph, roots);
    let mut cone = Graph::new();
    let mut moved: BTreeMap<Value, Value> = BTreeMap::new();
    for id in graph.topological() {
        if !needed.contains(&id) || !foldable.contains(&id) {
            continue;
        }
        let node = graph.node(id);
        let operands = node.operands().iter().map(|o| o.and_then(|o| moved.get(&o).copied())).collect();
        let new = cone.add_node(node.kind.clone(), operands, node.facts().to_vec());
        cone.annotate(new, node.name.clone(), Vec::new());
        for p in 0..node.outputs() {
            let port = u32::try_from(p).unwrap_or(u32::MAX);
            moved.insert(Value { node: id, port }, Value { node: new, port });
        }
    }
    for (i, root) in roots.iter().enumerate() {
        cone.add_output(i.to_string(), moved[root], graph.fact(*root).cloned());
    }
    let plan = lower(&cone).map_err(|e| RewriteError::Fold(e.to_string()))?;
    let options = SessionOptions { threads: threads(), real, ..SessionOptions::default() };
    let session = Session::new(Arc::new(plan), options).map_err(|e| RewriteError::Fold(e.to_string()))?;
    session.run(&BTreeMap::new()).map_err(|e| RewriteError::Fold(e.to_string()))
}

/// Threads for work at compile time; results do not depend on them.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
