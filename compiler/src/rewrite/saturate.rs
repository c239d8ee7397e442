//! Saturation of one region with the rules of a phase.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use convc_runtime::Fact;
use egg::{
    Applier, ENodeOrVar, Id, PatternAst, RecExpr, Rewrite, Runner, SearchMatches, Searcher, SimpleScheduler,
    StopReason, Subst, Symbol, Var,
};

use super::{
    language::{Analysis, EView, Graph, Node},
    rule::{Cx, Miss, Rule},
    terms::{Head, TermId, Terms},
    view::{Class, Expr, same_shape},
};

/// Limits of one saturation: counts, never seconds, so that results do not depend on the machine.
#[derive(Debug, Clone, Copy)]
pub struct SaturationLimits {
    /// Rounds of searching all rules.
    pub iterations: usize,
    /// E-nodes.
    pub nodes: usize,
}

impl Default for SaturationLimits {
    fn default() -> SaturationLimits {
        SaturationLimits { iterations: 30, nodes: 10_000 }
    }
}

/// A region in saturated form.
pub(crate) struct Saturated {
    pub(crate) runner: Runner<Node, Analysis>,
    /// The region as it was: the last node is the tuple of its outputs.
    pub(crate) before: RecExpr<Node>,
    pub(crate) stop: String,
    pub(crate) iterations: usize,
    /// Candidates that a condition kept from firing.
    pub(crate) misses: Vec<(Miss, Option<TermId>)>,
    /// The first rewrite that each rule found at each class.
    pub(crate) offers: Vec<Offer>,
    /// Right sides that did not type-check: defects of a rule.
    pub(crate) ill_typed: Vec<String>,
}

/// A rewrite that a rule found.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) rule: &'static str,
    pub(crate) class: Class,
    pub(crate) lhs: Expr,
    pub(crate) rhs: Expr,
}

#[derive(Debug, Clone)]
struct Hit {
    lhs: Expr,
    rhs: Expr,
}

#[derive(Default)]
struct Shared {
    hits: Vec<Hit>,
    seen: BTreeSet<String>,
    /// The first hit of each class.
    first: BTreeMap<Class, usize>,
    misses: Vec<Miss>,
    ill_typed: Vec<String>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

struct RuleSearcher {
    rule: &'static Rule,
    shared: Arc<Mutex<Shared>>,
    forced: Option<(&'static str, &'static str)>,
}

/// The variable that carries a hit's number to the applier; it never names a class.
fn hit_var() -> Var {
    Var::from(Symbol::from("?hit"))
}

impl Searcher<Node, Analysis> for RuleSearcher {
    fn search_with_limit(&self, egraph: &Graph, limit: usize) -> Vec<SearchMatches<'_, Node>> {
        let view = EView(egraph);
        let forced = self.forced.filter(|f| f.0 == self.rule.name).map(|f| f.1);
        let mut found = Vec::new();
        for root in self.rule.roots {
            let Some(name) = egraph.analysis.name(root) else { continue };
            let mut ids: Vec<Id> =
                egraph.classes_for_op(&super::language::Kind::Op(name)).map(Iterator::collect).unwrap_or_default();
            ids.sort_unstable();
            for id in ids {
                for node in &egraph[id].nodes {
                    if !matches!(node, Node::Op(n, ..) if *n == name) {
                        continue;
                    }
                    let Some(app) = view.app(node) else { continue };
                    let class = view.class(id);
                    let (matches, misses) = Cx::search(&view, self.rule, class, &app, forced);
                    let mut shared = lock(&self.shared);
                    for miss in misses {
                        if !shared.misses.contains(&miss) {
                            shared.misses.push(miss);
                        }
                    }
                    for m in matches {
                        if found.len() >= limit || !shared.seen.insert(format!("{:?}={:?}", m.lhs, m.rhs)) {
                            continue;
                        }
                        let mut subst = Subst::default();
                        subst.insert(hit_var(), Id::from(shared.hits.len()));
                        let hit = shared.hits.len();
                        shared.first.entry(class).or_insert(hit);
                        shared.hits.push(Hit { lhs: m.lhs, rhs: m.rhs });
                        found.push(SearchMatches { eclass: id, substs: vec![subst], ast: None });
                    }
                }
            }
        }
        found
    }

    fn search_eclass_with_limit(&self, _: &Graph, _: Id, _: usize) -> Option<SearchMatches<'_, Node>> {
        None
    }

    fn vars(&self) -> Vec<Var> {
        Vec::new()
    }
}

