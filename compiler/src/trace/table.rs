//! Terms as rules see them, built again from the lines of a trace.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use convc_runtime::{Constant, Dim, Fact, Op, ops::InferCx};

use super::lines::{AttributeLine, NodeLine, STORED_ELEMENTS, Side, TermLine, Trace};
use crate::{
    ir::{Graph, Value},
    rewrite::{
        fold::{self, FOLD_CONSTANTS, FOLD_WEIGHTS, FoldLimits},
        keys::ConstantKey,
        positive::Positive,
        rule::Cx,
        rules,
        terms::{Head, TermId, Terms},
        view::{Expr, View},
    },
};

/// The terms of a trace.
pub(super) struct Table {
    pub(super) terms: Terms,
    /// For each line, its term.
    pub(super) ids: Vec<TermId>,
    /// Lines whose sizes only the data decides, so that the trace's word was taken for them.
    pub(super) taken: BTreeSet<u32>,
    /// What the left side of each folding step was found to be.
    pub(super) folded: BTreeMap<Fold, Folded>,
}

/// A folding step: the line of its left side, and whether rules made of weights what it computes.
pub(super) type Fold = (u32, bool);

/// The result of computing the left side of a folding step.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Folded {
    /// What it is, and its key.
    Computed(ConstantKey, Constant),
    /// Constants that it needs are not at hand.
    Unseen,
    /// It is not computed from constants.
    NotConstant,
    /// It could not be computed.
    Failed(String),
}

/// A line that is no term, with its number.
pub(super) struct Bad {
    pub(super) term: u32,
    pub(super) problem: String,
}

/// Marks symbols that inference makes here, which name sizes that only the data decides.
const FRESH: &str = "?replay.";

impl Table {
    /// `given` are constants whose elements are at hand, by their keys.
    pub(super) fn new(trace: &Trace, mut given: BTreeMap<ConstantKey, Constant>) -> Result<Table, Bad> {
        let mut table = Table::once(trace, &given, BTreeMap::new())?;
        // Constants of the rules' own, such as identity kernels, are as the rules make them.
        loop {
            let found = table.made_by_rules(trace, &given);
            if found.is_empty() {
                return Ok(table);
            }
            given.extend(found);
            let known = table.folded.into_iter().filter(|(_, f)| matches!(f, Folded::Computed(..))).collect();
            table = Table::once(trace, &given, known)?;
        }
    }

    /// Large constants of the trace that rules make, searched at the left sides of their steps.
    fn made_by_rules(&self, trace: &Trace, given: &BTreeMap<ConstantKey, Constant>) -> BTreeMap<ConstantKey, Constant> {
        let mut found = BTreeMap::new();
        let place: BTreeMap<u32, TermId> = trace.terms.iter().zip(&self.ids).map(|(l, t)| (l.id, *t)).collect();
        for step in &trace.steps {
            let Some(rule) = rules::find(&step.rule) else { continue };
            let Some(lhs) = place.get(&step.lhs) else { continue };
            let Some(app) = self.terms.apps(lhs.class()).pop() else { continue };
            let (matches, _) = Cx::search(&self.terms, rule, lhs.class(), &app, None);
            for m in &matches {
                constants_in(&m.rhs, &mut |c| {
                    if c.len() > STORED_ELEMENTS {
                        let key = ConstantKey::of(c);
                        let unseen = self.terms.find_constant(&key).map(|t| &self.terms.get(t).head);
                        if matches!(unseen, Some(Head::Value(_))) && !given.contains_key(&key) {
                            found.insert(key, c.clone());
                        }
                    }
                });
            }
        }
        found
    }

