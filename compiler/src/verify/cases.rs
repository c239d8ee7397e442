//! The cases that a rewritten model is verified in: sizes, and inputs of these sizes on which the original runs.

use std::collections::{BTreeMap, BTreeSet};

use convc_runtime::{Bindings, DType, Dim, Symbol, Tensor, dim::element_count};

use super::{
    VerifyError,
    inputs::{Integers, random},
    roles::{Role, roles},
    sizes::{MULTIPLES, Open, around, corners, drawn, open_sizes, operations},
};
use crate::ir::Graph;

/// What verification is asked to do.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Inputs that are given; the others are made up.
    pub given: BTreeMap<String, Tensor>,
    /// Sizes that are given.
    pub sizes: Bindings,
    /// Sizes of inputs whose rank the model does not declare.
    pub unranked: BTreeMap<String, Vec<i64>>,
    /// Whether the result will only ever run at the sizes given.
    pub specialised: bool,
    /// Where made-up inputs and the sizes drawn come from.
    pub seed: u64,
    /// How many threads to use.
    pub threads: usize,
}

/// Sizes to try for axes that nothing fixes, until the original runs.
const TRIED: &[i64] = &[64, 224, 56, 320, 48, 33];

/// Sizes of batches and of other axes to try behind those: at least one of them 0.
const EMPTY: &[(i64, i64)] = &[(0, 64), (2, 0), (0, 0)];

/// Multiplications and additions that bindings beside the nominal one may need in all, on either side.
const BUDGET: u64 = 1_000_000_000;

/// How many bindings are tried beside the nominal one at most.
const MOST: usize = 48;

/// The largest input that is made up, in elements.
const LARGEST_INPUT: usize = 1 << 31;

/// Sizes, and why these.
#[derive(Debug, Clone)]
pub(super) struct Sizes {
    pub(super) why: String,
    pub(super) bindings: Bindings,
    /// Whether booleans are turned around.
    pub(super) flip: bool,
    /// Whether these are tried only if the original does not run at the sizes before them.
    pub(super) instead: bool,
}

/// How the integers of inputs are made up, in the order in which it is tried.
const ATTEMPTS: usize = 4;

pub(super) struct Cases<'a> {
    graph: &'a Graph,
    request: &'a Request,
    roles: BTreeMap<String, Role>,
    /// Sizes that the inputs given have.
    known: Bindings,
    open: Vec<Open>,
}

