//! Whether a trace ends in the file written: the terms of both are numbered alike, and each output must have one number.
//!
//! What a file may spell otherwise is looked through on both sides: an Identity is its operand, operands that are left out
//! at the end do not count, and the operands of a sum or product have no order. An operator that has a definition in others
//! is compared as such first; where the outputs differ so, by what it is defined to be.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, btree_map::Entry},
};

use convc_runtime::Op;
use onnx_protobuf::{Message, NodeProto};

use super::{
    closure::Shapes,
    lines::{NodeLine, Side, Trace},
    table::Table,
};
use crate::{
    ir::{Graph, Kind},
    ops::properties,
    rewrite::{
        definitions::definition,
        engine::Engine,
        keys::{ConstantKey, OpKey},
        terms::{Head, TermId, Terms},
    },
};

/// A term as both sides know it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    /// A constant by its hash, or an input by its name.
    Leaf(String),
    /// An operator with its attributes, or a result of a node that is not looked into, on numbered terms.
    Node(String, Vec<Option<usize>>),
}

/// Numbers for terms: equal terms of either side have one.
#[derive(Default)]
struct Numbers(HashMap<Key, usize>);

impl Numbers {
    fn of(&mut self, key: Key) -> usize {
        let next = self.0.len();
        *self.0.entry(key).or_insert(next)
    }
}

/// What a term of one side is made of.
enum Part {
    /// It is another term.
    Is(TermId),
    Leaf(String),
    Node {
        key: String,
        ordered: bool,
        operands: Vec<Option<TermId>>,
    },
}

/// A result of a node that is not looked into.
struct OfNode {
    key: String,
    operands: Vec<Option<TermId>>,
}

/// The terms of one side.
struct Half<'a> {
    terms: Cow<'a, Terms>,
    /// Whether operators are written out by their definitions.
    expand: bool,
    numbers: BTreeMap<TermId, usize>,
    written_out: usize,
}

type Opaque<'f> = dyn Fn(TermId, &str, &mut Numbers) -> Result<OfNode, String> + 'f;

