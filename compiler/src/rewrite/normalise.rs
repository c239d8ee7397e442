//! Normalisation: rules whose right side is never worse, applied to the graph itself until none fires.

use convc_runtime::Op;

use super::{
    RewriteError,
    engine::{Engine, NotFired, Step},
    rule::{Cx, Match, Miss, Rule},
    terms::{TermId, Terms},
};
use crate::ir::Value;

impl Engine {
    /// Applies `rules` wherever they match, until none does or `limit` rewrites were made. Returns how many were. `forced` names
    /// a rule and one of its conditions that counts as holding, for tests.
    ///
    /// # Errors
    /// If a rule builds a term that an operator refuses.
    pub fn normalise(
        &mut self,
        rules: &[&'static Rule],
        limit: usize,
        forced: Option<(&'static str, &'static str)>,
    ) -> Result<usize, RewriteError> {
        let mut made = 0;
        loop {
            let before = made;
            let merged = self.refresh();
            for id in self.graph.topological() {
                if made >= limit {
                    return Ok(made);
                }
                if !self.graph.contains(id) || self.graph.node(id).outputs() != 1 {
                    continue;
                }
                let v = Value { node: id, port: 0 };
                if self.graph.node(id).op().is_none() || (self.graph.uses(v).is_empty() && !self.graph.is_output(v)) {
                    continue;
                }
                if self.normalise_value(v, rules, forced)? {
                    made += 1;
                }
            }
            self.graph.remove_dead();
            if made == before && !merged {
                return Ok(made);
            }
        }
    }

    /// Applies the first rule that matches at a value. Its operands' terms are those of the beginning of the pass: equal to
    /// what stands there now.
    fn normalise_value(
        &mut self,
        v: Value,
        rules: &[&'static Rule],
        forced: Option<(&'static str, &'static str)>,
    ) -> Result<bool, RewriteError> {
        let term = self.term(v);
        let Some(name) = self.graph.node(v.node).op().map(Op::name) else { return Ok(false) };
        for rule in rules.iter().filter(|r| r.roots.contains(&name)) {
            let Some(app) = super::view::View::apps(&self.terms, term.class()).pop() else { return Ok(false) };
            let forced = forced.filter(|f| f.0 == rule.name).map(|f| f.1);
            let (matches, misses) = Cx::search(&self.terms, rule, term.class(), &app, forced);
            self.not_fired.extend(misses.into_iter().map(|m| not_fired(&self.terms, m, term)));
            let Some(m) = matches.into_iter().next() else { continue };
            let Some(rhs) = self.terms.add(&m.rhs) else { continue };
            if rhs == term {
                continue;
            }
            self.step(rule.name, term, rhs, &m);
            self.replace(v, rhs)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Records that a match made `lhs` and `rhs` equal.
    pub(super) fn step(&mut self, rule: &str, lhs: TermId, rhs: TermId, m: &Match) {
        self.terms.derive_origins(lhs, rhs);
        let conditions = m.conditions.iter().map(|c| (*c).to_owned()).collect();
        self.steps.push(Step { rule: rule.into(), region: None, lhs, rhs, conditions });
    }
}

/// The record of a miss at a term.
pub(super) fn not_fired(terms: &Terms, miss: Miss, at: TermId) -> NotFired {
    let origins = terms.get(at).origins.iter().cloned().collect();
    NotFired { rule: miss.rule.into(), condition: miss.condition.into(), reason: miss.reason, origins }
}
