//! Replay: a trace proved without an e-graph.
//!
//! Each step is derived again: its rule searches the step's own left term and must find its right term there, with the
//! same conditions. Folded constants are computed again where the constants they are made of are at hand. Union-find and
//! congruence over the terms then prove that each output's term before equals its term after.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use convc_runtime::Constant;

use super::{
    closure::{Closure, Shapes},
    known::joined,
    lines::{NodeLine, Side, StepLine, TermLine, Trace, TypeLine},
    table::{Bad, Folded, Table, op_of},
    written,
};
use crate::{
    ir::Graph,
    rewrite::{
        definitions::{DEFINITION, definition},
        elements::Elements,
        engine::Engine,
        fold::{FOLD_CONSTANTS, FOLD_WEIGHTS},
        keys::ConstantKey,
        rederive_step,
        rule::Exactness,
        rules,
        terms::{Head, TermId, Terms},
    },
};

/// The step that makes one value of two that are equal.
const MERGE: &str = "merge-duplicates";

/// What a replay proved, and what it rests on.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Proof {
    /// Steps derived again from their rules.
    pub derived: usize,
    /// Values that were merged, being the same term.
    pub merged: usize,
    /// Constants computed again.
    pub computed: usize,
    /// Constants that were not, since what they are made of is too large to be in the trace: the model has it.
    pub not_computed: usize,
    /// Values whose sizes only the data decides; the trace's word was taken for them.
    pub sizes_taken: usize,
    /// Nodes that are not looked into, whose operands were proved equal.
    pub opaque: usize,
    /// Outputs proved equal.
    pub outputs: usize,
    /// Terms found in the model, if one was given.
    pub in_model: Option<usize>,
    /// Terms found in the file written, if one was given.
    pub in_optimized: Option<usize>,
    /// Operators, of both sides, that were compared with the file written by their definitions.
    pub written_out: usize,
}

