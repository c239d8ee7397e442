//! One rule at a time on a graph: every place where it fires, rewritten by its right side as it stands, whatever the cost.

use convc::{
    ir::{Graph, Value},
    rewrite::{
        engine::Engine,
        rule::{Cx, Miss, Rule},
        view::{View, same_shape},
    },
};

/// A graph with one rewrite made.
pub struct Rewrite {
    /// The graph; an error if an operator refuses the right side, or it has another type than the left one.
    pub graph: Result<Graph, String>,
    /// Whether the two sides' shapes are known to be equal, for all values of the symbols.
    pub same_shape: Option<bool>,
    /// The conditions that were found to hold.
    pub conditions: Vec<&'static str>,
}

/// Every rewrite that `rule` finds in `graph`, and the candidates that a condition stopped. `forced` counts as holding.
///
/// # Panics
/// If a match's left side is not what stands there.
#[must_use]
pub fn apply(graph: &Graph, rule: &'static Rule, forced: Option<&'static str>) -> (Vec<Rewrite>, Vec<Miss>) {
    let (mut rewrites, mut misses) = (Vec::new(), Vec::new());
    let engine = Engine::new(graph.clone());
    for id in engine.graph.topological() {
        let node = engine.graph.node(id);
        if node.outputs() != 1 || !node.op().is_some_and(|op| rule.roots.contains(&op.name())) {
            continue;
        }
        let v = Value { node: id, port: 0 };
        let term = engine.term(v);
        let Some(app) = engine.terms.apps(term.class()).pop() else { continue };
        let (matches, missed) = Cx::search(&engine.terms, rule, term.class(), &app, forced);
        misses.extend(missed);
        for m in matches {
            // The same graph again has the same terms.
            let mut engine = Engine::new(graph.clone());
            assert_eq!(engine.terms.find(&m.lhs), Some(term), "{}: the left side is not what is there", rule.name);
            let Some(rhs) = engine.terms.add(&m.rhs) else { continue };
            if rhs == term {
                continue;
            }
            let (left, right) = (engine.terms.get(term).fact.clone(), engine.terms.get(rhs).fact.clone());
            let same = match (&left, &right) {
                (Some(l), Some(r)) if l.dtype == r.dtype => same_shape(&l.shape, &r.shape),
                (Some(_), Some(_)) => Some(false),
                _ => None,
            };
            let replaced = engine.replace(v, rhs).map_err(|e| e.to_string());
            engine.graph.remove_dead();
            let graph = replaced.and_then(|()| match same {
                Some(false) => Err(format!("{left:?} becomes {right:?}")),
                _ => Ok(engine.graph),
            });
            rewrites.push(Rewrite { graph, same_shape: same, conditions: m.conditions });
        }
    }
    (rewrites, misses)
}
