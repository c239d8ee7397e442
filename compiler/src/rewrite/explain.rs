//! From egg's explanations to steps between terms.

use std::{collections::BTreeMap, rc::Rc};

use egg::{RecExpr, TreeTerm};

use super::{
    language::{Analysis, Node, OWN},
    terms::{TermId, Terms},
};

/// One use of a rule: `lhs` and `rhs` are equal by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawStep {
    pub(crate) rule: String,
    pub(crate) lhs: TermId,
    pub(crate) rhs: TermId,
}

/// The terms of an expression's nodes; `None` for holes and tuples.
pub(crate) fn terms_of(expr: &RecExpr<Node>, analysis: &Analysis, terms: &mut Terms) -> Vec<Option<TermId>> {
    let mut out: Vec<Option<TermId>> = Vec::with_capacity(expr.len());
    for node in expr.iter() {
        let operands: Vec<Option<TermId>> = match node {
            Node::Op(_, _, args) => args.iter().map(|a| out.get(usize::from(*a)).copied().flatten()).collect(),
            _ => Vec::new(),
        };
        out.push(term_of(node, operands, analysis, terms));
    }
    out
}

fn term_of(node: &Node, operands: Vec<Option<TermId>>, analysis: &Analysis, terms: &mut Terms) -> Option<TermId> {
    match node {
        Node::Hole | Node::Tuple(_) => None,
        Node::Leaf(id) if *id >= OWN => analysis.constant(*id).map(|c| terms.constant(c)),
        Node::Leaf(id) => Some(TermId(*id)),
        Node::Op(..) => analysis.op(node).map(|op| terms.apply(op, operands, None)),
    }
}

/// Walks the proof that a region's outputs equal the extracted ones and lists its steps, each once, in an order in which
/// each is stated of terms that are known by then.
pub(crate) fn steps(proof: &[Rc<TreeTerm<Node>>], analysis: &Analysis, terms: &mut Terms) -> Vec<RawStep> {
    let mut walk = Walk { analysis, terms, ends: BTreeMap::new(), steps: Vec::new() };
    walk.sequence(proof);
    walk.steps
}

struct Walk<'a> {
    analysis: &'a Analysis,
    terms: &'a mut Terms,
    /// First and last form of each proof node met.
    ends: BTreeMap<*const TreeTerm<Node>, (Option<TermId>, Option<TermId>)>,
    steps: Vec<RawStep>,
}

impl Walk<'_> {
    /// First and last form of a proof.
    fn sequence(&mut self, proof: &[Rc<TreeTerm<Node>>]) -> (Option<TermId>, Option<TermId>) {
        let mut first = None;
        let mut last: Option<TermId> = None;
        for (i, term) in proof.iter().enumerate() {
            let (begin, end) = self.term(term);
            if i == 0 {
                first = begin;
            } else if let (Some(from), Some(to)) = (last, begin) {
                if let Some(rule) = term.forward_rule {
                    self.push(rule.as_str(), from, to);
                }
                if let Some(rule) = term.backward_rule {
                    self.push(rule.as_str(), to, from);
                }
            }
            last = end;
        }
        (first, last)
    }

    fn term(&mut self, term: &Rc<TreeTerm<Node>>) -> (Option<TermId>, Option<TermId>) {
        let key = Rc::as_ptr(term);
        if let Some(ends) = self.ends.get(&key) {
            return *ends;
        }
        let (firsts, lasts): (Vec<_>, Vec<_>) = term.child_proofs.iter().map(|p| self.sequence(p)).unzip();
        let begin = term_of(&term.node, firsts, self.analysis, self.terms);
        let end = term_of(&term.node, lasts, self.analysis, self.terms);
        self.ends.insert(key, (begin, end));
        (begin, end)
    }

    fn push(&mut self, rule: &str, lhs: TermId, rhs: TermId) {
        let step = RawStep { rule: rule.to_owned(), lhs, rhs };
        if !self.steps.contains(&step) {
            self.steps.push(step);
        }
    }
}
