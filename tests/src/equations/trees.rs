//! Trees of additions and of products.

use std::collections::BTreeSet;

use convc::rewrite::view::Expr;

use super::{
    Operand, Term,
    env::Env,
    unify::{MOST, Matcher},
};

impl Matcher<'_> {
    pub(super) fn sum(&self, operands: &[Operand], expr: &Expr, env: Env) -> Vec<Env> {
        let mut leaves = Vec::new();
        self.addends(expr, true, &mut leaves);
        let mut out = Vec::new();
        self.leaves(operands, &leaves, &vec![BTreeSet::new(); operands.len()], env, &mut out);
        out
    }

    pub(super) fn product(&self, operands: &[Operand], expr: &Expr, env: Env) -> Vec<Env> {
        let mut leaves = Vec::new();
        self.factors(expr, &mut leaves);
        let leaves: Vec<(bool, Expr)> = leaves.into_iter().map(|l| (true, l)).collect();
        let mut out = Vec::new();
        self.leaves(operands, &leaves, &vec![BTreeSet::new(); operands.len()], env, &mut out);
        out
    }

    /// The leaves of a tree of additions, each with whether it is added.
    fn addends(&self, expr: &Expr, plus: bool, out: &mut Vec<(bool, Expr)>) {
        match expr {
            Expr::Op(op, operands) if ["Add", "Sum", "Sub", "Neg"].contains(&op.name()) => {
                for (k, o) in operands.iter().flatten().enumerate() {
                    let negates = (op.name() == "Sub" && k == 1) || op.name() == "Neg";
                    self.addends(o, plus != negates, out);
                }
            }
            _ if !self.is_left && self.bare(expr) != *expr => self.addends(&self.bare(expr), plus, out),
            other => out.push((plus, other.clone())),
        }
    }

    /// The factors of a product that are no constants.
    fn factors(&self, expr: &Expr, out: &mut Vec<Expr>) {
        match expr {
            Expr::Op(op, operands) if ["Mul", "Div"].contains(&op.name()) => {
                operands.iter().flatten().for_each(|o| self.factors(o, out));
            }
            Expr::Class(c) if self.view.is_constant(*c) => {}
            Expr::Constant(_) => {}
            other => out.push(other.clone()),
        }
    }

    /// Gives each leaf to one of the terms; `taken` are the indices that each term has had so far.
    fn leaves(
        &self,
        wanted: &[Operand],
        leaves: &[(bool, Expr)],
        taken: &[BTreeSet<usize>],
        env: Env,
        out: &mut Vec<Env>,
    ) {
        if out.len() >= MOST {
            return;
        }
        let Some(((plus, leaf), rest)) = leaves.split_first() else {
            out.extend(self.complete(wanted, taken, env));
            return;
        };
        for (k, w) in wanted.iter().enumerate() {
            let mut go = |index: usize, found: Vec<Env>| {
                let mut taken = taken.to_vec();
                taken[k].insert(index);
                found.into_iter().for_each(|e| self.leaves(wanted, rest, &taken, e, out));
            };
            match w {
                Operand::One(_) if !taken[k].is_empty() => {}
                Operand::One(Term::Minus(t)) if !plus => go(0, self.term(t, Some(leaf), env.clone())),
                Operand::One(Term::Minus(_)) => {}
                Operand::One(t) if *plus => go(0, self.term(t, Some(leaf), env.clone())),
                Operand::Run(t) => {
                    // On the left a run grows; on the right any of its terms may be next.
                    let indices = match env.length(t) {
                        Some(n) if !self.is_left => (0..n).filter(|i| !taken[k].contains(i)).collect(),
                        _ => vec![taken[k].len()],
                    };
                    for i in indices {
                        let signed = env.clone().signed(t, i, *plus);
                        go(i, signed.into_iter().flat_map(|e| self.at(i, t, Some(leaf), e)).collect());
                    }
                }
                Operand::One(_) | Operand::Some(_) | Operand::Set(_) | Operand::Rest | Operand::Missing => {}
            }
        }
    }

    /// Whether every term has had its leaves.
    fn complete(&self, wanted: &[Operand], taken: &[BTreeSet<usize>], env: Env) -> Option<Env> {
        let mut env = env;
        for (w, taken) in wanted.iter().zip(taken) {
            match w {
                Operand::One(_) if taken.is_empty() => return None,
                Operand::Run(t) => {
                    let is_variable = matches!(t, Term::Variable { .. });
                    match env.length(t) {
                        Some(n) if !self.is_left => {
                            let needed = (0..n).filter(|i| !self.may_be_missing(t, &env.indexed(*i)));
                            if needed.into_iter().any(|i| !taken.contains(&i)) {
                                return None;
                            }
                        }
                        _ if taken.is_empty() && !is_variable => return None,
                        _ => env = env.ended(t, taken.len())?,
                    }
                }
                Operand::One(_) | Operand::Some(_) | Operand::Set(_) | Operand::Rest | Operand::Missing => {}
            }
        }
        Some(env)
    }
}
