//! Whether the two sides of a match are an instance of the two sides of an equation.

use std::collections::BTreeSet;

use convc::rewrite::view::{Class, Expr, View, is_zero};
use convc_runtime::Op;

use super::{
    Alternative, Operand, Term,
    env::{Env, Value, bind},
};

/// The most instances that are followed at once.
pub(super) const MOST: usize = 500;

/// The sides of a match.
#[derive(Clone, Copy)]
pub struct Pair<'a> {
    /// What the classes are.
    pub view: &'a dyn View,
    /// What is there.
    pub left: &'a Expr,
    /// What may stand there instead.
    pub right: &'a Expr,
}

/// What the variables stand for in each way in which the pair is an instance of the alternative; empty if it is none.
#[must_use]
pub fn unify(alternative: &Alternative, pair: Pair<'_>) -> Vec<Env> {
    let mut optional = BTreeSet::new();
    for t in [&alternative.left, &alternative.right].into_iter().flat_map(|t| t.all()) {
        if let Term::Variable { name, each: false, optional: true } = t {
            optional.insert(name.clone());
        }
    }
    let optional: Vec<String> = optional.into_iter().collect();
    let left = Matcher { view: pair.view, is_left: true };
    let right = Matcher { view: pair.view, is_left: false };
    let mut out = Vec::new();
    // Each optional variable is there, missing, or there and 0, so that the right side has none.
    for n in 0..3usize.pow(optional.len() as u32) {
        let state = |name: &str| optional.iter().position(|o| o == name).map(|k| n / 3usize.pow(k as u32) % 3);
        let lhs = alternative.left.without(&|name| state(name) == Some(1), true);
        let rhs = alternative.right.without(&|name| state(name) != Some(0), false);
        let (Some(lhs), Some(rhs)) = (lhs, rhs) else { continue };
        let zeros: Vec<&String> = optional.iter().filter(|o| state(o) == Some(2)).collect();
        let mut env = Env::default();
        for o in optional.iter().filter(|o| state(o) == Some(1)) {
            env.one.insert(o.clone(), Value::Missing);
        }
        let found = left.term(&lhs, Some(pair.left), env);
        let fits = |e: &Env| zeros.iter().all(|z| matches!(e.one.get(*z), Some(Value::Class(c)) if left.is_zero(*c)));
        out.extend(found.into_iter().filter(fits).flat_map(|env| right.term(&rhs, Some(pair.right), env)));
    }
    out.truncate(MOST);
    out
}

pub(super) struct Matcher<'a> {
    pub(super) view: &'a dyn View,
    pub(super) is_left: bool,
}