struct RuleApplier {
    rule: &'static Rule,
    shared: Arc<Mutex<Shared>>,
}

impl Applier<Node, Analysis> for RuleApplier {
    fn apply_one(
        &self,
        egraph: &mut Graph,
        class: Id,
        subst: &Subst,
        _: Option<&PatternAst<Node>>,
        rule: Symbol,
    ) -> Vec<Id> {
        let hit = subst.get(hit_var()).and_then(|i| lock(&self.shared).hits.get(usize::from(*i)).cloned());
        let Some(Hit { lhs, rhs }) = hit else { return Vec::new() };
        let expected = egraph[class].data.fact.clone();
        match type_of(egraph, &rhs) {
            Some(f)
                if expected
                    .as_ref()
                    .is_none_or(|e| e.dtype == f.dtype && same_shape(&e.shape, &f.shape) != Some(false)) => {}
            other => {
                let found = other.map_or_else(|| "nothing".to_owned(), |f| f.to_string());
                let expected = expected.map_or_else(|| "anything".to_owned(), |f| f.to_string());
                lock(&self.shared).ill_typed.push(format!("{}: {rhs:?} is {found}, not {expected}", self.rule.name));
                return Vec::new();
            }
        }
        let mut subst = Subst::default();
        let lhs = pattern(egraph, &lhs, &mut subst);
        let rhs = pattern(egraph, &rhs, &mut subst);
        let (id, changed) = egraph.union_instantiations(&lhs, &rhs, &subst, rule);
        if changed { vec![id] } else { Vec::new() }
    }
}

/// The fact of an expression, if it type-checks.
fn type_of(egraph: &Graph, e: &Expr) -> Option<Fact> {
    match e {
        Expr::Class(c) => egraph[EView::id(*c)].data.fact.clone(),
        Expr::Constant(c) => Some(match c.to_tensor() {
            Ok(t) => Fact::of(&t),
            Err(_) => Fact::fixed(c.dtype(), c.shape()),
        }),
        Expr::Op(op, operands) => {
            let holes: Vec<bool> = operands.iter().map(Option::is_none).collect();
            let facts: Vec<Option<Fact>> =
                operands.iter().map(|o| o.as_ref().and_then(|o| type_of(egraph, o))).collect();
            Analysis::infer(op, &facts, &holes)
        }
    }
}

fn pattern(egraph: &mut Graph, e: &Expr, subst: &mut Subst) -> PatternAst<Node> {
    fn go(egraph: &mut Graph, e: &Expr, subst: &mut Subst, ast: &mut PatternAst<Node>) -> Id {
        match e {
            Expr::Class(c) => {
                let var = Var::from(Symbol::from(format!("?c{}", c.0)));
                if subst.get(var).is_none() {
                    subst.insert(var, EView::id(*c));
                }
                ast.add(ENodeOrVar::Var(var))
            }
            Expr::Constant(c) => {
                let leaf = egraph.analysis.own_constant(c);
                ast.add(ENodeOrVar::ENode(leaf))
            }
            Expr::Op(op, operands) => {
                let args = operands
                    .iter()
                    .map(|o| match o {
                        Some(o) => go(egraph, o, subst, ast),
                        None => ast.add(ENodeOrVar::ENode(Node::Hole)),
                    })
                    .collect();
                let node = egraph.analysis.node(op, args);
                ast.add(ENodeOrVar::ENode(node))
            }
        }
    }
    let mut ast = PatternAst::default();
    go(egraph, e, subst, &mut ast);
    ast
}

/// The terms from `roots` down to `leaves` as an expression whose last node is the tuple of the roots.
pub(crate) fn expression(
    terms: &Terms,
    analysis: &mut Analysis,
    roots: &[TermId],
    leaves: &BTreeSet<TermId>,
) -> RecExpr<Node> {
    let mut expr = RecExpr::default();
    let mut done = std::collections::BTreeMap::new();
    let mut hole = None;
    // Terms are numbered behind their operands, so a pass over the reachable ones in order needs no recursion.
    let mut needed: BTreeSet<TermId> = BTreeSet::new();
    let mut stack: Vec<TermId> = roots.to_vec();
    while let Some(t) = stack.pop() {
        if needed.insert(t) && !leaves.contains(&t) {
            stack.extend(terms.get(t).operands.iter().flatten());
        }
    }
    for t in needed {
        let term = terms.get(t);
        let node = match &term.head {
            Head::Op(op) if !leaves.contains(&t) => {
                let mut args = Vec::with_capacity(term.operands.len());
                for o in &term.operands {
                    args.push(match o {
                        Some(o) => done[o],
                        None => *hole.get_or_insert_with(|| expr.add(Node::Hole)),
                    });
                }
                analysis.node(op, args)
            }
            _ => analysis.leaf(t, terms),
        };
        done.insert(t, expr.add(node));
    }
    let roots = roots.iter().map(|r| done[r]).collect();
    expr.add(Node::Tuple(roots));
    expr
}

