//! What the steps that are proved so far tell of the terms: equal terms are one value, so that what is known of one holds of all.

use std::{collections::BTreeMap, sync::Arc};

use convc_runtime::{Dim, Fact, Op, ops::InferCx};

use super::{
    closure::{Closure, Index, Shapes},
    table::Table,
};
use crate::rewrite::{
    elements::Elements,
    join::join,
    terms::{Head, TermId, Terms},
};

/// Rounds of joining facts of equal terms and inferring those of the terms that use them. More would tell more of deep chains of
/// views; a step that needs them is not proved.
const ROUNDS: usize = 4;

/// The terms of a trace, with all that their equals tell of them. `proved` are the pairs of lines found to be equal.
///
/// # Errors
/// If two terms that are equal exclude each other.
pub(super) fn joined(table: &Table, shapes: &Arc<Shapes>, proved: &[(Index, Index)]) -> Result<Terms, String> {
    let mut closure = Closure::of_all(Arc::clone(shapes));
    proved.iter().for_each(|(a, b)| closure.union(*a, *b));
    let mut classes: BTreeMap<Index, Vec<TermId>> = BTreeMap::new();
    for (line, term) in table.ids.iter().enumerate() {
        classes.entry(closure.find(line)).or_default().push(*term);
    }
    classes.retain(|_, members| members.len() > 1);
    let mut terms = table.terms.clone();
    for _ in 0..ROUNDS {
        for members in classes.values() {
            let (mut fact, mut elements): (Option<Fact>, Elements) = (None, Elements::default());
            for t in members {
                let term = terms.get(*t);
                if join(&mut fact, term.fact.clone()).conflict {
                    return Err(format!("{t} is found to be equal to a value of another type"));
                }
                elements = elements.both(term.elements);
            }
            members.iter().for_each(|t| terms.learn(*t, fact.clone(), elements));
        }
        for t in &table.ids {
            let Some(mut fact) = inferred(&terms, *t) else { continue };
            let term = terms.get(*t);
            let (own, elements) = (term.fact.clone(), term.elements);
            if own.is_some() && !join(&mut fact, own).conflict {
                terms.learn(*t, fact, elements);
            }
        }
    }
    Ok(terms)
}

/// The fact of an operator's term that follows from those of its operands, without sizes that only the data decides.
fn inferred(terms: &Terms, t: TermId) -> Option<Option<Fact>> {
    let term = terms.get(t);
    let Head::Op(op) = &term.head else { return None };
    let op: &Op = op;
    let facts: Vec<Option<&Fact>> = term
        .operands
        .iter()
        .map(|o| o.map_or(Some(None), |o| terms.get(o).fact.as_ref().map(Some)))
        .collect::<Option<_>>()?;
    let mut open = false;
    let mut fresh = || {
        open = true;
        Dim::symbol("?open")
    };
    let fact = op.infer(&facts, &mut InferCx::new(&mut fresh)).ok()?.into_iter().next();
    (!open).then_some(fact)
}
