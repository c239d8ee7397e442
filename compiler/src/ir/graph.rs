//! [`Graph`]: nodes with ordered operands over a private petgraph.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use convc_runtime::{Constant, DType, Dim, Fact, Known, Op, OpError, Symbol, ops::InferCx};
use petgraph::{
    Direction,
    stable_graph::{NodeIndex, StableDiGraph},
    visit::EdgeRef,
};

/// A node of a [`Graph`]. It stays valid until the node is removed; afterwards it names nothing, even if the
/// graph uses the place again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    index: u32,
    generation: u32,
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.index)
    }
}

/// One output of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// The node.
    pub node: NodeId,
    /// Which of its outputs.
    pub port: u32,
}

/// A node of the model as it was read that a node of the graph goes back to: its name, or `#index` if it has none.
pub type Origin = Arc<str>;

/// A node that convc does not execute: kept as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Opaque {
    /// Operator domain; empty for ONNX's own.
    pub domain: String,
    /// Operator name.
    pub op_type: String,
    /// The ONNX node as protobuf bytes; its input and output names are replaced on export.
    pub proto: Arc<Vec<u8>>,
    /// The attributes that are one integer: what readers of the node's results ask for.
    pub integers: BTreeMap<String, i64>,
    /// Names in nested graphs that refer to values of this graph, in the order of the operands behind the node's own inputs.
    pub captures: Vec<String>,
    /// Why convc does not execute it, as a sentence part.
    pub reason: String,
}

/// One branch of an `If`: its graph's inputs are the captures, in the order of the node's operands behind the condition.
#[derive(Debug, Clone)]
pub struct Branch {
    /// The body.
    pub graph: Box<Graph>,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A graph input. Its name is that of its output.
    Input,
    /// A constant.
    Constant(Constant),
    /// An operator that convc executes.
    Op(Op),
    /// `If`: operand 0 is the condition, the others are captures.
    If {
        /// Taken when the condition is true.
        then_branch: Branch,
        /// Taken when it is false.
        else_branch: Branch,
    },
    /// A node that is carried through untouched.
    Opaque(Opaque),
}

impl Kind {
    /// The operator's name, or `Input` or `Constant`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Kind::Input => "Input",
            Kind::Constant(_) => "Constant",
            Kind::Op(op) => op.name(),
            Kind::If { .. } => "If",
            Kind::Opaque(o) => &o.op_type,
        }
    }
}

/// What the graph stores of a node.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Its name in the model; may be empty, need not be unique.
    pub name: String,
    /// The nodes of the model as read that it stands for.
    pub origins: Vec<Origin>,
    operands: Vec<Option<Value>>,
    facts: Vec<Option<Fact>>,
    generation: u32,
}

impl Node {
    /// The operands, holes included.
    #[must_use]
    pub fn operands(&self) -> &[Option<Value>] {
        &self.operands
    }

    /// Number of outputs.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.facts.len()
    }

    /// What is known of each output; `None` behind opaque nodes.
    #[must_use]
    pub fn facts(&self) -> &[Option<Fact>] {
        &self.facts
    }

    /// The operator, if convc executes it.
    #[must_use]
    pub fn op(&self) -> Option<&Op> {
        match &self.kind {
            Kind::Op(op) => Some(op),
            _ => None,
        }
    }
}

/// An output of the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Its name, which is part of the model's interface.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// Type and sizes that the model declares, which may use symbols of its own; `None` if it declares none.
    pub declared: Option<Fact>,
}

/// The symbol behind number `last`. A leading `?` marks a size that may be 0.
fn fresh_symbol(last: &mut u32) -> Dim {
    *last += 1;
    Dim::symbol(format!("?{last}"))
}

/// A model's graph. Operands are ordered lists in the nodes; the edges are derived from them and kept in step.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    graph: StableDiGraph<Node, ()>,
    next_generation: u32,
    fresh_symbols: u32,
    inputs: Vec<NodeId>,
    outputs: Vec<Output>,
    defaults: BTreeMap<NodeId, Constant>,
    names: BTreeMap<Value, String>,
}

impl Graph {
    /// An empty graph.
    #[must_use]
    pub fn new() -> Graph {
        Graph::default()
    }

    fn index(id: NodeId) -> NodeIndex {
        NodeIndex::new(id.index as usize)
    }

    /// Whether `id` names a node.
    #[must_use]
    pub fn contains(&self, id: NodeId) -> bool {
        self.graph.node_weight(Self::index(id)).is_some_and(|n| n.generation == id.generation)
    }

