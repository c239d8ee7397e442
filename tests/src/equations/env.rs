//! What the names of an equation stand for in a match.

use std::collections::{BTreeMap, BTreeSet};

use convc::rewrite::view::{Class, Expr};
use convc_runtime::Op;

use super::{Operand, Term};

/// What a variable stands for.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Missing,
    /// A value of the match.
    Class(Class),
    /// A term that the rule makes of its own constants.
    Made(Expr),
}

/// What the names of an equation stand for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Env {
    pub(super) one: BTreeMap<String, Value>,
    pub(super) each: BTreeMap<String, Vec<Value>>,
    pub(super) sets: BTreeMap<String, BTreeSet<Class>>,
    /// The variables of runs whose length is known.
    pub(super) ended: BTreeSet<String>,
    /// For the variables of a run: whether its terms are added.
    pub(super) signs: BTreeMap<String, BTreeMap<usize, bool>>,
    pub(super) functions: BTreeMap<String, (Op, Vec<Option<Class>>)>,
    /// Which of several operators it is.
    pub(super) heads: BTreeMap<(String, Option<usize>), &'static str>,
    /// Which term of a run this is.
    pub(super) index: Option<usize>,
}

impl Env {
    /// What each variable stands for that is the same one throughout.
    #[must_use]
    pub fn values(&self) -> &BTreeMap<String, Value> {
        &self.one
    }

    /// How many terms a run of this one has, if one of its variables is known.
    pub(super) fn length(&self, term: &Term) -> Option<usize> {
        each_of(term).into_iter().find_map(|name| self.each.get(name).map(Vec::len))
    }

    /// The environment inside a term of a run.
    pub(super) fn indexed(&self, index: usize) -> Env {
        Env { index: Some(index), ..self.clone() }
    }

    /// Notes the sign of a term of a run; nothing if it had the other one elsewhere.
    pub(super) fn signed(mut self, term: &Term, index: usize, plus: bool) -> Option<Env> {
        for name in each_of(term) {
            let of = self.signs.entry(name.to_owned()).or_default();
            if *of.entry(index).or_insert(plus) != plus {
                return None;
            }
        }
        Some(self)
    }

    /// What is left behind a run of `count` terms: its variables have that many values.
    pub(super) fn ended(mut self, term: &Term, count: usize) -> Option<Env> {
        for name in each_of(term) {
            if self.each.entry(name.to_owned()).or_default().len() != count {
                return None;
            }
            self.ended.insert(name.to_owned());
        }
        Some(self)
    }

    /// Whether a term is missing, because of the variables of runs that are.
    pub(super) fn is_missing(&self, term: &Term, counts: &dyn Fn(&Value) -> bool) -> bool {
        let of_operand = |o: &Operand| match o {
            Operand::One(t) | Operand::Run(t) => self.is_missing(t, counts),
            Operand::Missing => true,
            Operand::Some(_) | Operand::Set(_) | Operand::Rest => false,
        };
        match term {
            Term::Variable { name, each: true, optional: true } => match (self.each.get(name), self.index) {
                (Some(run), Some(k)) => run.get(k).is_some_and(counts),
                (Some(run), None) => run.iter().all(counts),
                (None, _) => false,
            },
            Term::Variable { .. } | Term::Number(_) => false,
            Term::Infix("Add" | "Sub", a, b) => self.is_missing(a, counts) && self.is_missing(b, counts),
            Term::Infix(_, a, b) => self.is_missing(a, counts) || self.is_missing(b, counts),
            Term::Minus(a) => self.is_missing(a, counts),
            Term::Op(_, operands) | Term::Sum(operands) => !operands.is_empty() && operands.iter().all(of_operand),
            Term::Function(_, operands) | Term::Product(operands) | Term::Helper(_, operands) => {
                operands.iter().any(of_operand)
            }
        }
    }
}

/// The variables of a term that are others in each term of a run.
fn each_of(term: &Term) -> Vec<&str> {
    let all = term.all().into_iter();
    all.filter_map(|t| match t {
        Term::Variable { name, each: true, .. } => Some(name.as_str()),
        _ => None,
    })
    .collect()
}

pub(super) fn bind(mut env: Env, name: &str, each: bool, value: Value) -> Option<Env> {
    if !each {
        let bound = env.one.entry(name.to_owned()).or_insert_with(|| value.clone());
        return (*bound == value).then_some(env);
    }
    let index = env.index?;
    let run = env.each.entry(name.to_owned()).or_default();
    match run.get(index) {
        Some(bound) => (*bound == value).then_some(env),
        None if run.len() == index => {
            run.push(value);
            Some(env)
        }
        None => None,
    }
}