impl<'a> Half<'a> {
    fn new(terms: &'a Terms, expand: bool) -> Half<'a> {
        Half { terms: Cow::Borrowed(terms), expand, numbers: BTreeMap::new(), written_out: 0 }
    }

    fn part(&mut self, t: TermId, opaque: &Opaque<'_>, numbers: &mut Numbers) -> Result<Part, String> {
        let term = self.terms.get(t);
        let op = match &term.head {
            Head::Constant(c) => return Ok(Part::Leaf(ConstantKey::of(c).to_string())),
            // A constant whose elements are not at hand is known by its key.
            Head::Value(name) if term.constant => return Ok(Part::Leaf(name.to_string())),
            Head::Value(name) if name.starts_with("input:") => return Ok(Part::Leaf(name.to_string())),
            Head::Value(name) => {
                let OfNode { key, operands } = opaque(t, name, numbers)?;
                return Ok(Part::Node { key, ordered: true, operands });
            }
            Head::Op(op) => op,
        };
        if let (Op::Identity(_), Some(&Some(x))) = (op, term.operands.first()) {
            return Ok(Part::Is(x));
        }
        let ordered = !properties(op).commutative;
        let part = Part::Node { key: OpKey::of(op).to_string(), ordered, operands: term.operands.clone() };
        if self.expand
            && let Some(Ok(written)) = definition(self.terms.to_mut(), t)
        {
            self.written_out += 1;
            return Ok(Part::Is(written));
        }
        Ok(part)
    }

    /// The number of a term.
    fn number(&mut self, root: TermId, opaque: &Opaque<'_>, numbers: &mut Numbers) -> Result<usize, String> {
        let mut open: BTreeMap<TermId, Part> = BTreeMap::new();
        let mut stack = vec![root];
        while let Some(&t) = stack.last() {
            if self.numbers.contains_key(&t) {
                stack.pop();
                continue;
            }
            if let Entry::Vacant(place) = open.entry(t) {
                let part = self.part(t, opaque, numbers)?;
                let operands: Vec<TermId> = match &part {
                    Part::Is(x) => vec![*x],
                    Part::Leaf(_) => Vec::new(),
                    Part::Node { operands, .. } => operands.iter().flatten().copied().collect(),
                };
                place.insert(part);
                for o in operands.into_iter().filter(|o| !self.numbers.contains_key(o)) {
                    if open.contains_key(&o) {
                        return Err(format!("{o} is made of itself"));
                    }
                    stack.push(o);
                }
                continue;
            }
            let number = |o: &TermId| self.numbers.get(o).copied().ok_or_else(|| format!("{o} is made of itself"));
            let found = match open.remove(&t) {
                Some(Part::Is(x)) => number(&x)?,
                Some(Part::Leaf(name)) => numbers.of(Key::Leaf(name)),
                Some(Part::Node { key, ordered, operands }) => {
                    let mut list =
                        operands.iter().map(|o| o.as_ref().map(number).transpose()).collect::<Result<Vec<_>, _>>()?;
                    while list.last().is_some_and(Option::is_none) {
                        list.pop();
                    }
                    if !ordered {
                        list.sort_unstable();
                    }
                    numbers.of(Key::Node(key, list))
                }
                None => return Err(format!("{t} is made of itself")),
            };
            self.numbers.insert(t, found);
            stack.pop();
        }
        self.numbers.get(&root).copied().ok_or_else(|| format!("{root} is lost"))
    }
}

/// What the comparison with the file written found.
pub(super) struct Found {
    /// Terms of the file.
    pub(super) terms: usize,
    /// Operators that were compared by their definitions.
    pub(super) written_out: usize,
}

/// Compares the terms after all steps with the file written; `model` is the file read.
pub(super) fn compare(
    trace: &Trace,
    table: &Table,
    shapes: &Shapes,
    model: Option<&Engine>,
    engine: &Engine,
) -> Result<Found, String> {
    let own: BTreeMap<&str, TermId> =
        engine.graph.outputs().iter().map(|o| (o.name.as_str(), engine.term(o.value))).collect();
    if own.len() != trace.outputs.len() {
        return Err("it has another number of outputs".into());
    }
    let mut pairs = Vec::new();
    for o in &trace.outputs {
        let said = table.ids.get(shapes.place(o.after)).ok_or_else(|| format!("there is no term {}", o.after))?;
        pairs.push((*said, *own.get(&*o.name).ok_or_else(|| format!("it has no output {:?}", o.name))?));
    }
    let opaque = OpaqueNodes::new(trace, table, shapes, model, engine);
    let mut first = None;
    for expand in [false, true] {
        let mut numbers = Numbers::default();
        let (mut said, mut is) = (Half::new(&table.terms, expand), Half::new(&engine.terms, expand));
        let (of_trace, of_file) = (opaque.of_trace(), opaque.of_file());
        let mut different = None;
        for &(a, b) in &pairs {
            let x = said.number(a, &of_trace, &mut numbers)?;
            let y = is.number(b, &of_file, &mut numbers)?;
            if x != y && different.is_none() {
                different = Some(difference(&said, a, &is, b));
            }
        }
        match different {
            None => return Ok(Found { terms: is.numbers.len(), written_out: said.written_out + is.written_out }),
            Some(text) => {
                first.get_or_insert(text);
            }
        }
    }
    Err(first.unwrap_or_default())
}

/// Where two terms differ that have different numbers, from the top down.
fn difference(said: &Half<'_>, mut a: TermId, is: &Half<'_>, mut b: TermId) -> String {
    let through = |half: &Half<'_>, mut t: TermId| {
        while let (Head::Op(Op::Identity(_)), Some(&Some(x))) =
            (&half.terms.get(t).head, half.terms.get(t).operands.first())
        {
            t = x;
        }
        t
    };
    loop {
        (a, b) = (through(said, a), through(is, b));
        let (x, y) = (said.terms.get(a), is.terms.get(b));
        let at = y.origins.first().map_or_else(|| format!("at {b}"), |o| format!("at {o:?}"));
        let text = |head: &Head| match head {
            Head::Op(op) => OpKey::of(op).to_string(),
            Head::Constant(c) => format!("the constant {}", ConstantKey::of(c)),
            Head::Value(name) => name.to_string(),
        };
        let (said_text, is_text) = (text(&x.head), text(&y.head));
        if !matches!((&x.head, &y.head), (Head::Op(_), Head::Op(_))) || said_text != is_text {
            return format!("{at} there is {is_text}, not {said_text}");
        }
        let number = |half: &Half<'_>, o: &TermId| half.numbers.get(o).copied();
        let mut operands = x.operands.iter().flatten().zip(y.operands.iter().flatten());
        match operands.find(|(p, q)| number(said, p) != number(is, q)) {
            Some((p, q)) if x.operands.len() == y.operands.len() => (a, b) = (*p, *q),
            _ => return format!("{at} {is_text} has other operands"),
        }
    }
}

/// Results of nodes that are not looked into, on both sides.
struct OpaqueNodes<'a> {
    table: &'a Table,
    shapes: &'a Shapes,
    model: Option<&'a Engine>,
    engine: &'a Engine,
    /// For a term of the trace, the line of its node in the file written.
    written: HashMap<TermId, &'a NodeLine>,
}