    /// The node.
    ///
    /// # Panics
    /// If it has been removed.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        match self.graph.node_weight(Self::index(id)) {
            Some(n) if n.generation == id.generation => n,
            _ => panic!("{id} has been removed"),
        }
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        match self.graph.node_weight_mut(Self::index(id)) {
            Some(n) if n.generation == id.generation => n,
            _ => panic!("{id} has been removed"),
        }
    }

    /// What is known of a value.
    #[must_use]
    pub fn fact(&self, v: Value) -> Option<&Fact> {
        self.node(v.node).facts.get(v.port as usize)?.as_ref()
    }

    /// The constant, if the value is one.
    #[must_use]
    pub fn constant(&self, v: Value) -> Option<&Constant> {
        match &self.node(v.node).kind {
            Kind::Constant(c) => Some(c),
            _ => None,
        }
    }

    /// The value's name in the model, if it has one of its own.
    #[must_use]
    pub fn value_name(&self, v: Value) -> Option<&str> {
        self.names.get(&v).map(String::as_str)
    }

    /// Gives the value a name, which export keeps where it can.
    pub fn set_value_name(&mut self, v: Value, name: impl Into<String>) {
        self.names.insert(v, name.into());
    }

    fn insert(&mut self, kind: Kind, operands: Vec<Option<Value>>, facts: Vec<Option<Fact>>) -> NodeId {
        let generation = self.next_generation;
        self.next_generation += 1;
        let node = Node { kind, name: String::new(), origins: Vec::new(), operands, facts, generation };
        let index = self.graph.add_node(node);
        let id = NodeId { index: u32::try_from(index.index()).unwrap_or(u32::MAX), generation };
        self.link(id);
        id
    }

    fn link(&mut self, id: NodeId) {
        let sources: BTreeSet<NodeId> = self.node(id).operands.iter().flatten().map(|v| v.node).collect();
        for source in sources {
            debug_assert!(self.contains(source));
            self.graph.add_edge(Self::index(source), Self::index(id), ());
        }
    }

    pub(super) fn unlink(&mut self, id: NodeId) {
        let edges: Vec<_> = self.graph.edges_directed(Self::index(id), Direction::Incoming).map(|e| e.id()).collect();
        for e in edges {
            self.graph.remove_edge(e);
        }
    }

    /// Adds an input. `default` is the value it has when the caller gives none.
    pub fn add_input(&mut self, name: impl Into<String>, fact: Option<Fact>, default: Option<Constant>) -> Value {
        let id = self.insert(Kind::Input, Vec::new(), vec![fact]);
        let v = Value { node: id, port: 0 };
        self.names.insert(v, name.into());
        self.inputs.push(id);
        if let Some(c) = default {
            self.defaults.insert(id, c);
        }
        v
    }

    /// Adds a constant.
    pub fn add_constant(&mut self, constant: Constant) -> Value {
        let fact = if constant.len() <= Fact::MAX_KNOWN
            && let Ok(t) = constant.to_tensor()
        {
            Fact::of(&t)
        } else {
            Fact::fixed(constant.dtype(), constant.shape())
        };
        let id = self.insert(Kind::Constant(constant), Vec::new(), vec![Some(fact)]);
        Value { node: id, port: 0 }
    }

    /// Adds an operator; its outputs' facts follow from its operands'. If an operand's fact is unknown, so are `outputs` facts.
    ///
    /// # Errors
    /// If the operands do not fit the operator.
    pub fn add_op(
        &mut self,
        op: impl Into<Op>,
        operands: Vec<Option<Value>>,
        outputs: usize,
    ) -> Result<NodeId, OpError> {
        let op = op.into();
        let facts = self.infer(&op, &operands, outputs)?;
        Ok(self.insert(Kind::Op(op), operands, facts))
    }

    /// The facts of the outputs that `op` would have on these operands.
    ///
    /// # Errors
    /// If the operands do not fit the operator.
    pub fn infer(&mut self, op: &Op, operands: &[Option<Value>], outputs: usize) -> Result<Vec<Option<Fact>>, OpError> {
        let mut next = self.fresh_symbols;
        let facts: Option<Vec<Option<&Fact>>> =
            operands.iter().map(|o| o.map_or(Some(None), |v| self.fact(v).map(Some))).collect();
        let Some(facts) = facts else {
            let known: Vec<Option<&Fact>> = operands.iter().map(|o| o.and_then(|v| self.fact(v))).collect();
            op.check(&known)?;
            return Ok(vec![None; outputs]);
        };
        let mut fresh = || fresh_symbol(&mut next);
        let mut inferred: Vec<Option<Fact>> =
            op.infer(&facts, &mut InferCx::new(&mut fresh))?.into_iter().map(Some).collect();
        inferred.truncate(outputs.max(1));
        self.fresh_symbols = next;
        Ok(inferred)
    }

    /// A symbol (at least 0) that nothing in this graph uses, for a size that only the data decides.
    pub fn fresh_dim(&mut self) -> Dim {
        fresh_symbol(&mut self.fresh_symbols)
    }

    /// An empty graph whose fresh symbols differ from those of this one so far: for a branch.
    #[must_use]
    pub fn nested(&self) -> Graph {
        Graph { fresh_symbols: self.fresh_symbols, ..Graph::default() }
    }

    /// Sees to it that later fresh symbols differ from those of the branch `nested`.
    pub fn adopt_symbols(&mut self, nested: &Graph) {
        self.fresh_symbols = self.fresh_symbols.max(nested.fresh_symbols);
    }

    /// Adds a node of any kind whose outputs' facts are given.
    pub fn add_node(&mut self, kind: Kind, operands: Vec<Option<Value>>, facts: Vec<Option<Fact>>) -> NodeId {
        self.insert(kind, operands, facts)
    }

    /// The graphs of the node's branches, if it is an `If`.
    pub fn branches_mut(&mut self, id: NodeId) -> impl Iterator<Item = &mut Graph> {
        let branches = match self.graph.node_weight_mut(Self::index(id)) {
            Some(Node { kind: Kind::If { then_branch, else_branch }, generation, .. })
                if *generation == id.generation =>
            {
                vec![&mut *then_branch.graph, &mut *else_branch.graph]
            }
            _ => Vec::new(),
        };
        branches.into_iter()
    }

    /// Names a node and says which nodes of the model it stands for.
    pub fn annotate(&mut self, id: NodeId, name: impl Into<String>, origins: Vec<Origin>) {
        let node = self.node_mut(id);
        node.name = name.into();
        node.origins = origins;
    }

    /// Replaces what is known of a value.
    pub fn set_fact(&mut self, v: Value, fact: Option<Fact>) {
        if let Some(f) = self.node_mut(v.node).facts.get_mut(v.port as usize) {
            *f = fact;
        }
    }

    /// Replaces the operands of a node.
    pub fn set_operands(&mut self, id: NodeId, operands: Vec<Option<Value>>) {
        self.unlink(id);
        self.node_mut(id).operands = operands;
        self.link(id);
    }

    /// Declares an output.
    pub fn add_output(&mut self, name: impl Into<String>, value: Value, declared: Option<Fact>) {
        self.outputs.push(Output { name: name.into(), value, declared });
    }

    /// The inputs in their order.
    #[must_use]
    pub fn inputs(&self) -> Vec<Value> {
        self.inputs.iter().map(|&node| Value { node, port: 0 }).collect()
    }

    /// The value an input has when the caller gives none.
    #[must_use]
    pub fn default_of(&self, input: Value) -> Option<&Constant> {
        self.defaults.get(&input.node)
    }

    /// The outputs in their order.
    #[must_use]
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// Number of nodes, inputs and constants included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.graph.node_count()
    }

    /// Whether there are no nodes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All nodes, in the order in which they were added.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        let mut ids: Vec<NodeId> = self
            .graph
            .node_indices()
            .filter_map(|i| {
                let n = self.graph.node_weight(i)?;
                Some(NodeId { index: u32::try_from(i.index()).ok()?, generation: n.generation })
            })
            .collect();
        ids.sort_by_key(|id| id.generation);
        ids
    }

    /// The nodes in an order in which each comes behind its operands: by need, and among the ready ones by age.
    /// Deterministic. A node on a cycle is left out.
    #[must_use]
    pub fn topological(&self) -> Vec<NodeId> {
        let mut waiting: HashMap<NodeId, usize> = HashMap::new();
        let mut ready: BTreeSet<(u32, NodeId)> = BTreeSet::new();
        for id in self.nodes() {
            let sources = self.graph.edges_directed(Self::index(id), Direction::Incoming).count();
            if sources == 0 {
                ready.insert((id.generation, id));
            } else {
                waiting.insert(id, sources);
            }
        }
        let mut order = Vec::with_capacity(self.len());
        while let Some((_, id)) = ready.pop_first() {
            order.push(id);
            for user in self.users_of_node(id) {
                if let Some(n) = waiting.get_mut(&user) {
                    *n -= 1;
                    if *n == 0 {
                        waiting.remove(&user);
                        ready.insert((user.generation, user));
                    }
                }
            }
        }
        order
    }

    /// The nodes that use an output of `id`, each once, oldest first.
    #[must_use]
    pub fn users_of_node(&self, id: NodeId) -> Vec<NodeId> {
        let mut users: Vec<NodeId> = self
            .graph
            .edges_directed(Self::index(id), Direction::Outgoing)
            .filter_map(|e| {
                let n = self.graph.node_weight(e.target())?;
                Some(NodeId { index: u32::try_from(e.target().index()).ok()?, generation: n.generation })
            })
            .collect();
        users.sort_by_key(|u| u.generation);
        users.dedup();
        users
    }

    /// Where the value is used: node and operand position, oldest node first. Graph outputs are not among them.
    #[must_use]
    pub fn uses(&self, v: Value) -> Vec<(NodeId, usize)> {
        let mut uses = Vec::new();
        for user in self.users_of_node(v.node) {
            uses.extend(
                self.node(user).operands.iter().enumerate().filter(|(_, o)| **o == Some(v)).map(|(i, _)| (user, i)),
            );
        }
        uses
    }

    /// Whether the value is an output of the graph.
    #[must_use]
    pub fn is_output(&self, v: Value) -> bool {
        self.outputs.iter().any(|o| o.value == v)
    }

    /// Uses `with` wherever `value` is used, graph outputs included.
    pub fn replace(&mut self, value: Value, with: Value) {
        for user in self.users_of_node(value.node) {
            let operands =
                self.node(user).operands.iter().map(|o| if *o == Some(value) { Some(with) } else { *o }).collect();
            self.set_operands(user, operands);
        }
        for o in &mut self.outputs {
            if o.value == value {
                o.value = with;
            }
        }
    }

    /// Removes a node whose outputs are not used. Inputs stay.
    ///
    /// # Panics
    /// If an output is still used.
    pub fn remove(&mut self, id: NodeId) {
        assert!(self.users_of_node(id).is_empty(), "{id} is still used");
        assert!(!self.outputs.iter().any(|o| o.value.node == id), "{id} is an output");
        self.names.retain(|v, _| v.node != id);
        self.graph.remove_node(Self::index(id));
    }

    /// Removes every node that no output needs; inputs stay. Returns what was removed.
    pub fn remove_dead(&mut self) -> Vec<NodeId> {
        let mut live: BTreeSet<NodeId> = self.inputs.iter().copied().collect();
        let mut stack: Vec<NodeId> = self.outputs.iter().map(|o| o.value.node).collect();
        while let Some(id) = stack.pop() {
            if live.insert(id) {
                stack.extend(self.node(id).operands.iter().flatten().map(|v| v.node));
            }
        }
        let dead: Vec<NodeId> = self.nodes().into_iter().filter(|id| !live.contains(id)).collect();
        for &id in &dead {
            self.unlink(id);
        }
        for &id in &dead {
            self.graph.remove_node(Self::index(id));
        }
        let gone: BTreeSet<NodeId> = dead.iter().copied().collect();
        self.names.retain(|v, _| !gone.contains(&v.node));
        dead
    }

    /// The sources of the derived edges into `id`, for the verifier.
    pub(super) fn edge_sources(&self, id: NodeId) -> BTreeSet<NodeId> {
        self.graph
            .edges_directed(Self::index(id), Direction::Incoming)
            .filter_map(|e| {
                let n = self.graph.node_weight(e.source())?;
                Some(NodeId { index: u32::try_from(e.source().index()).ok()?, generation: n.generation })
            })
            .collect()
    }

    /// Gives symbols values (or other expressions) in all that is known, nested graphs included.
    pub fn bind(&mut self, values: &BTreeMap<Symbol, Dim>) {
        if values.is_empty() {
            return;
        }
        let bind = |fact: &mut Fact| {
            let each = |d: &mut Dim| *d = d.substitute(values);
            fact.shape.iter_mut().for_each(each);
            if let Some(Known::Dims(dims)) = &mut fact.known {
                dims.iter_mut().for_each(each);
            }
        };
        for node in self.graph.node_weights_mut() {
            node.facts.iter_mut().flatten().for_each(bind);
            if let Kind::If { then_branch, else_branch } = &mut node.kind {
                then_branch.graph.bind(values);
                else_branch.graph.bind(values);
            }
        }
        self.outputs.iter_mut().filter_map(|o| o.declared.as_mut()).for_each(bind);
    }

    /// The element type of a value, if it is known.
    #[must_use]
    pub fn dtype(&self, v: Value) -> Option<DType> {
        self.fact(v).map(|f| f.dtype)
    }
}
