//! [`Walk`]: from nodes of the file written back to nodes of the file read, and forwards.

use std::{
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap},
    sync::Arc,
};

use super::{
    closure::{Closure, Index, Shapes},
    lines::{NodeLine, Side, Trace},
};

/// How a term came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It is a term of the file read.
    Read,
    /// A step introduced it, from the other side.
    Step(usize),
    /// A step introduced it as a constant of the rule's own, such as a shape, which may serve others as well.
    Own(usize),
    /// It is the same operator as an earlier term, on operands that steps made equal.
    Congruent(Index),
}

/// A step as the walk goes over it.
#[derive(Debug, Clone, Copy)]
struct Direction {
    from: Index,
    to: Index,
}

/// The way from terms of the file read to all others.
pub struct Walk<'t> {
    trace: &'t Trace,
    shapes: Arc<Shapes>,
    why: Vec<Option<Why>>,
    directions: Vec<Option<Direction>>,
    /// Per term of the file read, its nodes and, of constants and inputs, its values.
    read: HashMap<Index, Vec<&'t str>>,
}

/// What leads to a node or from one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The steps, by number.
    pub steps: BTreeSet<usize>,
    /// The nodes (and of constants and inputs the values) of the file read.
    pub read: BTreeSet<String>,
    /// The nodes of the file written, when walking forwards.
    pub written: BTreeSet<String>,
    /// Numbers of terms that nothing leads to: none in a trace that convc writes.
    pub unexplained: BTreeSet<u32>,
}

/// The terms of a step's side that are not known yet, each with a known one that equals it by congruence.
type Fresh = Vec<(Index, Option<Index>)>;