/// Why a trace proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotProved {
    /// A line is no term.
    #[error("term {term}: {problem}")]
    Term {
        /// Its number.
        term: u32,
        /// What is wrong with it.
        problem: String,
    },
    /// A step does not follow.
    #[error("step {n} ({rule}): {problem}")]
    Step {
        /// Its number.
        n: usize,
        /// Its rule.
        rule: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The steps do not make an output equal.
    #[error("the steps do not prove that output {name:?} is what it was")]
    Output {
        /// Its name.
        name: String,
    },
    /// A node that is not looked into may work on other values.
    #[error("node {name:?}: {problem}")]
    Node {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The trace is not about the model.
    #[error("the trace is not about this model: {0}")]
    Model(String),
    /// The trace is not about the file written.
    #[error("the trace does not end in this file: {0}")]
    Optimized(String),
}

/// Proves a trace; with the model read, that it begins there, and with the file written, that it ends there.
///
/// # Errors
/// The first step or output that does not follow.
pub fn replay(trace: &Trace, model: Option<&Graph>, optimized: Option<&Graph>) -> Result<Proof, NotProved> {
    let model = model.map(|g| Engine::new(g.clone()));
    let given = model.as_ref().map(constants_of).unwrap_or_default();
    let table = Table::new(trace, given).map_err(|Bad { term, problem }| NotProved::Term { term, problem })?;
    let shapes = Arc::new(Shapes::new(trace));
    let mut proof = Proof { sizes_taken: table.taken.len(), ..Proof::default() };
    let mut closure = Closure::of_all(Arc::clone(&shapes));
    check_steps(trace, &table, &shapes, &mut proof)?;
    for step in &trace.steps {
        closure.union(shapes.place(step.lhs), shapes.place(step.rhs));
    }
    let mut equal = |a: u32, b: u32| closure.equal(shapes.place(a), shapes.place(b));
    check_opaque(trace, &mut equal, &mut proof)?;
    for o in &trace.outputs {
        if !equal(o.before, o.after) {
            return Err(NotProved::Output { name: o.name.clone() });
        }
        proof.outputs += 1;
    }
    if let Some(engine) = &model {
        let found = check_model(trace, engine).map_err(NotProved::Model)?;
        // What the model has, it has with these sizes.
        proof.sizes_taken = table.taken.iter().filter(|t| !found.contains_key(t)).count();
        proof.in_model = Some(found.len());
    }
    if let Some(graph) = optimized {
        let engine = Engine::new(graph.clone());
        let found = written::compare(trace, &table, &shapes, model.as_ref(), &engine).map_err(NotProved::Optimized)?;
        proof.in_optimized = Some(found.terms);
        proof.written_out = found.written_out;
    }
    Ok(proof)
}

fn constants_of(engine: &Engine) -> BTreeMap<ConstantKey, Constant> {
    let constant = |t: &crate::rewrite::terms::Term| match &t.head {
        Head::Constant(c) => Some((ConstantKey::of(c), c.clone())),
        _ => None,
    };
    engine.terms.iter().filter_map(|(_, t)| constant(t)).collect()
}

/// Checks every step. A step that does not follow from what its own terms tell is tried again with what their equals tell, as far
/// as other steps have proved these equal.
fn check_steps(trace: &Trace, table: &Table, shapes: &Arc<Shapes>, proof: &mut Proof) -> Result<(), NotProved> {
    let mut waiting: Vec<&StepLine> = trace.steps.iter().collect();
    let mut proved = Vec::new();
    let mut learned: Option<Terms> = None;
    while !waiting.is_empty() {
        let terms = learned.as_ref().unwrap_or(&table.terms);
        let (mut left, mut first) = (Vec::new(), None);
        for step in &waiting {
            match check_step(trace, table, terms, shapes, step, proof) {
                Ok(()) => proved.push((shapes.place(step.lhs), shapes.place(step.rhs))),
                Err(problem) => {
                    first.get_or_insert(NotProved::Step { n: step.n, rule: step.rule.clone(), problem });
                    left.push(*step);
                }
            }
        }
        if let Some(problem) = first {
            if learned.is_some() && left.len() == waiting.len() {
                return Err(problem);
            }
            learned = Some(joined(table, shapes, &proved).map_err(|_| problem)?);
        }
        waiting = left;
    }
    Ok(())
}

/// Checks one step on `terms`, which are those of the table and may know more of their values.
fn check_step(
    trace: &Trace,
    table: &Table,
    terms: &Terms,
    shapes: &Shapes,
    step: &StepLine,
    proof: &mut Proof,
) -> Result<(), String> {
    let term = |t: u32| table.ids.get(shapes.place(t)).copied().ok_or_else(|| format!("there is no term {t}"));
    let (lhs, rhs) = (term(step.lhs)?, term(step.rhs)?);
    match &*step.rule {
        MERGE if lhs == rhs => {
            proof.merged += 1;
            Ok(())
        }
        MERGE => Err("it merges terms that differ".into()),
        FOLD_WEIGHTS if trace.header.fp == "strict" => Err("--fp strict does not allow it".into()),
        FOLD_CONSTANTS | FOLD_WEIGHTS => check_fold(trace, table, step, proof),
        DEFINITION => {
            let mut terms = terms.clone();
            match definition(&mut terms, lhs) {
                Some(Ok(written)) if written == rhs => {
                    proof.derived += 1;
                    Ok(())
                }
                Some(Ok(_)) => Err(format!("t{} is not the definition of t{}", step.rhs, step.lhs)),
                Some(Err(e)) => Err(e.to_string()),
                None => Err("there is no operator with a definition".into()),
            }
        }
        name => {
            let rule = rules::find(name).ok_or("this version has no such rule")?;
            if trace.rule(name).is_none() {
                return Err("the header does not list the rule".into());
            }
            if trace.header.fp == "strict" && rule.exactness != Exactness::Bitwise {
                return Err(format!("--fp strict does not allow it: it is {}", rule.exactness));
            }
            let held = rederive_step(terms, rule, lhs, rhs, None).ok_or_else(|| {
                format!("the rule does not find t{} at t{}{}", step.rhs, step.lhs, unseen(table, lhs))
            })?;
            if held != step.conditions {
                return Err(format!("it holds under {held:?}, not {:?}", step.conditions));
            }
            proof.derived += 1;
            Ok(())
        }
    }
}

/// A hint where a condition may need elements that the trace does not hold.
fn unseen(table: &Table, lhs: TermId) -> &'static str {
    let is_unseen = |t: &TermId| {
        let t = table.terms.get(*t);
        t.constant && matches!(t.head, Head::Value(_))
    };
    let near = table.terms.get(lhs).operands.iter().flatten();
    let near: Vec<TermId> =
        near.flat_map(|o| [*o].into_iter().chain(table.terms.get(*o).operands.iter().flatten().copied())).collect();
    if near.iter().any(is_unseen) { "; it may need the elements of a large constant, which --model has" } else { "" }
}

