//! Slips: what is wrong with an equation that its matches do not refuse one by one, and equations with a slip put into them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Alternative, Env, Operand, Term, Value};

/// What is wrong with an alternative, by what its variables stand for in each of its instances: two variables that are one class
/// in all of them are one variable, and what may be missing is missing in some and there in others.
#[must_use]
pub fn slips(alternative: &Alternative, instances: &[Vec<Env>]) -> Vec<String> {
    let mut out = Vec::new();
    let all: Vec<&BTreeMap<String, Value>> = instances.iter().flatten().map(Env::values).collect();
    let names: BTreeSet<&str> = all.iter().flat_map(|e| e.keys().map(String::as_str)).collect();
    for &a in &names {
        for &b in names.range(a..).skip(1) {
            let mut both = all.iter().filter_map(|e| e.get(a).zip(e.get(b))).peekable();
            if both.peek().is_some() && both.all(|(a, b)| a == b) {
                out.push(format!("{a} and {b} are always one value"));
            }
        }
    }
    let optional = |t: &&Term| matches!(t, Term::Variable { each: false, optional: true, .. });
    let terms = [&alternative.left, &alternative.right].into_iter().flat_map(Term::all);
    for name in terms.filter(optional).filter_map(name_of).collect::<BTreeSet<_>>() {
        let is_missing: BTreeSet<bool> = all.iter().map(|e| e.get(name) == Some(&Value::Missing)).collect();
        if !is_missing.contains(&true) {
            out.push(format!("{name} is never missing"));
        }
        if !is_missing.contains(&false) {
            out.push(format!("{name} is never there"));
        }
    }
    out
}

/// The alternative with each slip that one could make in it: another operator, operands the other way round, another one of
/// its variables, a new variable where there is one twice, a helper left out.
#[must_use]
pub fn with_slips(a: &Alternative) -> Vec<Alternative> {
    let every = || [&a.left, &a.right].into_iter().flat_map(Term::all);
    let of_left: BTreeSet<&str> = a.left.all().into_iter().filter_map(name_of).collect();
    let times = |name: &str| every().filter(|t| name_of(t) == Some(name)).count();
    let one = |t: &Term, is_left: bool| -> Vec<Term> {
        match t {
            Term::Variable { name, each, optional } => {
                let other = |name: &str| Term::Variable { name: name.to_owned(), each: *each, optional: *optional };
                let others = of_left.iter().filter(|o| !is_left && **o != name && of_left.contains(name.as_str()));
                let mut out: Vec<Term> = others.map(|o| other(o)).collect();
                if times(name) > 1 {
                    out.push(other("another"));
                }
                out
            }
            Term::Number(n) => vec![Term::Number(n + 1.0)],
            Term::Op(_, operands) => {
                let mut out = vec![Term::Op(vec!["Softsign".to_owned()], operands.clone())];
                if let (Term::Op(heads, _), [Operand::One(p), Operand::One(q), rest @ ..]) = (t, operands.as_slice())
                    && p != q
                    && !heads.iter().any(|h| ["Max", "Min", "Mul", "Add"].contains(&h.as_str()))
                {
                    let swapped = [Operand::One(q.clone()), Operand::One(p.clone())].into_iter();
                    out.push(Term::Op(heads.clone(), swapped.chain(rest.iter().cloned()).collect()));
                }
                out
            }
            Term::Infix(op, p, q) => {
                let ops = ["Add", "Sub", "Mul", "Div"].into_iter().filter(|o| o != op);
                let mut out: Vec<Term> = ops.map(|o| Term::Infix(o, p.clone(), q.clone())).collect();
                if ["Sub", "Div"].contains(op) {
                    out.push(Term::Infix(op, q.clone(), p.clone()));
                }
                out
            }
            Term::Minus(inner) => vec![(**inner).clone()],
            Term::Function(..) | Term::Sum(_) | Term::Product(_) => Vec::new(),
            Term::Helper(_, operands) => match operands.as_slice() {
                [Operand::One(inner), ..] => vec![inner.clone()],
                _ => Vec::new(),
            },
        }
    };
    let lefts = changed(&a.left, &|t| one(t, true)).into_iter();
    let rights = changed(&a.right, &|t| one(t, false)).into_iter();
    let with_left = lefts.map(|left| Alternative { left, right: a.right.clone() });
    with_left.chain(rights.map(|right| Alternative { left: a.left.clone(), right })).collect()
}

fn name_of(term: &Term) -> Option<&str> {
    match term {
        Term::Variable { name, .. } => Some(name),
        _ => None,
    }
}

/// The term with one of its terms changed, in each way.
fn changed(term: &Term, one: &dyn Fn(&Term) -> Vec<Term>) -> Vec<Term> {
    let mut out = one(term);
    for (k, part) in term.parts().into_iter().enumerate() {
        out.extend(changed(part, one).into_iter().map(|new| term.with_part(k, &new)));
    }
    out
}