/// Adds the terms that rules propose beside those of `before`.
fn propose(egraph: &mut Graph, before: &RecExpr<Node>, rules: &[&'static Rule]) {
    let Some(ids) = egraph.lookup_expr_ids(before) else { return };
    let view = EView(egraph);
    let classes: Vec<Class> = ids.into_iter().map(|id| view.class(id)).collect();
    let proposals = rules.iter().filter_map(|r| r.proposals);
    let proposed: Vec<Expr> = proposals.flat_map(|propose| propose(&view, &classes)).collect();
    for e in proposed {
        if type_of(egraph, &e).is_some() {
            let mut subst = Subst::default();
            let ast = pattern(egraph, &e, &mut subst);
            egraph.add_instantiation(&ast, &subst);
        }
    }
    egraph.rebuild();
}

/// Saturates the terms between `leaves` and `roots` with `rules`. `forced` names a rule and one of its conditions that counts
/// as holding, for tests.
pub(crate) fn saturate(
    terms: &Terms,
    roots: &[TermId],
    leaves: &BTreeSet<TermId>,
    rules: &[&'static Rule],
    limits: SaturationLimits,
    forced: Option<(&'static str, &'static str)>,
) -> Saturated {
    let mut analysis = Analysis::default();
    analysis.target = terms.shared_target();
    analysis.positive = terms.shared_positive();
    let before = expression(terms, &mut analysis, roots, leaves);
    let shared: Vec<Arc<Mutex<Shared>>> = rules.iter().map(|_| Arc::default()).collect();
    let rewrites: Vec<Rewrite<Node, Analysis>> = rules
        .iter()
        .zip(&shared)
        .filter_map(|(&rule, shared)| {
            let searcher = RuleSearcher { rule, shared: Arc::clone(shared), forced };
            let applier = RuleApplier { rule, shared: Arc::clone(shared) };
            Rewrite::new(rule.name, searcher, applier).ok()
        })
        .collect();
    let mut runner = Runner::<Node, Analysis>::new(analysis)
        .with_explanations_enabled()
        .with_iter_limit(limits.iterations)
        .with_node_limit(limits.nodes)
        .with_time_limit(Duration::from_secs(1 << 30))
        .with_scheduler(SimpleScheduler)
        .with_expr(&before);
    propose(&mut runner.egraph, &before, rules);
    let runner = runner.run(&rewrites);
    let stop = match &runner.stop_reason {
        Some(StopReason::Saturated) => "saturated",
        Some(StopReason::IterationLimit(_)) => "iteration limit",
        Some(StopReason::NodeLimit(_)) => "node limit",
        _ => "stopped",
    };
    let ids = runner.egraph.lookup_expr_ids(&before).unwrap_or_default();
    let term_of = |class: Class| {
        // The original term of a class, for the report.
        before.iter().zip(&ids).find_map(|(node, id)| match node {
            Node::Leaf(t) if runner.egraph.find(*id) == runner.egraph.find(EView::id(class)) => Some(TermId(*t)),
            _ => None,
        })
    };
    let mut misses = Vec::new();
    let mut ill_typed = Vec::new();
    let mut offers = Vec::new();
    for (rule, s) in rules.iter().zip(&shared) {
        let mut s = lock(s);
        offers.extend(s.first.iter().filter_map(|(class, hit)| {
            let Hit { lhs, rhs } = s.hits.get(*hit)?.clone();
            Some(Offer { rule: rule.name, class: *class, lhs, rhs })
        }));
        for miss in std::mem::take(&mut s.misses) {
            let at = term_of(miss.class);
            misses.push((miss, at));
        }
        ill_typed.append(&mut s.ill_typed);
    }
    Saturated { iterations: runner.iterations.len(), stop: stop.to_owned(), before, misses, offers, ill_typed, runner }
}