    fn once(
        trace: &Trace,
        given: &BTreeMap<ConstantKey, Constant>,
        folded: BTreeMap<Fold, Folded>,
    ) -> Result<Table, Bad> {
        let mut table = Table { terms: Terms::new(), ids: Vec::new(), taken: BTreeSet::new(), folded };
        let mut folds: BTreeMap<u32, Vec<Fold>> = BTreeMap::new();
        for s in &trace.steps {
            if [FOLD_CONSTANTS, FOLD_WEIGHTS].contains(&&*s.rule) {
                folds.entry(s.rhs).or_default().push((s.lhs, s.rule == FOLD_WEIGHTS));
            }
        }
        let mut place: BTreeMap<u32, TermId> = BTreeMap::new();
        for line in &trace.terms {
            let from: Vec<(Fold, TermId)> = folds
                .get(&line.id)
                .into_iter()
                .flatten()
                .filter_map(|fold| place.get(&fold.0).map(|t| (*fold, *t)))
                .collect();
            let id = table.add(line, &place, given, &from).map_err(|problem| Bad { term: line.id, problem })?;
            place.insert(line.id, id);
            table.ids.push(id);
        }
        // A constant may have been there before what is found to equal it.
        for (fold, term) in folds.values().flatten().filter_map(|f| place.get(&f.0).map(|t| (*f, *t))) {
            table.fold(fold, term);
        }
        let positive = table.positive(trace, &place);
        table.terms.set_positive(Arc::new(positive));
        Ok(table)
    }

    /// What the convolutions of the file read say of sizes, those that nodes which are not looked into work on included.
    fn positive(&self, trace: &Trace, place: &BTreeMap<u32, TermId>) -> Positive {
        let mut found = Positive::default();
        let read: BTreeMap<u32, &NodeLine> = trace
            .nodes
            .iter()
            .filter(|n| n.side == Side::Read && n.operands.is_some())
            .flat_map(|n| n.terms.iter().map(move |t| (*t, n)))
            .collect();
        let mut stack: Vec<u32> = trace.outputs.iter().map(|o| o.before).collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = stack.pop() {
            let Some(line) = trace.term(id).filter(|_| seen.insert(id)) else { continue };
            stack.extend(line.operands.iter().flatten());
            stack.extend(read.get(&id).into_iter().flat_map(|n| n.operands.iter().flatten().flatten()));
            let Some(term) = place.get(&id).map(|t| self.terms.get(*t)) else { continue };
            if let Head::Op(op) = &term.head {
                let fact =
                    |i: usize| term.operands.get(i).copied().flatten().and_then(|o| self.terms.get(o).fact.as_ref());
                found.learn(op, [fact(0), fact(1)], term.fact.as_ref());
            }
        }
        found
    }

    fn add(
        &mut self,
        line: &TermLine,
        place: &BTreeMap<u32, TermId>,
        given: &BTreeMap<ConstantKey, Constant>,
        folded_from: &[(Fold, TermId)],
    ) -> Result<TermId, String> {
        let recorded = line.r#type.as_ref().map(super::lines::TypeLine::fact).transpose()?;
        if let Some(c) = &line.constant {
            let key = c.key()?;
            let mut found = c.constant()?.or_else(|| given.get(&key).cloned());
            for (fold, term) in folded_from {
                if let Folded::Computed(k, constant) = self.fold(*fold, *term)
                    && *k == key
                {
                    found.get_or_insert_with(|| constant.clone());
                }
            }
            return Ok(match found {
                Some(constant) => Terms::constant(&mut self.terms, &constant),
                None => self.terms.constant_by_key(&key, Fact::fixed(c.element_type()?, &c.shape), c.largest),
            });
        }
        if let Some(name) = &line.value {
            return Ok(self.terms.value_read(name.as_str(), recorded, line.whole));
        }
        let op = op_of(line)?;
        let operands: Vec<Option<TermId>> =
            line.operands.iter().map(|o| o.and_then(|o| place.get(&o).copied())).collect();
        let fact = self.derive(line.id, &op, &operands, recorded)?;
        Ok(self.terms.apply(&op, operands, fact.as_ref()))
    }

