//! [`Terms`]: hash-consed terms over the model's values. Everything that rewriting and its trace talk about is a term here;
//! equal terms are one.

use std::{
    collections::{BTreeSet, BinaryHeap, HashMap},
    fmt,
    sync::Arc,
};

use convc_runtime::{Constant, Dim, Fact, Op, ops::InferCx};

use super::{
    elements::{Elements, Known},
    keys::{ConstantKey, OpKey},
    magnitude::largest_of,
    positive::Positive,
    target::Target,
    view::{App, Class, Expr, View},
};
use crate::{ir::Origin, ops::properties};

/// A term of a [`Terms`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TermId(pub u32);

impl fmt::Display for TermId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

impl TermId {
    fn index(self) -> usize {
        self.0 as usize
    }

    /// The class that holds just this term, in the view that [`Terms`] is.
    #[must_use]
    pub fn class(self) -> Class {
        Class(u64::from(self.0))
    }
}

/// What is at the head of a term.
#[derive(Debug, Clone, PartialEq)]
pub enum Head {
    /// A value that is not looked into: an input, an output of an opaque node or of one with several outputs. The text
    /// names it uniquely.
    Value(Arc<str>),
    /// A constant.
    Constant(Constant),
    /// An operator with one output.
    Op(Op),
}

/// One term.
#[derive(Debug, Clone)]
pub struct Term {
    /// Its head.
    pub head: Head,
    /// Its operands, holes included.
    pub operands: Vec<Option<TermId>>,
    /// Type and shape.
    pub fact: Option<Fact>,
    /// Whether it is computed from constants alone.
    pub constant: bool,
    /// The largest absolute value of a floating-point constant's elements; see [`View::largest`].
    pub largest: Option<f64>,
    /// What is known of its elements.
    pub elements: Elements,
    /// The nodes of the model as read that it goes back to.
    pub origins: BTreeSet<Origin>,
}

impl Term {
    fn known(&self) -> Known<'_> {
        let constant = match &self.head {
            Head::Constant(c) => Some(c),
            Head::Value(_) | Head::Op(_) => None,
        };
        let whole = self.fact.as_ref().is_some_and(|f| !f.dtype.is_float());
        Known { elements: self.elements, constant, whole }
    }
}

/// What the names of the model's inputs begin with; see [`Head::Value`].
pub(crate) const INPUT: &str = "input:";

/// A key by which equal terms are found.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Value(Arc<str>),
    Constant(ConstantKey),
    Op(OpId, Vec<Option<TermId>>),
}

impl Key {
    /// The key of an operator on terms. Which operand of a commutative one comes first is of no matter, to the last bit.
    fn of(op: &Op, number: OpId, mut operands: Vec<Option<TermId>>) -> Key {
        if properties(op).commutative {
            operands.sort_unstable();
        }
        Key::Op(number, operands)
    }
}

/// An operator with its attributes, by the number that a [`Terms`] gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct OpId(u32);

const A: u8 = 1;
const B: u8 = 2;

/// A walk down from two terms, the latest terms first.
struct Apart<'a> {
    terms: &'a Terms,
    /// From which of them each term is reached.
    sides: HashMap<TermId, u8>,
    waiting: BinaryHeap<TermId>,
    /// How many terms that are no leaves wait and belong to one side so far.
    open: usize,
}

impl Apart<'_> {
    fn reach(&mut self, t: TermId, side: u8) {
        let leaf = self.terms.get(t).operands.is_empty();
        let of = self.sides.entry(t).or_insert(0);
        let old = *of;
        *of |= side;
        let counts = |sides: u8| usize::from(!leaf && (sides == A || sides == B));
        self.open = self.open + counts(*of) - counts(old);
        if old == 0 {
            self.waiting.push(t);
        }
    }
}

/// A table of terms.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    terms: Vec<Term>,
    index: HashMap<Key, TermId>,
    /// The numbers of operators.
    ops: HashMap<OpKey, OpId>,
    target: Option<Arc<Target>>,
    positive: Arc<Positive>,
}

