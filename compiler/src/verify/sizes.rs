//! At which sizes a model that leaves sizes open is verified: beside the nominal ones, around every number of its shape
//! arithmetic, since that is where a rewrite that was seen at a few sizes goes wrong, and at sizes drawn from a seed.

use std::collections::{BTreeMap, BTreeSet};

use convc_runtime::{Bindings, Dim, Fact, Op, Symbol};

use super::inputs::Random;
use crate::ir::{Graph, Kind, NodeId, Value};

/// The largest number that sizes are tried around.
const LARGEST: i64 = 4096;

/// A size that the model leaves open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Its symbol.
    pub symbol: Symbol,
    /// Whether it is the first size of every input that has it: the number of samples, mostly.
    pub batch: bool,
}

/// The open sizes of a graph's inputs, those of `held` left out.
#[must_use]
pub fn open_sizes(graph: &Graph, held: &BTreeSet<Symbol>) -> Vec<Open> {
    let mut open: BTreeMap<Symbol, bool> = BTreeMap::new();
    for fact in graph.inputs().into_iter().filter_map(|v| graph.fact(v)) {
        for (axis, d) in fact.shape.iter().enumerate() {
            for s in d.symbols().into_iter().filter(|s| !held.contains(s)) {
                *open.entry(s).or_insert(true) &= axis == 0;
            }
        }
    }
    open.into_iter().map(|(symbol, batch)| Open { symbol, batch }).collect()
}

/// Operators of shape arithmetic with a corner: on either side of a number they do different things.
const CORNERS: &[&str] = &[
    "Clip",
    "Div",
    "Equal",
    "Gather",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Min",
    "Mod",
    "Range",
    "Slice",
    "Where",
];

/// The sizes at which an open size comes to a corner of the graph's shape arithmetic, in ascending order.
///
/// These are the numbers themselves that operators with a corner compare, divide by, or cut at, and for each such number
/// `c` and each size that the same operator works on the value at which that size reaches `c`.
#[must_use]
pub fn corners(graph: &Graph, open: &[Open], nominal: &Bindings) -> BTreeSet<i64> {
    let mut found = BTreeSet::new();
    for id in graph.nodes() {
        let node = graph.node(id);
        let Kind::Op(op) = &node.kind else { continue };
        if !CORNERS.contains(&op.name()) {
            continue;
        }
        let (numbers, sizes) = arithmetic(graph, id, op);
        for &c in numbers.iter().filter(|c| (2..=LARGEST).contains(*c)) {
            found.insert(c);
            for size in &sizes {
                found.extend(open.iter().filter_map(|o| reaches(size, &o.symbol, c, nominal)));
            }
        }
    }
    // What inference has folded away may be left in sizes alone.
    for id in graph.nodes() {
        let node = graph.node(id);
        let expressions =
            node.facts().iter().flatten().flat_map(|f| f.shape.iter().cloned().chain(f.dims().unwrap_or_default()));
        for d in expressions.filter(|d| !d.is_fixed()) {
            found.extend(numbers_in(&d).into_iter().filter(|c| (3..=LARGEST).contains(c)));
        }
    }
    found
}

/// The numbers that an operator of integers holds, and the sizes that it works on.
fn arithmetic(graph: &Graph, id: NodeId, op: &Op) -> (BTreeSet<i64>, Vec<Dim>) {
    let operands: Vec<Value> = graph.node(id).operands().iter().flatten().copied().collect();
    let facts: Vec<&Fact> = operands.iter().filter_map(|v| graph.fact(*v)).collect();
    let elements = |f: &&Fact| if f.dtype.is_float() { Vec::new() } else { f.dims().unwrap_or_default() };
    let moves = matches!(op.name(), "Slice" | "Gather");
    // A Slice or Gather of features has its numbers in the operands behind the first, and works on the first one's sizes.
    let (first, others) = facts.split_first().map_or((None, &[][..]), |(a, b)| (Some(a), b));
    let mut all: Vec<Dim> = others.iter().flat_map(elements).collect();
    all.extend(first.filter(|_| !moves).iter().copied().flat_map(elements));
    let mut numbers: BTreeSet<i64> = all.iter().filter_map(Dim::as_fixed).map(i64::saturating_abs).collect();
    numbers.extend(all.iter().flat_map(numbers_in));
    let mut sizes: Vec<Dim> = all.into_iter().filter(|d| !d.is_fixed()).collect();
    if let Some(f) = first.filter(|_| moves) {
        sizes.extend(f.shape.iter().filter(|d| !d.is_fixed()).cloned());
        sizes.extend(elements(f).into_iter().filter(|d| !d.is_fixed()));
    }
    sizes.sort();
    sizes.dedup();
    (numbers, sizes)
}

/// The numbers in the text of an expression.
fn numbers_in(d: &Dim) -> BTreeSet<i64> {
    if d.is_fixed() || d.is_overflow() {
        return BTreeSet::new();
    }
    // Digits within a symbol's name are none of the expression's numbers.
    let text = d.to_string();
    let mut found = BTreeSet::new();
    for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '?' && c != '.') {
        found.extend(word.parse::<i64>().ok());
    }
    found
}