impl<'t> Walk<'t> {
    /// Finds how each term came about.
    #[must_use]
    pub fn new(trace: &'t Trace) -> Walk<'t> {
        let shapes = Arc::new(Shapes::new(trace));
        let n = shapes.len();
        let mut walk =
            Walk { trace, shapes, why: vec![None; n], directions: vec![None; trace.steps.len()], read: HashMap::new() };
        walk.name_read();
        let mut closure = Closure::new(Arc::clone(&walk.shapes));
        walk.seed(&mut closure);
        walk.go(&mut closure);
        walk
    }

    fn name_read(&mut self) {
        for node in self.trace.nodes.iter().filter(|n| n.side == Side::Read) {
            for t in &node.terms {
                self.read.entry(self.shapes.place(*t)).or_default().push(&node.name);
            }
        }
        let nodes = self.trace.nodes.iter().filter(|n| n.side == Side::Read);
        let nodes: BTreeSet<u32> = nodes.flat_map(|n| n.terms.iter().copied()).collect();
        for value in self.trace.values.iter().filter(|v| v.side == Side::Read) {
            let at = self.shapes.place(value.term);
            let of_node = nodes.contains(&value.term);
            if !of_node && self.trace.terms.get(at).is_some_and(|t| t.op.is_none()) {
                self.read.entry(at).or_default().push(&value.name);
            }
        }
    }

    /// The terms of the file read are where the walk begins.
    fn seed(&mut self, closure: &mut Closure) {
        let trace = self.trace;
        let nodes = trace.nodes.iter().filter(|n| n.side == Side::Read);
        let values = trace.values.iter().filter(|v| v.side == Side::Read).map(|v| v.term);
        let mut stack: Vec<u32> =
            nodes.flat_map(|n| n.terms.iter().chain(n.operands.iter().flatten().flatten())).copied().collect();
        stack.extend(values.chain(trace.outputs.iter().map(|o| o.before)));
        let mut stack: Vec<Index> = stack.into_iter().map(|t| self.shapes.place(t)).collect();
        let mut seen = BTreeSet::new();
        while let Some(t) = stack.pop() {
            if seen.insert(t) {
                stack.extend(self.shapes.operands[t].iter().flatten());
            }
        }
        for t in seen {
            self.why[t] = Some(Why::Read);
            closure.add(t);
        }
    }

    fn go(&mut self, closure: &mut Closure) {
        let mut left: Vec<usize> = (0..self.trace.steps.len()).collect();
        // A step of which neither side is known waits for those that introduce one.
        loop {
            let before = left.len();
            left.retain(|&n| !self.take(n, closure, false));
            if left.len() == before {
                break;
            }
        }
        for n in left {
            self.take(n, closure, true);
        }
        let ends =
            self.trace.values.iter().map(|v| v.term).chain(self.trace.nodes.iter().flat_map(|n| n.terms.clone()));
        let ends: Vec<Index> =
            ends.chain(self.trace.outputs.iter().map(|o| o.after)).map(|t| self.shapes.place(t)).collect();
        for t in ends {
            let fresh = self.fresh(t, closure);
            self.settle(fresh, None, closure);
        }
    }

    /// Goes over a step if one of its sides is known; by force, if neither is.
    fn take(&mut self, n: usize, closure: &mut Closure, force: bool) -> bool {
        let step = &self.trace.steps[n];
        let (lhs, rhs) = (self.shapes.place(step.lhs), self.shapes.place(step.rhs));
        let (left, right) = (self.fresh(lhs, closure), self.fresh(rhs, closure));
        let known = |f: &Fresh| f.iter().all(|(_, q)| q.is_some());
        let direction = match (known(&left), known(&right)) {
            (true, _) => Direction { from: lhs, to: rhs },
            (false, true) => Direction { from: rhs, to: lhs },
            (false, false) if force => Direction { from: lhs, to: rhs },
            (false, false) => return false,
        };
        self.directions[n] = Some(direction);
        let forwards = direction.from == lhs;
        self.settle(left, (!forwards).then_some(n), closure);
        let right = self.fresh(rhs, closure);
        self.settle(right, forwards.then_some(n), closure);
        closure.union(lhs, rhs);
        true
    }

    fn fresh(&self, root: Index, closure: &mut Closure) -> Fresh {
        let mut unknown = BTreeSet::new();
        let mut stack = vec![root];
        while let Some(t) = stack.pop() {
            if self.why[t].is_none() && unknown.insert(t) {
                stack.extend(self.shapes.operands[t].iter().flatten());
            }
        }
        let mut classes: BTreeMap<Index, Index> = BTreeMap::new();
        let mut fresh = Vec::new();
        for t in unknown {
            let mut class = |c: &mut Closure, o: Index| classes.get(&o).copied().unwrap_or_else(|| c.find(o));
            let same = closure.congruent(t, &mut class);
            let class = same.map_or(t, |q| closure.find(q));
            classes.insert(t, class);
            fresh.push((t, same));
        }
        fresh
    }

    fn settle(&mut self, fresh: Fresh, step: Option<usize>, closure: &mut Closure) {
        for (t, same) in fresh {
            // What neither congruence nor a step explains counts as known from here on, but leads nowhere.
            self.why[t] = same.map(Why::Congruent).or(step.map(|n| self.introduced(t, n)));
            closure.add(t);
        }
    }

    fn introduced(&self, t: Index, n: usize) -> Why {
        let constant = self.trace.terms.get(t).is_some_and(|t| t.constant.is_some());
        let side = self.directions.get(n).copied().flatten().is_some_and(|d| d.to == t);
        if constant && !side { Why::Own(n) } else { Why::Step(n) }
    }

    /// What a term was made from.
    fn sources(&self, t: Index) -> Vec<Index> {
        match self.why[t] {
            None | Some(Why::Read) => Vec::new(),
            Some(Why::Congruent(q)) => {
                // The operator is as it was; constants that it uses have a story of their own.
                let pairs = self.shapes.operands[t].iter().zip(&self.shapes.operands[q]);
                let constants = pairs.filter(|(a, b)| a != b).filter_map(|(a, _)| *a);
                let is_constant = |i: &Index| self.trace.terms.get(*i).is_some_and(|t| t.constant.is_some());
                constants.filter(is_constant).chain([q]).collect()
            }
            Some(Why::Step(n) | Why::Own(n)) => self.gone(n),
        }
    }

    /// The terms on the side a step comes from that the other side does not have.
    fn gone(&self, n: usize) -> Vec<Index> {
        let Some(d) = self.directions.get(n).copied().flatten() else { return Vec::new() };
        let mut gone: Vec<Index> = difference(&self.shapes, d.from, d.to);
        if !gone.contains(&d.from) {
            gone.push(d.from);
        }
        gone
    }

    /// Everything that leads from nodes of the file read to these terms.
    #[must_use]
    pub fn back(&self, terms: &[u32]) -> Found {
        let mut found = Found::default();
        let mut seen = BTreeSet::new();
        let roots: Vec<Index> = terms.iter().map(|t| self.shapes.place(*t)).filter(|t| *t < self.why.len()).collect();
        let mut stack = roots.clone();
        while let Some(t) = stack.pop() {
            if !seen.insert(t) {
                continue;
            }
            match self.why[t] {
                // What else it serves is no part of the way.
                Some(Why::Own(_)) if !roots.contains(&t) => continue,
                None => {
                    found.unexplained.extend(self.trace.terms.get(t).map(|t| t.id));
                }
                Some(Why::Read) => self.note_read(t, &mut found),
                Some(Why::Step(n) | Why::Own(n)) => {
                    found.steps.insert(n);
                }
                Some(Why::Congruent(_)) => {}
            }
            stack.extend(self.sources(t));
        }
        found
    }

    fn note_read(&self, t: Index, found: &mut Found) {
        match self.read.get(&t) {
            Some(names) => found.read.extend(names.iter().map(|n| (*n).to_owned())),
            None => found.read.extend(self.trace.terms.get(t).into_iter().flat_map(|t| t.origins.iter().cloned())),
        }
    }

    /// Everything that these terms of the file read went into.
    #[must_use]
    pub fn forwards(&self, terms: &[u32]) -> Found {
        let mut into: HashMap<Index, Vec<(Index, Option<usize>)>> = HashMap::new();
        for t in 0..self.why.len() {
            let step = match self.why[t] {
                Some(Why::Step(n)) => Some(n),
                Some(Why::Own(_)) => continue,
                _ => None,
            };
            for s in self.sources(t) {
                into.entry(s).or_default().push((t, step));
            }
        }
        let mut uses: HashMap<Index, Vec<usize>> = HashMap::new();
        for n in 0..self.trace.steps.len() {
            for s in self.gone(n) {
                uses.entry(s).or_default().push(n);
            }
        }
        let mut found = Found::default();
        let mut seen = BTreeSet::new();
        let mut stack: Vec<Index> = terms.iter().map(|t| self.shapes.place(*t)).collect();
        while let Some(t) = stack.pop() {
            if !seen.insert(t) {
                continue;
            }
            found.steps.extend(uses.get(&t).into_iter().flatten());
            for (to, step) in into.get(&t).into_iter().flatten() {
                found.steps.extend(*step);
                stack.push(*to);
            }
        }
        for node in self.trace.nodes.iter().filter(|n| n.side == Side::Written) {
            if node.terms.iter().any(|t| seen.contains(&self.shapes.place(*t))) {
                found.written.insert(node.name.clone());
            }
        }
        found
    }

    /// The nodes of the file read that a step takes away or rewrites.
    #[must_use]
    pub fn subject(&self, n: usize) -> BTreeSet<&'t str> {
        let mut names = BTreeSet::new();
        for t in self.gone(n) {
            let Some(term) = self.trace.terms.get(t) else { continue };
            match self.read.get(&t) {
                Some(list) if term.op.is_some() => names.extend(list),
                _ if term.op.is_some() => names.extend(term.origins.iter().map(String::as_str)),
                _ => {}
            }
        }
        names
    }

