//! The e-graph's language and analysis.
//!
//! An e-node is an operator with all its attributes on classes, or a leaf that is a term of the table. Types and shapes are
//! those the importer infers, by the same functions.

use std::{collections::BTreeMap, sync::Arc};

use convc_runtime::{Constant, Fact, Op, Symbol, ops::InferCx};
use egg::{DidMerge, EGraph, Id, Language};

use super::{
    elements::{Elements, Known},
    join::join,
    keys::{ConstantKey, OpKey},
    magnitude::largest_of,
    positive::Positive,
    target::Target,
    terms::{Head, TermId, Terms},
    view::{App, Class, View},
};

/// An e-node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Node {
    /// An operand that is left out.
    Hole,
    /// A term that is not looked into, or a constant.
    Leaf(u32),
    /// An operator: the number of its name, the number of it with its attributes, and its operands. The order of the
    /// fields makes nodes of one name lie together, as e-matching requires.
    Op(u32, u32, Box<[Id]>),
    /// Joins the outputs of a region.
    Tuple(Box<[Id]>),
}

/// The kinds of e-nodes that e-matching tells apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Hole,
    Leaf,
    Op(u32),
    Tuple,
}

impl Language for Node {
    type Discriminant = Kind;

    fn discriminant(&self) -> Kind {
        match self {
            Node::Hole => Kind::Hole,
            Node::Leaf(_) => Kind::Leaf,
            Node::Op(name, ..) => Kind::Op(*name),
            Node::Tuple(_) => Kind::Tuple,
        }
    }

    fn matches(&self, other: &Self) -> bool {
        match (self, other) {
            (Node::Hole, Node::Hole) => true,
            (Node::Leaf(a), Node::Leaf(b)) => a == b,
            (Node::Op(_, a, x), Node::Op(_, b, y)) => a == b && x.len() == y.len(),
            (Node::Tuple(x), Node::Tuple(y)) => x.len() == y.len(),
            _ => false,
        }
    }

    fn children(&self) -> &[Id] {
        match self {
            Node::Hole | Node::Leaf(_) => &[],
            Node::Op(_, _, args) | Node::Tuple(args) => args,
        }
    }

    fn children_mut(&mut self) -> &mut [Id] {
        match self {
            Node::Hole | Node::Leaf(_) => &mut [],
            Node::Op(_, _, args) | Node::Tuple(args) => args,
        }
    }
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Node::Hole => f.write_str("_"),
            Node::Leaf(t) => write!(f, "t{t}"),
            Node::Op(_, op, _) => write!(f, "op{op}"),
            Node::Tuple(_) => f.write_str("tuple"),
        }
    }
}

/// What the e-graph knows of a class.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Data {
    pub(crate) fact: Option<Fact>,
    pub(crate) constant: bool,
    /// The leaf that is a constant, if the class has one.
    pub(crate) leaf: Option<u32>,
    /// What is known of its elements: whatever one of its members says.
    pub(crate) elements: Elements,
}

/// The first number of constants that rules bring in.
pub(crate) const OWN: u32 = 1 << 31;

/// The operators and leaves that e-nodes refer to, and the contradictions met.
#[derive(Debug, Default)]
pub(crate) struct Analysis {
    names: BTreeMap<&'static str, u32>,
    ops: Vec<Op>,
    op_index: BTreeMap<OpKey, u32>,
    leaves: BTreeMap<u32, LeafData>,
    own: BTreeMap<ConstantKey, u32>,
    /// What the result is written for.
    pub(crate) target: Option<Arc<Target>>,
    /// The sizes that are at least 1 wherever the model runs.
    pub(crate) positive: Arc<Positive>,
    /// Two facts about one class that exclude each other: an unsound rule.
    pub(crate) conflicts: Vec<(String, String)>,
}

#[derive(Debug)]
struct LeafData {
    data: Data,
    constant: Option<Constant>,
    largest: Option<f64>,
}

pub(crate) type Graph = EGraph<Node, Analysis>;

