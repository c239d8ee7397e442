//! [`Engine`]: the graph under rewriting, its terms, and the record of what was done.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use convc_runtime::Op;

use super::{
    declined::Declinations,
    elements::is_read_whole,
    error::RewriteError,
    terms::{Head, INPUT, OpId, TermId, Terms},
};
use crate::ir::{Graph, Kind, NodeId, Origin, Value};

/// One recorded step: two terms are equal, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The rule, or one of the engine's own: `fold-constants`, `fold-weights`, `merge-duplicates`.
    pub rule: String,
    /// The region it belongs to; `None` for steps on the whole graph.
    pub region: Option<usize>,
    /// What was there (or, for a rule used backwards, what the rule's left side is).
    pub lhs: TermId,
    /// What is equal to it.
    pub rhs: TermId,
    /// The conditions of the rule that were found to hold.
    pub conditions: Vec<String>,
}

/// A candidate that did not fire.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NotFired {
    /// The rule.
    pub rule: String,
    /// The condition that did not hold.
    pub condition: String,
    /// Why.
    pub reason: String,
    /// The nodes of the model it was about.
    pub origins: Vec<Origin>,
}

/// A graph under rewriting.
#[derive(Clone)]
pub struct Engine {
    /// The graph as it stands.
    pub graph: Graph,
    /// Every term met.
    pub terms: Terms,
    /// The steps so far.
    pub steps: Vec<Step>,
    /// The candidates that did not fire.
    pub not_fired: BTreeSet<NotFired>,
    /// The rewrites that were found in a region and not taken there.
    pub(crate) declined: Declinations,
    term_of: HashMap<Value, TermId>,
    value_of: HashMap<TermId, Value>,
    /// For which values the origins of the node were given to a term, and how many: they only grow.
    originated: HashMap<Value, (TermId, usize)>,
    /// The terms of constant nodes, which never change: a term is found by a hash over all bytes.
    constants: HashMap<NodeId, TermId>,
    /// The numbers of the nodes' operators, which never change either.
    op_ids: HashMap<NodeId, OpId>,
    /// The nodes that rules brought in, whose constants are weights that they combine as real numbers.
    made: BTreeSet<NodeId>,
    /// The operators of the nodes as read, by the origin that names them.
    operators: BTreeMap<Origin, String>,
}

impl Engine {
    /// An engine over a graph.
    #[must_use]
    pub fn new(graph: Graph) -> Engine {
        let mut engine = Engine {
            graph,
            terms: Terms::new(),
            steps: Vec::new(),
            not_fired: BTreeSet::new(),
            declined: Declinations::new(),
            term_of: HashMap::new(),
            value_of: HashMap::new(),
            originated: HashMap::new(),
            constants: HashMap::new(),
            op_ids: HashMap::new(),
            made: BTreeSet::new(),
            operators: BTreeMap::new(),
        };
        for id in engine.graph.nodes() {
            let node = engine.graph.node(id);
            for origin in &node.origins {
                engine.operators.entry(Arc::clone(origin)).or_insert_with(|| node.kind.name().to_owned());
            }
        }
        engine.refresh();
        engine
    }

    /// Checks the graph's invariants, where they are checked after every phase.
    ///
    /// # Errors
    /// The first one that is broken.
    pub(super) fn verify_after(&self, phase: &'static str) -> Result<(), RewriteError> {
        crate::ir::verify_after(&self.graph).map_err(|source| RewriteError::Invariant { phase, source })
    }

    /// Makes the terms of all values anew, after operands changed. Values with equal terms are equal: the later one's users
    /// are moved to the earlier one. Returns whether any were.
    pub fn refresh(&mut self) -> bool {
        self.term_of.clear();
        self.value_of.clear();
        let mut merged = false;
        for id in self.graph.topological() {
            merged |= self.register(id);
        }
        merged
    }

    /// Gives the outputs of a node their terms; see [`Engine::refresh`].
    fn register(&mut self, id: NodeId) -> bool {
        let outputs = self.graph.node(id).outputs();
        let mut merged = false;
        for port in 0..outputs {
            let v = Value { node: id, port: u32::try_from(port).unwrap_or(u32::MAX) };
            let node = self.graph.node(id);
            let fact = self.graph.fact(v);
            let term = match &node.kind {
                // The parts of a Split are slices, also where it is only one.
                Kind::Op(op) if outputs == 1 && !matches!(op, Op::Split(_)) => {
                    let number = *self.op_ids.entry(id).or_insert_with(|| self.terms.op_id(op));
                    let operands: Vec<Option<TermId>> =
                        node.operands().iter().map(|o| o.map(|o| self.term_of[&o])).collect();
                    self.terms.apply_numbered(op, number, operands, fact)
                }
                Kind::Constant(c) => *self.constants.entry(id).or_insert_with(|| self.terms.constant(c)),
                kind => {
                    let x = node.operands().first().copied().flatten().map(|x| self.term_of[&x]);
                    let part = x.and_then(|x| super::split::term_of_part(&self.graph, &mut self.terms, id, port, x));
                    let name = self.name_of_value(v, kind);
                    let whole = matches!(kind, Kind::Input) && is_read_whole(&self.graph, v);
                    part.unwrap_or_else(|| self.terms.value_read(name, fact.cloned(), whole))
                }
            };
            let origins = &node.origins;
            if self.originated.insert(v, (term, origins.len())) != Some((term, origins.len())) {
                self.terms.add_origins(term, origins.iter().cloned());
            }
            self.term_of.insert(v, term);
            match self.value_of.get(&term) {
                Some(&earlier) if earlier != v && !matches!(self.graph.node(id).kind, Kind::Constant(_)) => {
                    self.steps.push(Step {
                        rule: "merge-duplicates".into(),
                        region: None,
                        lhs: term,
                        rhs: term,
                        conditions: Vec::new(),
                    });
                    self.hand_over(v, earlier);
                    merged = true;
                }
                Some(&earlier) if earlier != v => {
                    self.graph.replace(v, earlier);
                    merged = true;
                }
                _ => {
                    self.value_of.insert(term, v);
                }
            }
        }
        merged
    }

