//! [`Closure`]: which terms of a trace are equal, given some that are: union-find and congruence.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    lines::{TermLine, Trace},
    table::op_of,
};
use crate::ops::properties;

/// A term's place in the list of the trace's terms.
pub(crate) type Index = usize;

/// The terms as the closure sees them.
pub(crate) struct Shapes {
    /// For operators, a number for the operator with its attributes.
    ops: Vec<Option<usize>>,
    /// Whether it is of no matter which operand comes first.
    commutative: Vec<bool>,
    /// Operands, holes included.
    pub(crate) operands: Vec<Vec<Option<Index>>>,
    place: HashMap<u32, Index>,
}

impl Shapes {
    pub(crate) fn new(trace: &Trace) -> Shapes {
        let place: HashMap<u32, Index> = trace.terms.iter().enumerate().map(|(i, t)| (t.id, i)).collect();
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        let ops = trace
            .terms
            .iter()
            .map(|t| {
                let op = t.op.as_ref()?;
                let key = format!("{op:?} {:?}", t.attributes);
                let next = numbers.len();
                Some(*numbers.entry(key).or_insert(next))
            })
            .collect();
        let is_commutative = |t: &TermLine| t.op.is_some() && op_of(t).is_ok_and(|op| properties(&op).commutative);
        let commutative = trace.terms.iter().map(is_commutative).collect();
        let operand = |o: &Option<u32>| o.and_then(|o| place.get(&o).copied());
        let operands = trace.terms.iter().map(|t| t.operands.iter().map(operand).collect()).collect();
        Shapes { ops, commutative, operands, place }
    }

    pub(crate) fn len(&self) -> usize {
        self.ops.len()
    }

    /// The place of a term that the reader of the trace has found to exist.
    pub(crate) fn place(&self, term: u32) -> Index {
        self.place.get(&term).copied().unwrap_or(usize::MAX)
    }
}

type Signature = (usize, Vec<Option<Index>>);

/// Classes of equal terms, closed under congruence. Only terms that were added take part.
pub(crate) struct Closure {
    shapes: Arc<Shapes>,
    parent: Vec<Index>,
    /// The terms that have a member of the class as an operand, by the class's root.
    users: Vec<Vec<Index>>,
    terms: HashMap<Signature, Index>,
    added: Vec<bool>,
}

impl Closure {
    pub(crate) fn new(shapes: Arc<Shapes>) -> Closure {
        let n = shapes.len();
        Closure {
            shapes,
            parent: (0..n).collect(),
            users: vec![Vec::new(); n],
            terms: HashMap::new(),
            added: vec![false; n],
        }
    }

    /// With all terms of the trace.
    pub(crate) fn of_all(shapes: Arc<Shapes>) -> Closure {
        let n = shapes.len();
        let mut closure = Closure::new(shapes);
        (0..n).for_each(|t| closure.add(t));
        closure
    }

    pub(crate) fn equal(&mut self, a: Index, b: Index) -> bool {
        self.find(a) == self.find(b)
    }

    pub(crate) fn find(&mut self, mut t: Index) -> Index {
        while self.parent[t] != t {
            self.parent[t] = self.parent[self.parent[t]];
            t = self.parent[t];
        }
        t
    }

    fn signature(&mut self, t: Index, class: &mut dyn FnMut(&mut Self, Index) -> Index) -> Option<Signature> {
        let shapes = Arc::clone(&self.shapes);
        let op = shapes.ops[t]?;
        let mut operands: Vec<Option<Index>> = shapes.operands[t].iter().map(|o| o.map(|o| class(self, o))).collect();
        if shapes.commutative[t] {
            operands.sort_unstable();
        }
        Some((op, operands))
    }

    /// A term that was added and equals `t` by congruence, given the classes of `t`'s operands.
    pub(crate) fn congruent(&mut self, t: Index, class: &mut dyn FnMut(&mut Self, Index) -> Index) -> Option<Index> {
        let signature = self.signature(t, class)?;
        self.terms.get(&signature).copied()
    }

    /// Adds a term whose operands have been added.
    pub(crate) fn add(&mut self, t: Index) {
        if std::mem::replace(&mut self.added[t], true) {
            return;
        }
        let Some(signature) = self.signature(t, &mut |c, o| c.find(o)) else { return };
        for o in signature.1.iter().flatten() {
            self.users[*o].push(t);
        }
        match self.terms.get(&signature) {
            Some(&other) => self.union(t, other),
            None => {
                self.terms.insert(signature, t);
            }
        }
    }

    /// Makes two terms equal, and all that are so by congruence.
    pub(crate) fn union(&mut self, a: Index, b: Index) {
        let mut stack = vec![(a, b)];
        while let Some((a, b)) = stack.pop() {
            let (a, b) = (self.find(a), self.find(b));
            if a == b {
                continue;
            }
            let (from, to) = if self.users[a].len() < self.users[b].len() { (a, b) } else { (b, a) };
            self.parent[from] = to;
            let moved = std::mem::take(&mut self.users[from]);
            for &user in &moved {
                let Some(signature) = self.signature(user, &mut |c, o| c.find(o)) else { continue };
                match self.terms.get(&signature) {
                    Some(&other) => stack.push((user, other)),
                    None => {
                        self.terms.insert(signature, user);
                    }
                }
            }
            self.users[to].extend(moved);
        }
    }
}