impl Matcher<'_> {
    pub(super) fn is_zero(&self, class: Class) -> bool {
        is_zero(self.view, class) == Some(true)
    }

    /// Whether the right side need not have the term: what it is computed from is missing, or 0 and may be missing.
    pub(super) fn may_be_missing(&self, term: &Term, env: &Env) -> bool {
        env.is_missing(term, &|v| match v {
            Value::Missing => true,
            Value::Class(c) => self.is_zero(*c),
            Value::Made(_) => false,
        })
    }

    /// Whether the term is missing.
    pub(super) fn is_missing(&self, term: &Term, env: &Env) -> bool {
        env.is_missing(term, &|v| *v == Value::Missing)
    }

    pub(super) fn term(&self, term: &Term, expr: Option<&Expr>, env: Env) -> Vec<Env> {
        let Some(expr) = expr else {
            return match term {
                Term::Variable { name, each, optional: true } => {
                    let known = if *each { self.may_be_missing(term, &env) } else { false };
                    if known { vec![env] } else { bind(env, name, *each, Value::Missing).into_iter().collect() }
                }
                _ if self.may_be_missing(term, &env) => vec![env],
                _ => Vec::new(),
            };
        };
        let found = self.as_written(term, expr, env.clone());
        let bare = self.bare(expr);
        if !found.is_empty() || self.is_left || bare == *expr { found } else { self.as_written(term, &bare, env) }
    }

    fn as_written(&self, term: &Term, expr: &Expr, env: Env) -> Vec<Env> {
        match term {
            Term::Variable { name, each, .. } => {
                let value = self.value(expr).filter(|v| self.may_be(name, *each, v, &env));
                value.and_then(|v| bind(env, name, *each, v)).into_iter().collect()
            }
            Term::Number(n) => Vec::from_iter(self.is_number(expr, *n).then_some(env)),
            Term::Op(heads, operands) => self.operator(heads, operands, expr, env),
            Term::Infix(op, a, b) => {
                let left = match (*op, self.is_missing(a, &env), self.is_missing(b, &env)) {
                    (_, false, false) => {
                        let operands = [a, b].map(|t| Operand::One((**t).clone()));
                        return self.operator(&[(*op).to_owned()], &operands, expr, env);
                    }
                    ("Add" | "Sub", false, true) => (**a).clone(),
                    ("Add", true, false) => (**b).clone(),
                    ("Sub", true, false) => Term::Minus(b.clone()),
                    _ => return Vec::new(),
                };
                self.term(&left, Some(expr), env)
            }
            Term::Minus(inner) => self.minus(inner, expr, &env),
            Term::Function(name, operands) => self.function(name, operands, expr, env),
            Term::Sum(operands) => self.sum(operands, expr, env),
            Term::Product(operands) => self.product(operands, expr, env),
            Term::Helper(name, operands) => self.helper(name, operands, expr, &env),
        }
    }

    /// What a variable would stand for.
    fn value(&self, expr: &Expr) -> Option<Value> {
        match expr {
            Expr::Class(c) => Some(Value::Class(*c)),
            made => (!self.is_left && made.classes().is_empty()).then(|| Value::Made(self.bare(made))),
        }
    }

    /// Whether a variable may stand for a value: one that is new on the right only for what the rule makes, and `x`, `y` and `z`
    /// for no constant.
    fn may_be(&self, name: &str, each: bool, value: &Value, env: &Env) -> bool {
        if each {
            // A run that has ended has no further terms.
            let length = env.each.get(name).map_or(0, Vec::len);
            let is_open = self.is_left && !env.ended.contains(name);
            if !is_open && env.index.is_none_or(|i| i >= length) {
                return false;
            }
        }
        let is_known = each || env.one.contains_key(name);
        match value {
            Value::Class(c) => {
                (is_known || self.is_left) && !(["x", "y", "z"].contains(&name) && self.view.is_constant(*c))
            }
            Value::Made(_) | Value::Missing => true,
        }
    }

    fn is_number(&self, expr: &Expr, n: f64) -> bool {
        let constant = match expr {
            Expr::Constant(c) => Some(c),
            Expr::Class(c) => self.view.constant(*c),
            Expr::Op(..) => None,
        };
        let Some(tensor) = constant.and_then(|c| c.to_tensor().ok()) else { return false };
        match (tensor.to_f64s(), tensor.to_i64s()) {
            (Some(v), _) => v.iter().all(|&x| x == n),
            (None, Some(v)) => v.iter().all(|&x| x as f64 == n),
            _ => false,
        }
    }

    fn is_constant(&self, expr: &Expr) -> bool {
        expr.classes().into_iter().all(|c| self.view.is_constant(c))
    }

    /// What is computed from constants, without shapes that it is given and products that spread it.
    pub(super) fn bare(&self, expr: &Expr) -> Expr {
        if let (true, Expr::Op(op, operands)) = (self.is_constant(expr), expr) {
            match (op.name(), operands.as_slice()) {
                ("Reshape", [Some(inner), ..]) => return self.bare(inner),
                ("Mul", [Some(inner), Some(one)]) if self.is_number(&self.bare(one), 1.0) => return self.bare(inner),
                _ => {}
            }
        }
        expr.clone()
    }

    /// The operator at the root and its operands. A class that the match does not spell out is looked into.
    fn application(&self, expr: &Expr) -> Option<(Op, Vec<Option<Expr>>)> {
        match expr {
            Expr::Op(op, operands) => Some(((**op).clone(), operands.clone())),
            Expr::Class(c) => {
                let app = self.view.apps(*c).pop()?;
                Some((app.op.clone(), app.operands.iter().map(|o| o.map(Expr::Class)).collect()))
            }
            Expr::Constant(_) => None,
        }
    }

    fn operator(&self, heads: &[String], operands: &[Operand], expr: &Expr, env: Env) -> Vec<Env> {
        let Some((op, actual)) = self.application(expr) else { return Vec::new() };
        let mut env = env;
        let fits = |h: &String| h.strip_suffix('*').map_or(h == op.name(), |p| op.name().starts_with(p));
        if !heads.iter().any(fits) {
            return Vec::new();
        }
        if heads.len() > 1 || heads[0].ends_with('*') {
            let chosen = env.heads.entry((heads.join("|"), env.index)).or_insert_with(|| op.name());
            if *chosen != op.name() {
                return Vec::new();
            }
        }
        let mut out = self.operands(operands, &actual, env.clone());
        let commutes = ["Add", "Mul", "Max", "Min", "Sum"].contains(&op.name());
        if let ([a, b], [Operand::One(_), Operand::One(_)], true) = (actual.as_slice(), operands, commutes) {
            out.extend(self.operands(operands, &[b.clone(), a.clone()], env));
        }
        out.truncate(MOST);
        out
    }

    fn minus(&self, inner: &Term, expr: &Expr, env: &Env) -> Vec<Env> {
        let Some((op, operands)) = self.application(expr) else { return Vec::new() };
        let of = |e: &Expr| self.term(inner, Some(e), env.clone());
        let is = |e: &Expr, n: f64| self.is_number(&self.bare(e), n);
        match (op.name(), operands.as_slice()) {
            ("Neg", [Some(a)]) => of(a),
            ("Sub", [Some(zero), Some(a)]) if is(zero, 0.0) => of(a),
            ("Mul", [Some(a), Some(b)]) if is(b, -1.0) => of(a),
            ("Mul", [Some(a), Some(b)]) if is(a, -1.0) => of(b),
            _ => Vec::new(),
        }
    }

    /// Whether the equation need not speak of an operand: it is a constant, or about shapes.
    fn is_aside(&self, operand: Option<&Expr>) -> bool {
        operand.is_none_or(|e| {
            let about_shapes = |c: Class| self.view.fact(c).is_some_and(|f| !f.dtype.is_float());
            e.classes().into_iter().all(|c| self.view.is_constant(c) || about_shapes(c))
        })
    }

    fn operands(&self, wanted: &[Operand], actual: &[Option<Expr>], env: Env) -> Vec<Env> {
        let Some((first, rest)) = wanted.split_first() else {
            return Vec::from_iter(actual.iter().all(Option::is_none).then_some(env));
        };
        let mut out = Vec::new();
        let (expr, behind) = actual.split_first().map_or((None, actual), |(e, r)| (e.as_ref(), r));
        match first {
            Operand::Rest => out.extend(actual.iter().all(|a| self.is_aside(a.as_ref())).then_some(env)),
            Operand::Missing => {
                if expr.is_none() {
                    out.extend(self.operands(rest, behind, env));
                }
            }
            Operand::One(term) => {
                for env in self.term(term, expr, env) {
                    out.extend(self.operands(rest, behind, env));
                }
            }
            Operand::Run(term) => {
                let least = usize::from(!matches!(term, Term::Variable { .. }));
                let mut runs = vec![env];
                for count in 0..=actual.len() {
                    if count > 0 {
                        let expr = actual[count - 1].as_ref();
                        runs = runs.into_iter().flat_map(|e| self.in_run(count - 1, term, expr, e)).collect();
                    }
                    if count >= least {
                        let ended = runs.iter().filter_map(|e| e.clone().ended(term, count));
                        out.extend(ended.flat_map(|e| self.operands(rest, &actual[count..], e)));
                    }
                    if runs.is_empty() {
                        break;
                    }
                }
            }
            Operand::Some(_) | Operand::Set(_) => {}
        }
        out.truncate(MOST);
        out
    }

    /// A term of a run of operands, where a constant 0 may stand for what is missing.
    fn in_run(&self, index: usize, term: &Term, expr: Option<&Expr>, env: Env) -> Vec<Env> {
        let zero = expr.is_some_and(|e| self.is_number(&self.bare(e), 0.0));
        if !self.is_left && zero && self.may_be_missing(term, &env.indexed(index)) {
            return vec![env];
        }
        self.at(index, term, expr, env)
    }

    /// A term of a run.
    pub(super) fn at(&self, index: usize, term: &Term, expr: Option<&Expr>, env: Env) -> Vec<Env> {
        let outer = env.index;
        let found = self.term(term, expr, Env { index: Some(index), ..env });
        found.into_iter().map(|e| Env { index: outer, ..e }).collect()
    }

    fn function(&self, name: &str, wanted: &[Operand], expr: &Expr, env: Env) -> Vec<Env> {
        let Some((op, actual)) = self.application(expr) else { return Vec::new() };
        if actual.len() < wanted.len() {
            return Vec::new();
        }
        let (own, further) = actual.split_at(wanted.len());
        let class = |o: &Option<Expr>| match o {
            None => Some(None),
            Some(Expr::Class(c)) => Some(Some(*c)),
            Some(_) => None,
        };
        let Some(further) = further.iter().map(class).collect::<Option<Vec<_>>>() else { return Vec::new() };
        let is = (op, further);
        if env.functions.get(name).is_some_and(|f| *f != is) {
            return Vec::new();
        }
        let mut env = env;
        env.functions.insert(name.to_owned(), is);
        self.operands(wanted, own, env)
    }
}