/// The value of `symbol` at which `size` first is at least `c`, the other symbols being as in `nominal`. None if it already
/// is at the smallest, never comes there, or is not known.
fn reaches(size: &Dim, symbol: &Symbol, c: i64, nominal: &Bindings) -> Option<i64> {
    let mut at = nominal.clone();
    let mut beyond = |n: i64| {
        at.insert(symbol.clone(), n);
        size.eval(&at).ok().map(|v| v >= c)
    };
    if beyond(1)? || !beyond(LARGEST)? {
        return None;
    }
    let (mut low, mut high) = (1, LARGEST);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if beyond(middle)? { high = middle } else { low = middle }
    }
    Some(high)
}

/// The bindings around a corner `c`: every open size comes to lie below, on and above it, uneven ones beside each other, with
/// batches as in `nominal`. Those of batches follow, the other sizes as they are in `nominal`.
#[must_use]
pub fn around(c: i64, open: &[Open], nominal: &Bindings) -> Vec<Bindings> {
    let mut list = Vec::new();
    for batches in [false, true] {
        let chosen: Vec<&Open> = open.iter().filter(|o| o.batch == batches).collect();
        if chosen.is_empty() {
            continue;
        }
        for turn in 0..3i64 {
            let mut sizes = nominal.clone();
            for (o, i) in chosen.iter().zip(0..) {
                sizes.insert(o.symbol.clone(), (c - 1 + (turn + i) % 3).max(1));
            }
            if !list.contains(&sizes) {
                list.push(sizes);
            }
        }
    }
    list
}

/// What sizes drawn are multiples of, attempt by attempt: many models run at such sizes only.
pub const MULTIPLES: &[i64] = &[1, 2, 8, 32];

/// Sizes drawn from a seed: between half of the nominal ones and the nominal ones, uneven in the first attempt, and a batch of 2 to 4.
#[must_use]
pub fn drawn(open: &[Open], nominal: &Bindings, seed: u64, attempt: u64) -> Bindings {
    let mut random = Random::new(seed, 0x5157 + attempt);
    let multiple = usize::try_from(attempt).ok().and_then(|i| MULTIPLES.get(i)).copied().unwrap_or(1);
    let mut sizes = nominal.clone();
    for o in open {
        let n = nominal.get(&o.symbol).copied().unwrap_or(1);
        let size = if o.batch { random.between(2, 4) } else { random.between((n / 2).max(1), n.max(2)) };
        let size = if o.batch {
            size
        } else {
            (size / multiple).max(1) * multiple + i64::from(multiple == 1 && size % 2 == 0)
        };
        sizes.insert(o.symbol.clone(), size);
    }
    sizes
}

/// What making, reading or comparing one element costs, in multiplications and additions.
const MOVED: u64 = 8;

/// About how many multiplications and additions the graph needs at these sizes, or as much work; `None` where that cannot be
/// told. A result whose size is not known counts as the largest of its operands.
#[must_use]
pub fn operations(graph: &Graph, sizes: &Bindings) -> Option<u64> {
    let count =
        |dims: &[Dim]| dims.iter().try_fold(1u64, |n, d| n.checked_mul(u64::try_from(d.eval(sizes).ok()?).ok()?));
    let mut total = 0u64;
    for n in graph.inputs().iter().filter_map(|v| count(&graph.fact(*v)?.shape)) {
        total = total.checked_add(n.checked_mul(MOVED)?)?;
    }
    for id in graph.nodes() {
        let node = graph.node(id);
        let Kind::Op(op) = &node.kind else { continue };
        let Some(Some(out)) = node.facts().first() else { continue };
        let operand = |i: usize| node.operands().get(i).copied().flatten().and_then(|v| graph.fact(v));
        let largest = || (0..node.operands().len()).filter_map(|i| count(&operand(i)?.shape)).max();
        let Some(elements) = count(&out.shape).or_else(largest) else { continue };
        let each = match op.name() {
            "Conv" | "DOConv" => operand(1).and_then(|w| count(w.shape.get(1..)?)),
            "ConvTranspose" => operand(1).and_then(|w| count(w.shape.get(1..)?)),
            "MatMul" => operand(0).and_then(|a| count(a.shape.get(a.rank().checked_sub(1)?..)?)),
            "Gemm" => operand(1).and_then(|w| {
                count(&w.shape)
                    .map(|n| n / w.shape.first().map_or(1, |d| d.as_fixed().unwrap_or(1).max(1)).unsigned_abs().max(1))
            }),
            "CondConv" | "DynamicConv" => operand(2).and_then(|w| count(w.shape.get(2..)?)),
            _ => Some(1),
        };
        total = total.checked_add(elements.checked_mul(each.unwrap_or(1).checked_add(MOVED)?)?)?;
    }
    Some(total)
}