    /// The nodes of this name.
    #[must_use]
    pub fn nodes(&self, side: Side, name: &str) -> Vec<&'t NodeLine> {
        self.trace.nodes.iter().filter(|n| n.side == side && n.name == name).collect()
    }
}

/// The terms under `a` that are not under `b`.
fn difference(shapes: &Shapes, a: Index, b: Index) -> Vec<Index> {
    // Operands have smaller numbers, so taking the largest first sees each term after all that use it.
    let mut marks: BTreeMap<Index, (bool, bool)> = BTreeMap::from([(a, (true, false))]);
    marks.entry(b).or_default().1 = true;
    let mut heap: BinaryHeap<Index> = marks.keys().copied().collect();
    let mut open = marks.values().filter(|(l, r)| *l && !*r).count();
    let mut only = Vec::new();
    while open > 0 {
        let Some(t) = heap.pop() else { break };
        let Some((left, right)) = marks.get(&t).copied() else { continue };
        if left && !right {
            only.push(t);
            open -= 1;
        }
        for o in shapes.operands[t].iter().flatten() {
            let mark = marks.entry(*o).or_insert_with(|| {
                heap.push(*o);
                (false, false)
            });
            let was = mark.0 && !mark.1;
            *mark = (mark.0 || left, mark.1 || right);
            let is = mark.0 && !mark.1;
            open = open + usize::from(is) - usize::from(was);
        }
    }
    only
}