impl Terms {
    /// An empty table.
    #[must_use]
    pub fn new() -> Terms {
        Terms::default()
    }

    /// Says what the result is written for.
    pub(crate) fn set_target(&mut self, target: Option<Arc<Target>>) {
        self.target = target;
    }

    /// What the result is written for.
    pub(crate) fn shared_target(&self) -> Option<Arc<Target>> {
        self.target.clone()
    }

    /// Says which sizes are at least 1 wherever the model runs.
    pub(crate) fn set_positive(&mut self, positive: Arc<Positive>) {
        self.positive = positive;
    }

    /// The sizes that are at least 1 wherever the model runs.
    pub(crate) fn shared_positive(&self) -> Arc<Positive> {
        Arc::clone(&self.positive)
    }

    /// Number of terms.
    #[must_use]
    pub fn len(&self) -> usize {
        self.terms.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The term.
    ///
    /// # Panics
    /// If it belongs to another table.
    #[must_use]
    pub fn get(&self, id: TermId) -> &Term {
        &self.terms[id.index()]
    }

    /// The term a class of this view stands for.
    #[must_use]
    pub fn of_class(&self, class: Class) -> Option<TermId> {
        let id = TermId(u32::try_from(class.0).ok()?);
        (id.index() < self.terms.len()).then_some(id)
    }

    /// All terms, each behind its operands.
    pub fn iter(&self) -> impl Iterator<Item = (TermId, &Term)> {
        self.terms.iter().enumerate().map(|(i, t)| (TermId(u32::try_from(i).unwrap_or(u32::MAX)), t))
    }

    fn insert(&mut self, key: Key, make: impl FnOnce() -> Term) -> TermId {
        if let Some(&id) = self.index.get(&key) {
            return id;
        }
        let id = TermId(u32::try_from(self.terms.len()).unwrap_or(u32::MAX));
        self.terms.push(make());
        self.index.insert(key, id);
        id
    }

    /// The term of a value that is not looked into.
    pub fn value(&mut self, name: impl Into<Arc<str>>, fact: Option<Fact>) -> TermId {
        self.value_read(name, fact, false)
    }

    /// The term of a value that is not looked into; `whole` says of an input that the model reads every element of it.
    pub(crate) fn value_read(&mut self, name: impl Into<Arc<str>>, fact: Option<Fact>, whole: bool) -> TermId {
        let name = name.into();
        let elements = match (name.starts_with(INPUT), whole) {
            (true, true) => Elements::READ,
            (true, false) => Elements::GIVEN,
            (false, _) => Elements::default(),
        };
        self.insert(Key::Value(Arc::clone(&name)), || Term {
            head: Head::Value(name),
            operands: Vec::new(),
            fact,
            constant: false,
            largest: None,
            elements,
            origins: BTreeSet::new(),
        })
    }

    /// The term of a constant.
    pub fn constant(&mut self, constant: &Constant) -> TermId {
        self.insert(Key::Constant(ConstantKey::of(constant)), || {
            let small = constant.len() <= Fact::MAX_KNOWN;
            let known = if small { constant.to_tensor().ok() } else { None };
            let largest = largest_of(constant);
            Term {
                fact: Some(known.map_or_else(|| Fact::fixed(constant.dtype(), constant.shape()), |t| Fact::of(&t))),
                head: Head::Constant(constant.clone()),
                operands: Vec::new(),
                constant: true,
                largest,
                elements: Elements::of_constant(Some(constant), largest),
                origins: BTreeSet::new(),
            }
        })
    }

    /// The term of a constant whose elements are not at hand, by its key and the largest of their absolute values.
    pub fn constant_by_key(&mut self, key: &ConstantKey, fact: Fact, largest: Option<f64>) -> TermId {
        self.insert(Key::Constant(key.clone()), || Term {
            head: Head::Value(key.to_string().into()),
            operands: Vec::new(),
            fact: Some(fact),
            constant: true,
            largest,
            elements: Elements::of_constant(None, largest),
            origins: BTreeSet::new(),
        })
    }

    /// The constant with this key.
    #[must_use]
    pub fn find_constant(&self, key: &ConstantKey) -> Option<TermId> {
        self.index.get(&Key::Constant(key.clone())).copied()
    }

    /// The value of this name that is not looked into.
    #[must_use]
    pub fn find_value(&self, name: &str) -> Option<TermId> {
        self.index.get(&Key::Value(name.into())).copied()
    }

    /// The term of an operator on terms, if it is in the table.
    #[must_use]
    pub fn find_apply(&self, op: &Op, operands: Vec<Option<TermId>>) -> Option<TermId> {
        self.index.get(&Key::of(op, *self.ops.get(&OpKey::of(op))?, operands)).copied()
    }

    /// The term of an operator on terms; its fact follows from theirs, or is `fact` where it does not.
    pub fn apply(&mut self, op: &Op, operands: Vec<Option<TermId>>, fact: Option<&Fact>) -> TermId {
        let number = self.op_id(op);
        self.apply_numbered(op, number, operands, fact)
    }

    /// The number of an operator.
    pub(crate) fn op_id(&mut self, op: &Op) -> OpId {
        let next = OpId(u32::try_from(self.ops.len()).unwrap_or(u32::MAX));
        *self.ops.entry(OpKey::of(op)).or_insert(next)
    }

    /// [`Terms::apply`] for an operator whose number is known.
    pub(crate) fn apply_numbered(
        &mut self,
        op: &Op,
        number: OpId,
        operands: Vec<Option<TermId>>,
        fact: Option<&Fact>,
    ) -> TermId {
        let key = Key::of(op, number, operands.clone());
        if let Some(&id) = self.index.get(&key) {
            return id;
        }
        let inferred = fact.cloned().or_else(|| self.infer(op, &operands));
        let constant = operands.iter().flatten().all(|o| self.get(*o).constant);
        let known: Vec<Option<Known<'_>>> = operands.iter().map(|o| o.map(|o| self.get(o).known())).collect();
        let elements = Elements::of_op(op, &known, operands.len() > 1 && operands[0] == operands[1]);
        self.insert(key, || Term {
            head: Head::Op(op.clone()),
            operands,
            fact: inferred,
            constant,
            largest: None,
            elements,
            origins: BTreeSet::new(),
        })
    }

    fn infer(&self, op: &Op, operands: &[Option<TermId>]) -> Option<Fact> {
        let facts: Option<Vec<Option<&Fact>>> =
            operands.iter().map(|o| o.map_or(Some(None), |o| self.get(o).fact.as_ref().map(Some))).collect();
        let mut count = 0;
        let mut fresh = || {
            count += 1;
            Dim::symbol(format!("?t{}.{count}", self.terms.len()))
        };
        op.infer(&facts?, &mut InferCx::new(&mut fresh)).ok()?.into_iter().next()
    }

    /// Adds the term of an expression over classes of this view.
    pub fn add(&mut self, expr: &Expr) -> Option<TermId> {
        match expr {
            Expr::Class(c) => self.of_class(*c),
            Expr::Constant(c) => Some(self.constant(c)),
            Expr::Op(op, operands) => {
                let operands = operands
                    .iter()
                    .map(|o| match o {
                        None => Some(None),
                        Some(e) => self.add(e).map(Some),
                    })
                    .collect::<Option<Vec<_>>>()?;
                Some(self.apply(op, operands, None))
            }
        }
    }

    /// The term of an expression over classes of this view, if it is in the table.
    #[must_use]
    pub fn find(&self, expr: &Expr) -> Option<TermId> {
        match expr {
            Expr::Class(c) => self.of_class(*c),
            Expr::Constant(c) => self.index.get(&Key::Constant(ConstantKey::of(c))).copied(),
            Expr::Op(op, operands) => {
                let operands = operands
                    .iter()
                    .map(|o| match o {
                        None => Some(None),
                        Some(e) => self.find(e).map(Some),
                    })
                    .collect::<Option<Vec<_>>>()?;
                self.find_apply(op, operands)
            }
        }
    }

    /// Says what is known of a term's value beside what its operands tell.
    pub(crate) fn learn(&mut self, id: TermId, fact: Option<Fact>, elements: Elements) {
        if let Some(t) = self.terms.get_mut(id.index()) {
            (t.fact, t.elements) = (fact, elements);
        }
    }

    /// Says that a term goes back to these nodes of the model.
    pub fn add_origins(&mut self, id: TermId, origins: impl IntoIterator<Item = Origin>) {
        if let Some(t) = self.terms.get_mut(id.index()) {
            t.origins.extend(origins);
        }
    }

    /// The terms that `root` is made of, itself included, down to but without those in `stop`.
    #[must_use]
    pub fn reachable(&self, root: TermId, stop: &BTreeSet<TermId>) -> BTreeSet<TermId> {
        let mut seen = BTreeSet::new();
        let mut stack = vec![root];
        while let Some(id) = stack.pop() {
            if !stop.contains(&id) && seen.insert(id) {
                stack.extend(self.get(id).operands.iter().flatten());
            }
        }
        seen
    }

    /// Hands origins on over a rewrite of `lhs` to `rhs`: each new term goes back to what the left side has and the right
    /// side has not. Constants of a rule's own, such as shapes, go back to nothing: many rewrites share them.
    pub fn derive_origins(&mut self, lhs: TermId, rhs: TermId) {
        let (gone, come) = self.apart(lhs, rhs);
        let origins: BTreeSet<Origin> = gone.iter().chain([&lhs]).flat_map(|t| self.get(*t).origins.clone()).collect();
        let own = |t: &TermId| *t != rhs && matches!(self.get(*t).head, Head::Constant(_));
        for id in come.into_iter().filter(|t| !own(t)).collect::<Vec<_>>() {
            self.add_origins(id, origins.iter().cloned());
        }
    }

    /// The terms that `a` is made of and `b` is not, and the other way round. Nothing below the terms where both sides meet is
    /// looked into, so a leaf that is also used there counts as apart.
    fn apart(&self, a: TermId, b: TermId) -> (Vec<TermId>, Vec<TermId>) {
        let mut walk = Apart { terms: self, sides: HashMap::new(), waiting: BinaryHeap::new(), open: 0 };
        walk.reach(a, A);
        walk.reach(b, B);
        let (mut only_a, mut only_b) = (Vec::new(), Vec::new());
        // Terms are numbered behind their operands: once one comes up, all that use it have been.
        while let Some(t) = walk.waiting.pop() {
            let side = walk.sides[&t];
            match side {
                A => only_a.push(t),
                B => only_b.push(t),
                _ if walk.open == 0 => continue,
                _ => {}
            }
            let operands = &self.get(t).operands;
            walk.open -= usize::from(side != A | B && !operands.is_empty());
            operands.iter().flatten().for_each(|o| walk.reach(*o, side));
        }
        (only_a, only_b)
    }
}

impl View for Terms {
    fn apps(&self, class: Class) -> Vec<App<'_>> {
        match self.of_class(class).map(|id| self.get(id)) {
            Some(Term { head: Head::Op(op), operands, .. }) => {
                vec![App { op, operands: operands.iter().map(|o| o.map(TermId::class)).collect() }]
            }
            _ => Vec::new(),
        }
    }

    fn fact(&self, class: Class) -> Option<&Fact> {
        self.get(self.of_class(class)?).fact.as_ref()
    }

    fn constant(&self, class: Class) -> Option<&Constant> {
        match &self.get(self.of_class(class)?).head {
            Head::Constant(c) => Some(c),
            _ => None,
        }
    }

    fn target(&self) -> Option<&Target> {
        self.target.as_deref()
    }

    fn positive(&self) -> &Positive {
        &self.positive
    }

    fn elements(&self, class: Class) -> Elements {
        self.of_class(class).map(|id| self.get(id).elements).unwrap_or_default()
    }

    fn largest(&self, class: Class) -> Option<f64> {
        self.get(self.of_class(class)?).largest
    }

    fn is_constant(&self, class: Class) -> bool {
        self.of_class(class).is_some_and(|id| self.get(id).constant)
    }
}