    /// What follows of a term from its operands. The trace's word counts only for sizes that do not follow from them.
    fn derive(
        &mut self,
        id: u32,
        op: &Op,
        operands: &[Option<TermId>],
        recorded: Option<Fact>,
    ) -> Result<Option<Fact>, String> {
        let facts: Option<Vec<Option<&Fact>>> =
            operands.iter().map(|o| o.map_or(Some(None), |o| self.terms.get(o).fact.as_ref().map(Some))).collect();
        let Some(facts) = facts else {
            let known: Vec<Option<&Fact>> =
                operands.iter().map(|o| o.and_then(|o| self.terms.get(o).fact.as_ref())).collect();
            op.check(&known).map_err(|e| format!("{}: {e}", op.name()))?;
            if recorded.is_some() {
                self.taken.insert(id);
            }
            return Ok(recorded);
        };
        let mut count = 0;
        let mut fresh = || {
            count += 1;
            Dim::symbol(format!("{FRESH}{id}.{count}"))
        };
        let inferred = op.infer(&facts, &mut InferCx::new(&mut fresh)).map_err(|e| format!("{}: {e}", op.name()))?;
        let Some(mut fact) = inferred.into_iter().next() else { return Err(format!("{} has no output", op.name())) };
        let Some(recorded) = recorded else { return Ok(Some(fact)) };
        let contradiction = || format!("it is recorded as {recorded}, and is {fact}");
        if fact.dtype != recorded.dtype || fact.rank() != recorded.rank() {
            return Err(contradiction());
        }
        let is_fresh = |d: &Dim| d.symbols().iter().any(|s| s.starts_with(FRESH));
        let mut shape = Vec::with_capacity(fact.rank());
        let mut taken = false;
        for (own, said) in fact.shape.iter().zip(&recorded.shape) {
            shape.push(match own.equals(said) {
                _ if is_fresh(own) => {
                    taken = true;
                    said.clone()
                }
                Some(false) => return Err(contradiction()),
                Some(true) => said.clone(),
                None => own.clone(),
            });
        }
        fact.shape = shape;
        if taken {
            self.taken.insert(id);
        }
        Ok(Some(fact))
    }

    /// Computes the left side of a folding step from constants, or from what inference knows of it.
    fn fold(&mut self, fold: Fold, root: TermId) -> &Folded {
        if !self.folded.contains_key(&fold) {
            let term = self.terms.get(root);
            let result = if term.constant {
                self.compute(root, fold.1)
            } else {
                Ok(term.fact.as_ref().and_then(fold::known_constant))
            };
            let result = match result {
                Ok(Some(c)) => Folded::Computed(ConstantKey::of(&c), c),
                Ok(None) if term.constant => Folded::Unseen,
                Ok(None) => Folded::NotConstant,
                Err(problem) => Folded::Failed(problem),
            };
            self.folded.insert(fold, result);
        }
        self.folded.entry(fold).or_insert(Folded::Unseen)
    }

    fn compute(&self, root: TermId, weights: bool) -> Result<Option<Constant>, String> {
        let mut graph = Graph::new();
        let mut values: BTreeMap<TermId, Value> = BTreeMap::new();
        for t in self.terms.reachable(root, &BTreeSet::new()) {
            let term = self.terms.get(t);
            let value = match &term.head {
                Head::Value(_) => return Ok(None),
                Head::Constant(c) => graph.add_constant(c.clone()),
                Head::Op(op) => {
                    let operands = term.operands.iter().map(|o| o.and_then(|o| values.get(&o).copied())).collect();
                    if !term.fact.as_ref().is_none_or(|f| fold::is_small(f, FoldLimits::default())) {
                        return Err("a value on the way is too large".into());
                    }
                    let node = graph.add_op(op.clone(), operands, 1).map_err(|e| e.to_string())?;
                    Value { node, port: 0 }
                }
            };
            values.insert(t, value);
        }
        let Some(value) = values.get(&root).copied() else { return Ok(None) };
        fold::constant_of(&graph, value, if weights { FOLD_WEIGHTS } else { FOLD_CONSTANTS })
            .map(Some)
            .map_err(|e| e.to_string())
    }
}

fn constants_in(e: &Expr, found: &mut dyn FnMut(&Constant)) {
    match e {
        Expr::Class(_) => {}
        Expr::Constant(c) => found(c),
        Expr::Op(_, operands) => operands.iter().flatten().for_each(|o| constants_in(o, found)),
    }
}

pub(super) fn op_of(line: &TermLine) -> Result<Op, String> {
    let attributes = line
        .attributes
        .iter()
        .map(|(name, value)| Ok((name.clone(), AttributeLine::value(value)?)))
        .collect::<Result<_, String>>()?;
    let name = line.op.as_deref().unwrap_or_default();
    Op::from_attrs(name, attributes).map_err(|e| format!("{name}: {e}"))
}
