//! The operators of domain `ai.convc`, and those that came late to ONNX, written out at the end for those who do not know them.

use convc_runtime::{Constant, Dim, Fact, Op, OpError, Tensor, ops::Slice, ops::compose::Composer};

use super::{
    engine::{Engine, Step},
    error::RewriteError,
    explore::rederive_step,
    rule::{Phase, Rule},
    rules,
    terms::{Head, TermId, Terms},
};
use crate::{
    ir::{NodeId, Value},
    ops::primitives,
};

/// The step that writes an operator out by its definition.
pub(crate) const DEFINITION: &str = "definition";

/// Writes definitions as terms.
struct Define<'a>(&'a mut Terms);

impl Define<'_> {
    /// The parts of a Split into equal sizes, as slices: terms have one output.
    fn split(&mut self, axis: i64, x: TermId, outputs: usize) -> Option<Vec<TermId>> {
        let fact = self.0.get(x).fact.clone()?;
        let size = fact.shape.get(usize::try_from(axis).ok()?).and_then(Dim::as_fixed)?;
        let part = size / i64::try_from(outputs).ok()?;
        let ends: Vec<i64> = (1..).map(|i| i * part).take(outputs).collect();
        let slice = |end: i64| {
            let bounds = [end - part, end, axis].map(|n| Some(self.0.constant(&rules::weights::ints(&[n]))));
            let operands = std::iter::once(Some(x)).chain(bounds).collect();
            self.0.apply(&Slice {}.into(), operands, None)
        };
        Some(ends.into_iter().map(slice).collect())
    }
}

impl Composer for Define<'_> {
    type Value = TermId;
    type Error = OpError;

    fn apply(&mut self, op: Op, operands: Vec<Option<TermId>>, outputs: usize) -> Result<Vec<TermId>, OpError> {
        if let (Op::Split(split), Some(&Some(x))) = (&op, operands.first()) {
            let parts = self.split(split.axis, x, outputs);
            return parts.ok_or_else(|| OpError::Unsupported("a split of an axis whose size is not known".into()));
        }
        let t = self.0.apply(&op, operands, None);
        match self.0.get(t).fact {
            Some(_) => Ok(vec![t]),
            None => Err(OpError::Unsupported(format!("{} on operands like these", op.name()))),
        }
    }

    fn constant(&mut self, tensor: Tensor) -> Result<TermId, OpError> {
        Ok(self.0.constant(&Constant::from_tensor(&tensor)?))
    }

    fn fact(&self, value: &TermId) -> Option<Fact> {
        self.0.get(*value).fact.clone()
    }
}

/// The definition of a term of an operator of domain `ai.convc`, or of one that came late to ONNX; `None` for other terms.
///
/// # Errors
/// If sizes that the definition needs are not known.
pub fn definition(terms: &mut Terms, term: TermId) -> Option<Result<TermId, OpError>> {
    let Head::Op(op) = terms.get(term).head.clone() else { return None };
    let operands = terms.get(term).operands.clone();
    primitives::compose(&op, &mut Define(terms), &operands)
}

/// The rule that, read backwards, writes `term` out as `written`.
fn backwards(
    terms: &Terms,
    rules: &[&'static Rule],
    written: TermId,
    term: TermId,
) -> Option<(&'static str, Vec<String>)> {
    let name = match &terms.get(written).head {
        Head::Op(op) => op.name(),
        _ => return None,
    };
    let candidates = rules.iter().filter(|r| r.phase == Phase::Recognise && r.roots.contains(&name));
    candidates.into_iter().find_map(|r| Some((r.name, rederive_step(terms, r, written, term, None)?)))
}

impl Engine {
    /// Writes out every operator for which `unknown` holds by its definition; those that could not be, with the reason.
    ///
    /// # Errors
    /// If an operator refuses the operands it has in a definition, which would be a defect.
    pub fn write_out(
        &mut self,
        rules: &[&'static Rule],
        unknown: impl Fn(&Op) -> bool,
    ) -> Result<Vec<(NodeId, OpError)>, RewriteError> {
        self.refresh();
        let mut kept = Vec::new();
        for id in self.graph.topological() {
            if !self.graph.contains(id) || !self.graph.node(id).op().is_some_and(&unknown) {
                continue;
            }
            let v = Value { node: id, port: 0 };
            let term = self.term(v);
            let written = match definition(&mut self.terms, term) {
                Some(Ok(t)) => t,
                Some(Err(e)) => {
                    kept.push((id, e));
                    continue;
                }
                None => continue,
            };
            self.terms.derive_origins(term, written);
            let step = match backwards(&self.terms, rules, written, term) {
                Some((rule, conditions)) => {
                    Step { rule: rule.into(), region: None, lhs: written, rhs: term, conditions }
                }
                None => Step { rule: DEFINITION.into(), region: None, lhs: term, rhs: written, conditions: Vec::new() },
            };
            self.steps.push(step);
            self.replace(v, written)?;
        }
        self.graph.remove_dead();
        Ok(kept)
    }
}