impl Analysis {
    /// The e-node of an operator.
    pub(crate) fn node(&mut self, op: &Op, args: Vec<Id>) -> Node {
        let next_name = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let name = *self.names.entry(op.name()).or_insert(next_name);
        let key = OpKey::of(op);
        let id = match self.op_index.get(&key) {
            Some(&id) => id,
            None => {
                let id = u32::try_from(self.ops.len()).unwrap_or(u32::MAX);
                self.ops.push(op.clone());
                self.op_index.insert(key, id);
                id
            }
        };
        Node::Op(name, id, args.into())
    }

    /// The e-node of a term that is not looked into, or of a constant.
    pub(crate) fn leaf(&mut self, id: TermId, terms: &Terms) -> Node {
        let term = terms.get(id);
        let constant = match &term.head {
            Head::Constant(c) => Some(c.clone()),
            _ => None,
        };
        let leaf = constant.is_some().then_some(id.0);
        let data = Data { fact: term.fact.clone(), constant: term.constant, leaf, elements: term.elements };
        self.leaves.insert(id.0, LeafData { data, constant, largest: term.largest });
        Node::Leaf(id.0)
    }

    /// The e-node of a constant that a rule brings in. Its number lies above all terms'.
    pub(crate) fn own_constant(&mut self, c: &Constant) -> Node {
        let key = ConstantKey::of(c);
        let next = OWN + u32::try_from(self.own.len()).unwrap_or(0);
        let id = *self.own.entry(key).or_insert(next);
        self.leaves.entry(id).or_insert_with(|| {
            let fact = match c.to_tensor() {
                Ok(t) => Fact::of(&t),
                Err(_) => Fact::fixed(c.dtype(), c.shape()),
            };
            let largest = largest_of(c);
            let elements = Elements::of_constant(Some(c), largest);
            let data = Data { fact: Some(fact), constant: true, leaf: Some(id), elements };
            LeafData { data, constant: Some(c.clone()), largest }
        });
        Node::Leaf(id)
    }

    /// The constant that a leaf is.
    pub(crate) fn constant(&self, leaf: u32) -> Option<&Constant> {
        self.leaves.get(&leaf)?.constant.as_ref()
    }

    /// The operator of an e-node.
    pub(crate) fn op(&self, node: &Node) -> Option<&Op> {
        match node {
            Node::Op(_, op, _) => self.ops.get(*op as usize),
            _ => None,
        }
    }

    /// The e-nodes' number of an operator's name, if one is in the graph.
    pub(crate) fn name(&self, name: &str) -> Option<u32> {
        self.names.get(name).copied()
    }

    /// The fact of `op` on operands with these facts.
    pub(crate) fn infer(op: &Op, facts: &[Option<Fact>], holes: &[bool]) -> Option<Fact> {
        let refs: Option<Vec<Option<&Fact>>> =
            facts.iter().zip(holes).map(|(f, hole)| if *hole { Some(None) } else { f.as_ref().map(Some) }).collect();
        let mut fresh_used = false;
        let mut fresh = || {
            fresh_used = true;
            convc_runtime::Dim::symbol(Symbol::from("?fresh"))
        };
        let fact = op.infer(&refs?, &mut InferCx::new(&mut fresh)).ok()?.into_iter().next();
        // A size that only the data decides has no name that two e-nodes could share.
        if fresh_used { None } else { fact }
    }
}

impl egg::Analysis<Node> for Analysis {
    type Data = Data;

    fn make(egraph: &mut Graph, node: &Node, _: Id) -> Data {
        match node {
            Node::Hole | Node::Tuple(_) => {
                Data { fact: None, constant: true, leaf: None, elements: Elements::default() }
            }
            Node::Leaf(id) => match egraph.analysis.leaves.get(id) {
                Some(leaf) => leaf.data.clone(),
                None => Data { fact: None, constant: false, leaf: None, elements: Elements::default() },
            },
            Node::Op(_, op, args) => {
                let holes: Vec<bool> = args.iter().map(|a| is_hole(egraph, *a)).collect();
                let facts: Vec<Option<Fact>> = args.iter().map(|a| egraph[*a].data.fact.clone()).collect();
                let constant = args.iter().all(|a| egraph[*a].data.constant);
                let fact = egraph.analysis.ops.get(*op as usize).and_then(|op| Analysis::infer(op, &facts, &holes));
                let known: Vec<Option<Known<'_>>> =
                    args.iter().zip(&holes).map(|(a, hole)| (!hole).then(|| known(egraph, *a))).collect();
                let same = args.len() > 1 && egraph.find(args[0]) == egraph.find(args[1]);
                let elements = egraph.analysis.ops.get(*op as usize).map(|op| Elements::of_op(op, &known, same));
                Data { fact, constant, leaf: None, elements: elements.unwrap_or_default() }
            }
        }
    }

