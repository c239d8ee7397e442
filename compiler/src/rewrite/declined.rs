//! Rewrites that were found in a region and that cost decided against.

use std::collections::{BTreeMap, BTreeSet};

use egg::Id;

use super::{
    cost::Pricing,
    engine::Step,
    explain,
    language::{EView, Graph, Node},
    saturate::Offer,
    term_cost,
    terms::{TermId, Terms},
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

/// The declined rewrites of all regions: at most one for a rule and the nodes it is about.
pub(crate) type Declinations = BTreeMap<(String, Vec<Origin>), (f64, f64)>;

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
        let cheapest = out.entry((offer.rule.to_owned(), origins)).or_insert((before, after));
        if after < cheapest.1 {
            *cheapest = (before, after);
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

/// The declined rewrites, without those that a later round took: a step of the same rule is about the same nodes.
pub(crate) fn left(noted: Declinations, steps: &[Step], terms: &Terms) -> Vec<Declined> {
    let mut taken: BTreeMap<&str, Vec<BTreeSet<&Origin>>> = BTreeMap::new();
    for step in steps {
        let origins = terms.get(step.lhs).origins.iter().collect();
        taken.entry(&step.rule).or_default().push(origins);
    }
    noted
        .into_iter()
        .filter(|((rule, origins), _)| {
            let steps = taken.get(rule.as_str()).map_or(&[][..], Vec::as_slice);
            !steps.iter().any(|s| origins.iter().all(|o| s.contains(o)))
        })
        .map(|((rule, origins), (before, after))| Declined { rule, origins, before, after })
        .collect()
}
