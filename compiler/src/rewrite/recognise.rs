//! Recognition: rules whose right side is one operator that stands for everything on the left, applied to the graph before
//! exploring and again once the other phases have come to rest.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Options, RewriteError,
    cost::{Operand, Pricing},
    engine::Engine,
    normalise::not_fired,
    rule::{Cx, Match, Rule},
    terms::{Head, TermId},
    view::{Expr, View},
};
use crate::ir::{NodeId, Value};

impl Engine {
    /// Applies `rules` wherever they match and the whole gets no dearer, each node before its operands, so that the largest
    /// left side is found first. At most `limit` rewrites; returns how many were made.
    ///
    /// # Errors
    /// If a rule builds a term that an operator refuses.
    pub fn recognise(
        &mut self,
        rules: &[&'static Rule],
        limit: usize,
        options: &Options,
    ) -> Result<usize, RewriteError> {
        let mut made = 0;
        if rules.is_empty() {
            return Ok(0);
        }
        self.refresh();
        let mut order = self.graph.topological();
        order.reverse();
        for id in order {
            if made >= limit {
                break;
            }
            if !self.graph.contains(id) || self.graph.node(id).outputs() != 1 {
                continue;
            }
            let v = Value { node: id, port: 0 };
            if self.graph.uses(v).is_empty() && !self.graph.is_output(v) {
                continue;
            }
            made += usize::from(self.recognise_value(v, rules, options)?);
        }
        self.graph.remove_dead();
        self.refresh();
        Ok(made)
    }

    fn recognise_value(&mut self, v: Value, rules: &[&'static Rule], options: &Options) -> Result<bool, RewriteError> {
        let term = self.term(v);
        let Some(name) = self.graph.node(v.node).op().map(convc_runtime::Op::name) else { return Ok(false) };
        for rule in rules.iter().filter(|r| r.roots.contains(&name)) {
            let Some(app) = View::apps(&self.terms, term.class()).pop() else { return Ok(false) };
            let forced = options.forced.filter(|f| f.0 == rule.name).map(|f| f.1);
            let (matches, misses) = Cx::search(&self.terms, rule, term.class(), &app, forced);
            self.not_fired.extend(misses.into_iter().map(|m| not_fired(&self.terms, m, term)));
            for m in matches {
                let Some(rhs) = self.terms.add(&m.rhs).filter(|rhs| *rhs != term) else { continue };
                if !self.pays(v, &m, rhs, options) {
                    continue;
                }
                self.step(rule.name, term, rhs, &m);
                self.replace(v, rhs)?;
                self.graph.remove_dead();
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the nodes that come cost hardly more than those that die: a view more is made up for by what the operator takes
    /// in from behind it.
    fn pays(&self, root: Value, m: &Match, rhs: TermId, options: &Options) -> bool {
        let pricing = Pricing::new(options);
        let price = |t: TermId| -> f64 {
            let entry = self.terms.get(t);
            let Head::Op(op) = &entry.head else { return 0.0 };
            if entry.constant {
                return 0.0;
            }
            let operand = |o: TermId| {
                let o = self.terms.get(o);
                o.fact.as_ref().map(|fact| Operand { fact, constant: o.constant })
            };
            let operands: Vec<Option<Operand<'_>>> = entry.operands.iter().map(|o| o.and_then(operand)).collect();
            pricing.node(op, &operands, entry.fact.as_ref())
        };
        let replaced = self.replaced(root, &m.lhs);
        let gone: f64 = replaced.iter().map(|n| price(self.term(Value { node: *n, port: 0 }))).sum();
        let mut come: BTreeSet<TermId> = BTreeSet::new();
        let mut stack = vec![rhs];
        while let Some(t) = stack.pop() {
            let stays = self.value(t).is_some_and(|v| !replaced.contains(&v.node));
            if !stays && come.insert(t) {
                stack.extend(self.terms.get(t).operands.iter().flatten());
            }
        }
        let come: f64 = come.into_iter().map(price).sum();
        come <= gone * (1.0 + 1e-9) + options.profile.launch
    }

    /// The nodes of a left side that nothing else needs.
    fn replaced(&self, root: Value, lhs: &Expr) -> BTreeSet<NodeId> {
        let mut inside: BTreeMap<TermId, NodeId> = BTreeMap::new();
        let mut stack = vec![lhs];
        while let Some(e) = stack.pop() {
            let Expr::Op(_, operands) = e else { continue };
            if let Some(t) = self.terms.find(e)
                && let Some(v) = self.value(t)
            {
                inside.insert(t, v.node);
            }
            stack.extend(operands.iter().flatten());
        }
        let mut gone = BTreeSet::from([root.node]);
        // Users come later, so going backwards sees them first.
        for node in self.graph.topological().into_iter().rev().filter(|n| inside.values().any(|i| i == n)) {
            let v = Value { node, port: 0 };
            if !self.graph.is_output(v) && self.graph.users_of_node(node).iter().all(|u| gone.contains(u)) {
                gone.insert(node);
            }
        }
        gone
    }
}