    fn name_of_value(&self, v: Value, kind: &Kind) -> Arc<str> {
        // The node's handle makes the name unique; inputs are known by theirs.
        match kind {
            Kind::Input => format!("{INPUT}{}", self.graph.value_name(v).unwrap_or_default()).into(),
            _ => format!("{}:{}:{}", kind.name(), v.node, v.port).into(),
        }
    }

    /// The term of a value.
    ///
    /// # Panics
    /// If the value is not of this graph.
    #[must_use]
    pub fn term(&self, v: Value) -> TermId {
        self.term_of[&v]
    }

    /// Whether a node was brought in by a rule.
    pub(super) fn is_made(&self, id: NodeId) -> bool {
        self.made.contains(&id)
    }

    /// The value that a term has in the graph, if it has one.
    #[must_use]
    pub fn value(&self, t: TermId) -> Option<Value> {
        self.value_of.get(&t).copied().filter(|v| self.graph.contains(v.node))
    }

    /// Moves the users and the name of `old` to `new`. An output of the graph keeps its name in any case.
    pub fn hand_over(&mut self, old: Value, new: Value) {
        if old == new {
            return;
        }
        if let Some(name) = self.graph.value_name(old).map(str::to_owned)
            && self.graph.value_name(new).is_none()
        {
            self.graph.set_value_name(new, name);
        }
        self.graph.replace(old, new);
    }

    /// The value of a term, added to the graph (with what it is made of) where it is not there yet.
    ///
    /// # Errors
    /// If an operator refuses its operands: a defect of a rule.
    pub fn emit(&mut self, term: TermId) -> Result<Value, RewriteError> {
        // Terms are numbered behind their operands, so the needed ones can be added in order.
        let mut needed: BTreeSet<TermId> = BTreeSet::new();
        let mut stack = vec![term];
        while let Some(t) = stack.pop() {
            if self.value(t).is_none() && needed.insert(t) {
                stack.extend(self.terms.get(t).operands.iter().flatten());
            }
        }
        for t in needed {
            let entry = self.terms.get(t);
            let origins: Vec<Origin> = entry.origins.iter().cloned().collect();
            let v = match &entry.head {
                Head::Constant(c) => self.graph.add_constant(c.clone()),
                Head::Op(op) => {
                    let op: Op = op.clone();
                    let operands = entry.operands.iter().map(|o| o.and_then(|o| self.value(o))).collect();
                    let id = self.graph.add_op(op.clone(), operands, 1).map_err(|source| RewriteError::Emit {
                        op: op.name(),
                        term: t.to_string(),
                        source,
                    })?;
                    self.made.insert(id);
                    Value { node: id, port: 0 }
                }
                Head::Value(name) => return Err(RewriteError::Lost { value: name.to_string() }),
            };
            let name = self.name_from(self.graph.node(v.node).kind.name(), &origins);
            self.graph.annotate(v.node, name, origins);
            self.term_of.insert(v, t);
            self.value_of.insert(t, v);
        }
        self.value(term).ok_or_else(|| RewriteError::Lost { value: term.to_string() })
    }

    /// The name of a new node: that of the first node it stands for that had the same operator, or else of the first.
    pub(super) fn name_from(&self, operator: &str, origins: &[Origin]) -> String {
        let same = origins.iter().find(|o| self.operators.get(*o).is_some_and(|op| op == operator));
        // A node without a name is known by its place, which is no name.
        same.or(origins.first()).filter(|o| !o.starts_with('#')).map(ToString::to_string).unwrap_or_default()
    }

    /// Replaces a value by an equal term. The step that makes them equal has been recorded.
    ///
    /// # Errors
    /// As [`Engine::emit`].
    pub fn replace(&mut self, old: Value, term: TermId) -> Result<(), RewriteError> {
        let new = self.emit(term)?;
        // Whoever asks for the old term from now on gets the new value: they are equal.
        if let Some(&was) = self.term_of.get(&old) {
            self.value_of.insert(was, new);
        }
        self.hand_over(old, new);
        Ok(())
    }
}
