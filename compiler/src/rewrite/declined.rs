//! Rewrites that were found in a region and that cost decided against.

use std::collections::{BTreeMap, BTreeSet};

use egg::Id;

use super::{
    cost::{Pricing, term_cost},
    explain,
    language::{EView, Graph, Node},
    saturate::Offer,
    terms::{Head, TermId, Terms},
    view::Expr,
};
use crate::ir::Origin;

/// A rewrite that was found and not taken: the cheapest of its rule at these nodes of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Declined {
    /// The rule.
    pub rule: String,
    /// The nodes of the model that it was about.
    pub origins: Vec<Origin>,
    /// What the operators of its left side cost, in the profile's unit.
    pub before: f64,
    /// What those of its right side would cost.
    pub after: f64,
}

/// The declined rewrites of all regions: at most one for a rule and the nodes it is about, with the costs of both sides and the
/// term that it was found at.
pub(crate) type Declinations = BTreeMap<(String, Vec<Origin>), (f64, f64, TermId)>;

/// The term of each class of a region as it was.
pub(crate) fn originals(egraph: &Graph, before: &egg::RecExpr<Node>, terms: &mut Terms) -> BTreeMap<Id, TermId> {
    let ids = egraph.lookup_expr_ids(before).unwrap_or_default();
    let known = explain::terms_of(before, &egraph.analysis, terms);
    // Several terms of a region may have become equal: the first one is the one that the others' operands were made of.
    let mut out = BTreeMap::new();
    for (id, term) in ids.into_iter().zip(known) {
        if let Some(term) = term {
            out.entry(egraph.find(id)).or_insert(term);
        }
    }
    out
}

/// Notes what was offered for terms of the region as it was, with what both sides cost.
pub(crate) fn note(
    egraph: &mut Graph,
    offers: &[Offer],
    originals: &BTreeMap<Id, TermId>,
    terms: &Terms,
    pricing: &Pricing,
    out: &mut Declinations,
) {
    for offer in offers {
        let Some(at) = originals.get(&egraph.find(EView::id(offer.class))) else { continue };
        let sides = [&offer.lhs, &offer.rhs].map(|side| {
            let mut seen = BTreeSet::new();
            let id = lookup(egraph, side, pricing, &mut seen)?;
            Some((id, seen.iter().map(|(_, cost)| f64::from_bits(*cost)).sum::<f64>()))
        });
        let [Some((_, before)), Some((_, after))] = sides else { continue };
        let origins: Vec<Origin> = terms.get(*at).origins.iter().cloned().collect();
        let cheapest = out.entry((offer.rule.to_owned(), origins)).or_insert((before, after, *at));
        if after < cheapest.1 {
            *cheapest = (before, after, *at);
        }
    }
}

/// The class of a side in the e-graph, and what its operators cost, each once.
fn lookup(egraph: &mut Graph, side: &Expr, pricing: &Pricing, seen: &mut BTreeSet<(Id, u64)>) -> Option<Id> {
    match side {
        Expr::Class(c) => Some(egraph.find(EView::id(*c))),
        Expr::Constant(c) => {
            let leaf = egraph.analysis.own_constant(c);
            egraph.lookup(leaf)
        }
        Expr::Op(op, operands) => {
            let mut below = BTreeSet::new();
            let mut args = Vec::with_capacity(operands.len());
            for operand in operands {
                args.push(match operand {
                    Some(o) => lookup(egraph, o, pricing, &mut below)?,
                    None => egraph.lookup(Node::Hole)?,
                });
            }
            let node = egraph.analysis.node(op, args);
            let id = egraph.lookup(node.clone())?;
            // What a constant is folded from costs nothing.
            if !egraph[id].data.constant {
                seen.extend(below);
            }
            seen.insert((id, term_cost(egraph, id, &node, pricing).to_bits()));
            Some(id)
        }
    }
}

/// The declined rewrites whose left side is there in the end: an operator of that name, made of the same nodes of the model.
/// Where it is not, another rewrite, or another one of the same rule, took it in.
pub(crate) fn left(noted: Declinations, terms: &Terms, outputs: &[TermId]) -> Vec<Declined> {
    let name = |t: TermId| match &terms.get(t).head {
        Head::Op(op) => Some(op.name()),
        Head::Constant(_) | Head::Value(_) => None,
    };
    let mut stays: BTreeMap<&str, Vec<TermId>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut stack = outputs.to_vec();
    while let Some(t) = stack.pop() {
        if seen.insert(t) {
            name(t).into_iter().for_each(|n| stays.entry(n).or_default().push(t));
            stack.extend(terms.get(t).operands.iter().flatten());
        }
    }
    noted
        .into_iter()
        .filter(|((_, origins), (.., at))| {
            let of_name = name(*at).and_then(|n| stays.get(n)).map_or(&[][..], Vec::as_slice);
            of_name.iter().any(|t| origins.iter().all(|o| terms.get(*t).origins.contains(o)))
        })
        .map(|((rule, origins), (before, after, _))| Declined { rule, origins, before, after })
        .collect()
}