impl<'a> OpaqueNodes<'a> {
    fn new(
        trace: &'a Trace,
        table: &'a Table,
        shapes: &'a Shapes,
        model: Option<&'a Engine>,
        engine: &'a Engine,
    ) -> OpaqueNodes<'a> {
        let lines = trace.nodes.iter().filter(|n| n.side == Side::Written && n.operands.is_some());
        let of_term = |t: &u32| table.ids.get(shapes.place(*t)).copied();
        let written = lines.flat_map(|n| n.terms.iter().filter_map(move |t| Some((of_term(t)?, n)))).collect();
        OpaqueNodes { table, shapes, model, engine, written }
    }

    fn of_trace(&self) -> impl Fn(TermId, &str, &mut Numbers) -> Result<OfNode, String> {
        |t, name, numbers| {
            let line = self.written.get(&t).ok_or_else(|| format!("the trace does not say what {name} works on"))?;
            let port = name.rsplit_once(':').map_or("", |(_, port)| port);
            let of_model = self.model.and_then(|m| Some(&m.graph.node(m.value(m.terms.find_value(name)?)?.node).kind));
            let what = of_model.map(|k| content(k, numbers)).transpose()?.unwrap_or_default();
            let operand = |o: &Option<u32>| match o {
                Some(o) => {
                    let term = self.table.ids.get(self.shapes.place(*o)).copied();
                    term.map(Some).ok_or_else(|| format!("there is no term {o}"))
                }
                None => Ok(None),
            };
            let operands = line.operands.iter().flatten().map(operand).collect::<Result<_, _>>()?;
            Ok(OfNode { key: format!("{}:{port} {what}", line.op), operands })
        }
    }

    fn of_file(&self) -> impl Fn(TermId, &str, &mut Numbers) -> Result<OfNode, String> {
        |t, name, numbers| {
            let Some(v) = self.engine.value(t) else { return Err(format!("{name} is lost")) };
            let node = self.engine.graph.node(v.node);
            // Without the file read there is nothing to compare attributes with.
            let what = if self.model.is_some() { content(&node.kind, numbers)? } else { String::new() };
            let operands = node.operands().iter().map(|o| o.map(|o| self.engine.term(o))).collect();
            Ok(OfNode { key: format!("{}:{} {what}", node.kind.name(), v.port), operands })
        }
    }
}

/// What a node that is not looked into holds besides its operands, as text: equal for equal contents.
fn content(kind: &Kind, numbers: &mut Numbers) -> Result<String, String> {
    Ok(match kind {
        Kind::Op(op) => OpKey::of(op).to_string(),
        Kind::If { then_branch, else_branch } => {
            let mut of = |g: &Graph| branch(g, numbers).map(|n| format!("{n:?}"));
            format!("then {} else {}", of(&then_branch.graph)?, of(&else_branch.graph)?)
        }
        Kind::Opaque(o) => {
            // Names in nested graphs may change; attributes that are no graphs may not.
            let proto = NodeProto::parse_from_bytes(&o.proto).map_err(|e| e.to_string())?;
            let plain = proto.attribute.iter().filter(|a| a.g.is_none() && a.graphs.is_empty());
            let mut text = format!("{}.{}", o.domain, o.op_type);
            for a in plain {
                let bytes = a.write_to_bytes().map_err(|e| e.to_string())?;
                text += &format!(" {}", super::lines::hex(&bytes));
            }
            text
        }
        Kind::Input | Kind::Constant(_) => String::new(),
    })
}

/// The numbers of a branch's outputs, its captures being known by their places.
fn branch(graph: &Graph, numbers: &mut Numbers) -> Result<Vec<usize>, String> {
    let engine = Engine::new(graph.clone());
    let captures: Vec<TermId> = engine.graph.inputs().iter().map(|v| engine.term(*v)).collect();
    let mut half = Half::new(&engine.terms, false);
    for (i, t) in captures.iter().enumerate() {
        let number = numbers.of(Key::Leaf(format!("capture {i}")));
        half.numbers.insert(*t, number);
    }
    let opaque = |t: TermId, name: &str, numbers: &mut Numbers| {
        let Some(v) = engine.value(t) else { return Err(format!("{name} is lost")) };
        let node = engine.graph.node(v.node);
        let operands = node.operands().iter().map(|o| o.map(|o| engine.term(o))).collect();
        Ok(OfNode { key: format!("{}:{} {}", node.kind.name(), v.port, content(&node.kind, numbers)?), operands })
    };
    engine.graph.outputs().iter().map(|o| half.number(engine.term(o.value), &opaque, numbers)).collect()
}