    /// A join in each of its parts, so that the facts of a class only ever get better, and rebuilding ends.
    fn merge(&mut self, a: &mut Data, b: Data) -> DidMerge {
        let leaf = match (a.leaf, b.leaf) {
            (Some(x), Some(y)) => Some(x.min(y)),
            (x, y) => x.or(y),
        };
        let constant = a.constant || b.constant;
        let elements = a.elements.both(b.elements);
        let others = [&*a, &b].map(|d| d.leaf != leaf || d.constant != constant || d.elements != elements);
        let texts = |a: &Option<Fact>, b: &Option<Fact>| {
            let text = |f: &Option<Fact>| f.as_ref().map(ToString::to_string).unwrap_or_default();
            (text(a), text(b))
        };
        let (old, new) = (a.fact.clone(), b.fact.clone());
        let joined = join(&mut a.fact, b.fact);
        if joined.conflict {
            self.conflicts.push(texts(&old, &new));
        }
        (a.constant, a.leaf, a.elements) = (constant, leaf, elements);
        DidMerge(joined.left || others[0], joined.right || others[1])
    }

    fn allow_ematching_cycles(&self) -> bool {
        false
    }
}

/// What is known of an operand.
fn known(egraph: &Graph, id: Id) -> Known<'_> {
    let data = &egraph[id].data;
    let constant = data.leaf.and_then(|leaf| egraph.analysis.constant(leaf));
    Known { elements: data.elements, constant, whole: data.fact.as_ref().is_some_and(|f| !f.dtype.is_float()) }
}

/// Whether a class is the left-out operand.
pub(crate) fn is_hole(egraph: &Graph, id: Id) -> bool {
    matches!(egraph[id].nodes.as_slice(), [Node::Hole])
}

/// The e-graph as a [`View`].
pub(crate) struct EView<'a>(pub(crate) &'a Graph);

impl EView<'_> {
    pub(crate) fn class(&self, id: Id) -> Class {
        Class(usize::from(self.0.find(id)) as u64)
    }

    pub(crate) fn id(class: Class) -> Id {
        Id::from(usize::try_from(class.0).unwrap_or(usize::MAX))
    }

    /// An e-node as rules see it.
    pub(crate) fn app(&self, node: &Node) -> Option<App<'_>> {
        let op = self.0.analysis.op(node)?;
        let operands = node.children().iter().map(|a| (!is_hole(self.0, *a)).then(|| self.class(*a))).collect();
        Some(App { op, operands })
    }
}

impl View for EView<'_> {
    fn apps(&self, class: Class) -> Vec<App<'_>> {
        self.0[Self::id(class)].nodes.iter().filter_map(|n| self.app(n)).collect()
    }

    fn fact(&self, class: Class) -> Option<&Fact> {
        self.0[Self::id(class)].data.fact.as_ref()
    }

    fn constant(&self, class: Class) -> Option<&Constant> {
        let leaf = self.0[Self::id(class)].data.leaf?;
        self.0.analysis.constant(leaf)
    }

    fn target(&self) -> Option<&Target> {
        self.0.analysis.target.as_deref()
    }

    fn positive(&self) -> &Positive {
        &self.0.analysis.positive
    }

    fn elements(&self, class: Class) -> Elements {
        self.0[Self::id(class)].data.elements
    }

    fn largest(&self, class: Class) -> Option<f64> {
        let leaf = self.0[Self::id(class)].data.leaf?;
        self.0.analysis.leaves.get(&leaf)?.largest
    }

    fn is_constant(&self, class: Class) -> bool {
        self.0[Self::id(class)].data.constant
    }
}