impl<'a> Cases<'a> {
    pub(super) fn new(graph: &'a Graph, request: &'a Request) -> Cases<'a> {
        let mut known = request.sizes.clone();
        for v in graph.inputs() {
            let given = graph.value_name(v).and_then(|n| request.given.get(n));
            let (Some(tensor), Some(fact)) = (given, graph.fact(v)) else { continue };
            for (d, &size) in fact.shape.iter().zip(tensor.shape()) {
                if let (Some(symbol), Ok(size)) = (d.as_symbol(), i64::try_from(size)) {
                    known.entry(symbol.clone()).or_insert(size);
                }
            }
        }
        let held: BTreeSet<Symbol> = known.keys().cloned().collect();
        Cases { graph, request, roles: roles(graph), open: open_sizes(graph, &held), known }
    }

    /// The sizes that come first: as given, the others as they are tried. Empty tensors come last, for models that run with no
    /// others: they compare shapes and types alone.
    pub(super) fn nominal(&self) -> Vec<Sizes> {
        let mut list: Vec<Sizes> = Vec::new();
        let tried = TRIED.iter().map(|&size| (2, size, "nominal"));
        let empty =
            EMPTY.iter().map(|&(batch, size)| (batch, size, "empty, since the model runs at no other sizes tried"));
        for (batch, size, why) in tried.chain(empty) {
            let mut bindings = self.known.clone();
            bindings.extend(self.open.iter().map(|o| (o.symbol.clone(), if o.batch { batch } else { size })));
            if list.iter().all(|s| s.bindings != bindings) {
                list.push(Sizes { why: why.into(), bindings, flip: false, instead: false });
            }
        }
        list
    }

    /// Whether sizes are left open that nothing gives.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    fn has_booleans(&self) -> bool {
        let is_made_up = |v: &crate::ir::Value| {
            let name = self.graph.value_name(*v).unwrap_or_default();
            !self.request.given.contains_key(name) && self.graph.default_of(*v).is_none()
        };
        self.graph.inputs().iter().any(|v| is_made_up(v) && self.graph.dtype(*v) == Some(DType::Bool))
    }

    /// The sizes beside the nominal ones, as far as the budget goes, and how many bindings it leaves out.
    pub(super) fn others(&self, nominal: &Bindings) -> (Vec<Sizes>, usize) {
        let mut list = Vec::new();
        if self.has_booleans() {
            let why = "nominal, booleans turned around".into();
            list.push(Sizes { why, bindings: nominal.clone(), flip: true, instead: false });
        }
        // Inputs that are given say what is wanted to hold.
        if !self.request.given.is_empty() {
            return (list, 0);
        }
        let held = if self.request.specialised { self.known.keys().cloned().collect() } else { BTreeSet::new() };
        let open = open_sizes(self.graph, &held);
        if open.is_empty() {
            return (list, 0);
        }
        let mut seen: BTreeSet<Bindings> = BTreeSet::from([nominal.clone()]);
        let mut drawn_before = false;
        for (attempt, _) in (0..).zip(MULTIPLES) {
            let bindings = drawn(&open, nominal, self.request.seed, attempt);
            if seen.insert(bindings.clone()) {
                let why = format!("drawn by seed {}", self.request.seed);
                list.push(Sizes { why, bindings, flip: true, instead: std::mem::replace(&mut drawn_before, true) });
            }
        }
        let mut candidates: Vec<(u64, Sizes)> = Vec::new();
        // The other sizes stay small while one comes around a corner.
        let mut small = nominal.clone();
        for o in open.iter().filter(|o| o.batch) {
            small.insert(o.symbol.clone(), 2);
        }
        for c in corners(self.graph, &open, nominal) {
            for bindings in around(c, &open, &small) {
                if seen.insert(bindings.clone()) {
                    let needed = operations(self.graph, &bindings).unwrap_or(u64::MAX);
                    let flip = candidates.len() % 2 == 1;
                    candidates.push((needed, Sizes { why: format!("around {c}"), bindings, flip, instead: false }));
                }
            }
        }
        candidates.sort_by_key(|(needed, _)| *needed);
        let (mut left, mut left_out) = (BUDGET, 0);
        for (needed, sizes) in candidates {
            if needed > left || list.len() >= MOST {
                left_out += 1;
                continue;
            }
            left -= needed;
            list.push(sizes);
        }
        (list, left_out)
    }

    /// Inputs for these sizes, in the order in which they are tried.
    pub(super) fn attempts(&self) -> std::ops::Range<usize> {
        let integers = self.graph.inputs().iter().any(|v| {
            let name = self.graph.value_name(*v).unwrap_or_default();
            let made_up = !self.request.given.contains_key(name) && self.graph.default_of(*v).is_none();
            made_up && self.graph.dtype(*v).is_some_and(|t| !t.is_float() && t != DType::Bool)
        });
        0..if integers { ATTEMPTS } else { 1 }
    }

    /// Inputs of these sizes.
    pub(super) fn inputs(&self, sizes: &Sizes, attempt: usize) -> Result<BTreeMap<String, Tensor>, VerifyError> {
        let mut tensors = self.request.given.clone();
        for (stream, v) in (0..).zip(self.graph.inputs()) {
            let name = self.graph.value_name(v).unwrap_or_default();
            if tensors.contains_key(name) || self.graph.default_of(v).is_some() {
                continue;
            }
            let cannot = |problem: String| VerifyError::Inputs { name: name.to_owned(), problem };
            let fact = self.graph.fact(v);
            let shape: Vec<i64> = match (fact, self.request.unranked.get(name)) {
                (_, Some(sizes)) => sizes.clone(),
                (Some(f), None) => f
                    .shape
                    .iter()
                    .map(|d: &Dim| d.eval(&sizes.bindings))
                    .collect::<Result<_, _>>()
                    .map_err(|e| cannot(format!("is {f}: {e}")))?,
                (None, None) => return Err(VerifyError::Rank { name: name.to_owned() }),
            };
            let dtype = fact.map_or(DType::F32, |f| f.dtype);
            let shape: Option<Vec<usize>> = shape.iter().map(|&d| usize::try_from(d).ok()).collect();
            let shape = shape.filter(|s| element_count(s).is_some_and(|n| n <= LARGEST_INPUT));
            let shape = shape.ok_or_else(|| VerifyError::TooLarge { name: name.to_owned(), limit: LARGEST_INPUT })?;
            let integers = integers(self.roles.get(name), &sizes.bindings, attempt);
            let tensor = random(dtype, &shape, integers, (self.request.seed, stream), sizes.flip);
            let tensor = tensor.ok_or_else(|| cannot(format!("has type {dtype}, which cannot be made up")))?;
            tensors.insert(name.to_owned(), tensor);
        }
        Ok(tensors)
    }
}

fn integers(role: Option<&Role>, sizes: &Bindings, attempt: usize) -> Integers {
    let free = Role::default();
    let role = role.unwrap_or(&free);
    match attempt {
        0 if !role.indexes.is_empty() => role.limit(sizes).map_or(Integers::Below(2), Integers::Below),
        0 if role.sizes => Integers::Sizes,
        0 => Integers::Mixed,
        1 if role.is_free() => Integers::Mixed,
        1 => Integers::Below(2),
        2 => Integers::Sizes,
        _ => Integers::Zero,
    }
}