fn check_fold(trace: &Trace, table: &Table, step: &StepLine, proof: &mut Proof) -> Result<(), String> {
    let constant = trace.term(step.rhs).and_then(|t| t.constant.as_ref()).ok_or("it does not end in a constant")?;
    let key = constant.key()?;
    match table.folded.get(&(step.lhs, step.rule == FOLD_WEIGHTS)) {
        Some(Folded::Computed(found, _)) if *found == key => proof.computed += 1,
        Some(Folded::Computed(found, _)) => return Err(format!("the constant is {found}, not {key}")),
        Some(Folded::Unseen) => {
            let left = trace.term(step.lhs).and_then(|t| t.r#type.as_ref());
            let right = TypeLine {
                dtype: constant.dtype.clone(),
                shape: constant
                    .shape
                    .iter()
                    .map(|n| super::lines::DimLine::Fixed(i64::try_from(*n).unwrap_or(i64::MAX)))
                    .collect(),
                elements: None,
            };
            let fits = left.is_none_or(|l| l.dtype == right.dtype && l.shape == right.shape);
            if !fits {
                return Err(format!("the constant is {right}, which is not the type of what it replaces"));
            }
            proof.not_computed += 1;
        }
        Some(Folded::NotConstant) | None => return Err("what it replaces does not follow from constants".into()),
        Some(Folded::Failed(problem)) => return Err(problem.clone()),
    }
    Ok(())
}

/// Nodes of the file written that are not looked into have the operands that they had.
fn check_opaque(trace: &Trace, equal: &mut dyn FnMut(u32, u32) -> bool, proof: &mut Proof) -> Result<(), NotProved> {
    let of_side = |side: Side| {
        let nodes = trace.nodes.iter().filter(move |n| n.side == side && n.operands.is_some());
        nodes.flat_map(|n| n.terms.iter().map(move |t| (*t, n))).collect::<HashMap<u32, &NodeLine>>()
    };
    let (read, written) = (of_side(Side::Read), of_side(Side::Written));
    for (_, term) in after(trace) {
        let Some(name) = term.value.as_ref().filter(|n| !n.starts_with("input:")) else { continue };
        let wrong = |problem: &str| NotProved::Node { name: name.clone(), problem: problem.into() };
        let (Some(was), Some(is)) = (read.get(&term.id), written.get(&term.id)) else {
            return Err(wrong("the trace does not say what it works on"));
        };
        let (was, is) = (was.operands.as_deref().unwrap_or_default(), is.operands.as_deref().unwrap_or_default());
        // Operands that are left out at the end may be so in either.
        let operand = |list: &[Option<u32>], i: usize| list.get(i).copied().flatten();
        let same = (0..was.len().max(is.len())).all(|i| match (operand(was, i), operand(is, i)) {
            (Some(a), Some(b)) => equal(a, b),
            (None, None) => true,
            _ => false,
        });
        if !same {
            return Err(wrong("the steps do not prove that it works on what it worked on"));
        }
        proof.opaque += 1;
    }
    Ok(())
}

/// The terms of the file written, those that nodes which are not looked into work on included.
fn after(trace: &Trace) -> BTreeMap<u32, &TermLine> {
    let mut stack: Vec<u32> = trace.outputs.iter().map(|o| o.after).collect();
    let operands = trace.nodes.iter().filter(|n| n.side == Side::Written).flat_map(|n| n.operands.iter().flatten());
    stack.extend(operands.flatten());
    let mut found = BTreeMap::new();
    while let Some(id) = stack.pop() {
        if let Some(t) = trace.term(id).filter(|_| !found.contains_key(&id)) {
            found.insert(id, t);
            stack.extend(t.operands.iter().flatten());
        }
    }
    found
}

/// The terms of the file read are those of the model.
fn check_model(trace: &Trace, engine: &Engine) -> Result<BTreeMap<u32, TermId>, String> {
    let names = |n: &mut dyn Iterator<Item = String>| n.collect::<BTreeSet<String>>();
    let graph = &engine.graph;
    if names(&mut trace.outputs.iter().map(|o| o.name.clone()))
        != names(&mut graph.outputs().iter().map(|o| o.name.clone()))
    {
        return Err("it has other outputs".into());
    }
    let mut stack: Vec<u32> = trace.outputs.iter().map(|o| o.before).collect();
    let read: HashMap<u32, &NodeLine> = trace
        .nodes
        .iter()
        .filter(|n| n.side == Side::Read && n.operands.is_some())
        .flat_map(|n| n.terms.iter().map(move |t| (*t, n)))
        .collect();
    let mut wanted: BTreeMap<u32, &TermLine> = BTreeMap::new();
    while let Some(id) = stack.pop() {
        let Some(t) = trace.term(id).filter(|_| !wanted.contains_key(&id)) else { continue };
        wanted.insert(id, t);
        stack.extend(t.operands.iter().flatten());
        stack.extend(read.get(&id).into_iter().flat_map(|n| n.operands.iter().flatten().flatten()));
    }
    let mut found: BTreeMap<u32, TermId> = BTreeMap::new();
    for (id, line) in &wanted {
        let t = find(line, &found, engine)?.ok_or_else(|| format!("it has no term {id}"))?;
        found.insert(*id, t);
    }
    for (id, line) in wanted.iter().filter(|(_, l)| l.constant.is_none()) {
        let Some(t) = found.get(id) else { continue };
        let of_model = engine.terms.get(*t).fact.as_ref().map(TypeLine::of);
        if line.r#type != of_model {
            return Err(format!("term {id} has another type there"));
        }
        if line.whole && engine.terms.get(*t).elements != Elements::READ {
            return Err(format!("term {id} is no input that the model reads as a whole there"));
        }
        if line.value.is_none() {
            continue;
        }
        let operands = read.get(id).and_then(|n| n.operands.as_deref()).unwrap_or_default();
        let own = engine.value(*t).map(|v| graph.node(v.node).operands()).unwrap_or_default();
        let here = operands.iter().map(|o| o.and_then(|o| found.get(&o).copied()));
        if !here.eq(own.iter().map(|o| o.map(|o| engine.term(o)))) {
            return Err(format!("term {id} works on other values there"));
        }
    }
    for o in &trace.outputs {
        let own = graph.outputs().iter().find(|x| x.name == o.name).map(|x| engine.term(x.value));
        if own.is_none() || own != found.get(&o.before).copied() {
            return Err(format!("its output {:?} is another term", o.name));
        }
    }
    Ok(found)
}

fn find(line: &TermLine, found: &BTreeMap<u32, TermId>, engine: &Engine) -> Result<Option<TermId>, String> {
    if let Some(c) = &line.constant {
        return Ok(engine.terms.find_constant(&c.key()?));
    }
    if let Some(name) = &line.value {
        return Ok(engine.terms.find_value(name));
    }
    let operands = line.operands.iter().map(|o| o.and_then(|o| found.get(&o).copied())).collect();
    Ok(engine.terms.find_apply(&op_of(line)?, operands))
}
