//! Every rule's equation is true of every match that its generator and the goldens give, and would not be with a slip in it.

use std::{collections::BTreeSet, fmt::Write, rc::Rc};

use convc::{
    ir::{Graph, Value, text::parse as read},
    rewrite::{
        engine::Engine,
        rule::{Cx, Match, Rule},
        rules as registry,
        view::{Expr, View},
    },
};
use convc_tests::{
    equations::{Alternative, Env, HELPERS, Pair, Term, parse, slips, unify, with_slips},
    filetests,
    random::Rng,
    subjects::SUBJECTS,
};

/// A match, in the graph that it was found in.
struct Found {
    engine: Rc<Engine>,
    pair: Match,
}

impl Found {
    fn unify(&self, alternative: &Alternative) -> Vec<Env> {
        unify(alternative, Pair { view: &self.engine.terms, left: &self.pair.lhs, right: &self.pair.rhs })
    }

    fn show(&self) -> String {
        let view: &dyn View = &self.engine.terms;
        format!("{} => {}", show(view, &self.pair.lhs), show(view, &self.pair.rhs))
    }
}

/// The equation read.
fn equation(rule: &Rule) -> Vec<Alternative> {
    parse(rule.equation).unwrap_or_else(|e| panic!("{}: {e} in `{}`", rule.name, rule.equation))
}

/// A term as text, with the classes by their numbers: `c` for constants, `x` for others.
fn show(view: &dyn View, e: &Expr) -> String {
    match e {
        Expr::Class(c) if view.is_constant(*c) => format!("c{}", c.0),
        Expr::Class(c) => format!("x{}", c.0),
        Expr::Constant(_) => "#".to_owned(),
        Expr::Op(op, operands) => {
            let each: Vec<String> = operands.iter().map(|o| o.as_ref().map_or("_".into(), |o| show(view, o))).collect();
            format!("{}({})", op.name(), each.join(", "))
        }
    }
}

/// Every match of a rule in a graph.
fn search(rule: &'static Rule, graph: &Graph, out: &mut Vec<Found>) {
    let engine = Rc::new(Engine::new(graph.clone()));
    for id in engine.graph.topological() {
        let node = engine.graph.node(id);
        if node.outputs() != 1 || !node.op().is_some_and(|op| rule.roots.contains(&op.name())) {
            continue;
        }
        let class = engine.term(Value { node: id, port: 0 }).class();
        let Some(app) = engine.terms.apps(class).pop() else { continue };
        let matches = Cx::search(&engine.terms, rule, class, &app, None).0;
        out.extend(matches.into_iter().map(|pair| Found { engine: Rc::clone(&engine), pair }));
    }
}

/// Matches of a rule: of all goldens that ask for it, and of graphs of its generator until there are as many as `wanted`.
fn matches(rule: &'static Rule, wanted: usize) -> Vec<Found> {
    let mut out = Vec::new();
    for golden in filetests::all().iter().filter(|t| t.only.iter().any(|n| n == rule.name)) {
        search(rule, &golden.graph, &mut out);
    }
    let of_goldens = out.len();
    let subject = SUBJECTS.iter().find(|s| s.rule == rule.name).expect("every rule has a generator");
    for seed in 1..50 * wanted as u64 {
        if out.len() >= wanted + of_goldens {
            break;
        }
        if let Ok(graph) = read(&(subject.generate)(&mut Rng::new(seed))) {
            search(rule, &graph, &mut out);
        }
    }
    assert!(!out.is_empty(), "{} has no match", rule.name);
    out
}

/// How many matches of generators are tried: enough for every alternative, with and without what may be missing.
const CASES: usize = 200;

/// Matches of a rule with its equation, and which of them are instances of each alternative.
struct Tried {
    found: Vec<Found>,
    alternatives: Vec<Alternative>,
}

impl Tried {
    fn new(rule: &'static Rule, wanted: usize) -> Tried {
        Tried { found: matches(rule, wanted), alternatives: equation(rule) }
    }

    /// Whether the matches refuse another text of alternative `k`.
    fn refuses(&self, k: usize, other: &Alternative) -> bool {
        let mut instances = Vec::new();
        for f in &self.found {
            let found = f.unify(other);
            let mut others = self.alternatives.iter().enumerate().filter(|(j, _)| *j != k);
            if found.is_empty() && !others.any(|(_, a)| !f.unify(a).is_empty()) {
                return true;
            }
            instances.extend((!found.is_empty()).then_some(found));
        }
        instances.is_empty() || !slips(other, &instances).is_empty()
    }

    /// What is wrong with these alternatives; at most one match that is no instance of any is named.
    fn problems(&self, alternatives: &[Alternative]) -> Vec<String> {
        let mut instances: Vec<Vec<Vec<Env>>> = vec![Vec::new(); alternatives.len()];
        for f in &self.found {
            let mut is_instance = false;
            for (a, of) in alternatives.iter().zip(&mut instances) {
                let found = f.unify(a);
                is_instance |= !found.is_empty();
                of.extend((!found.is_empty()).then_some(found));
            }
            if !is_instance {
                return vec![format!("it is not true of {}", f.show())];
            }
        }
        let mut out = Vec::new();
        for (k, (a, of)) in alternatives.iter().zip(&instances).enumerate() {
            let wrong = if of.is_empty() { vec!["no match is an instance of it".to_owned()] } else { slips(a, of) };
            out.extend(wrong.into_iter().map(|w| format!("alternative {}: {w}", k + 1)));
        }
        out
    }
}

#[test]
fn every_match_is_an_instance_of_its_equation() {
    let mut problems = String::new();
    for rule in registry::all() {
        let tried = Tried::new(rule, CASES);
        for p in tried.problems(&tried.alternatives) {
            let _ = writeln!(problems, "{}: `{}`: {p}", rule.name, rule.equation);
        }
    }
    assert!(problems.is_empty(), "{problems}");
}

/// No equation stays true if one thing in it is changed.
#[test]
fn every_equation_with_a_slip_is_refused() {
    let mut problems = String::new();
    let mut count = 0;
    for rule in registry::all() {
        let tried = Tried::new(rule, CASES / 4);
        for k in 0..tried.alternatives.len() {
            for wrong in with_slips(&tried.alternatives[k]) {
                count += 1;
                if !tried.refuses(k, &wrong) {
                    let _ =
                        writeln!(problems, "{}: alternative {} of `{}` as {wrong}", rule.name, k + 1, rule.equation);
                }
            }
        }
    }
    assert!(problems.is_empty(), "these are as true:\n{problems}");
    assert!(count > 1000, "only {count} equations with a slip were tried");
}

/// Slips of each kind in equations that people know.
#[test]
fn known_equations_with_a_slip_are_refused() {
    let cases = [
        // A product where the rule writes a sum, and the other way round.
        ("shift-as-conv", 0, "x * t => Conv(x, 1, t)"),
        (
            "product-add",
            0,
            "MatMul|Gemm(x, w1, c1?) + Gemm|MatMul(x, w2, c2?) => Gemm(x, w1 * transposed(w2), c1? + c2?)",
        ),
        ("scale-into-matmul", 0, "MatMul(x, w) * s => MatMul(x, w + s)"),
        // A difference the other way round.
        ("shift-as-conv", 2, "x - t => Conv(x, -1, t)"),
        // Another root, and another operator inside.
        ("relu-relu", 0, "Sigmoid(Relu(x)) => Relu(x)"),
        ("focus", 0, "Conv(DepthToSpace(x), w, b?) => Conv(x, DepthToSpace(w), b?)"),
        // One variable for two values.
        ("conv-compose", 0, "Conv(Conv(x, w1, b?), w2, b?) => Conv(x, compose(w1, w2), b? + response(w2, b?))"),
        ("cat-group", 0, "Concat(Conv(x, w[i], b[i]?)..) => Conv(Concat(x), Concat(w[i]..), Concat(b[i]?..))"),
        // Two variables for one value.
        ("cat-out", 0, "Concat(Conv(x[i], w[i], b[i]?)..) => Conv(y, Concat(embedded(w[i])..), Concat(b[i]?..))"),
        ("swish", 0, "product(x, Sigmoid(affine(y))) => Swish(x)"),
        // The other one of two values.
        ("conv-compose", 0, "Conv(Conv(x, w1, b1?), w2, b2?) => Conv(x, compose(w1, w2), b1? + response(w2, b2?))"),
        // A bias that is forgotten, a helper that is forgotten, and one too many.
        ("pad-into-conv", 0, "Conv(Pad(x, ..), w, b) => Conv(x, w, b)"),
        ("slice-in", 0, "Conv(Slice(x, ..), w, b?) => Conv(x, w, b?)"),
        ("stride-slice", 0, "Slice(Conv(x, w, b?), ..) => Conv(x, slice(w), b?)"),
    ];
    for (name, k, text) in cases {
        let rule = registry::find(name).unwrap_or_else(|| panic!("there is no rule {name}"));
        let wrong = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert!(Tried::new(rule, 60).refuses(k, &wrong[0]), "{name}: `{text}` is not refused");
    }
}

#[test]
fn the_heads_of_an_equation_are_the_roots_of_its_rule() {
    let mut problems = String::new();
    for rule in registry::all() {
        let mut heads: BTreeSet<&str> = BTreeSet::new();
        let mut is_open = false;
        let alternatives = equation(rule);
        for a in &alternatives {
            let allowed: Vec<&str> = match &a.left {
                Term::Op(names, _) => names.iter().map(String::as_str).collect(),
                Term::Infix(op, ..) => vec![op],
                Term::Sum(_) => vec!["Add", "Sub", "Sum"],
                Term::Product(_) => vec!["Mul", "Div"],
                // What is read by its meaning begins with one of several operators.
                Term::Helper(name, _) => {
                    let helper = HELPERS.iter().find(|h| h.name == name);
                    helper.map(|h| [h.has, h.may_have].concat()).unwrap_or_default()
                }
                Term::Function(..) => {
                    is_open = true;
                    Vec::new()
                }
                Term::Variable { .. } | Term::Number(_) | Term::Minus(_) => Vec::new(),
            };
            // A name with a `*` stands for those that begin so.
            let meant = |n: &str, root: &str| n.strip_suffix('*').map_or(n == root, |p| root.starts_with(p));
            let of = |n: &str| rule.roots.iter().copied().filter(|r| meant(n, r)).collect::<Vec<_>>();
            let is_exact = matches!(&a.left, Term::Op(..) | Term::Infix(..));
            for name in allowed {
                if is_exact && of(name).is_empty() {
                    let _ = writeln!(problems, "{}: {name} is no root of `{}`", rule.name, rule.equation);
                }
                heads.extend(of(name));
            }
        }
        let missing: Vec<&&str> = rule.roots.iter().filter(|r| !is_open && !heads.contains(**r)).collect();
        if !missing.is_empty() {
            let _ = writeln!(problems, "{}: `{}` does not begin with the roots {missing:?}", rule.name, rule.equation);
        }
    }
    assert!(problems.is_empty(), "{problems}");
}

#[test]
fn every_helper_is_used() {
    let mut used = BTreeSet::new();
    for a in registry::all().into_iter().flat_map(equation) {
        for t in [&a.left, &a.right].into_iter().flat_map(Term::all) {
            if let Term::Helper(name, _) = t {
                used.insert(name.clone());
            }
        }
    }
    let unused: Vec<&str> = HELPERS.iter().map(|h| h.name).filter(|n| !used.contains(*n)).collect();
    assert!(unused.is_empty(), "no equation has {unused:?}");
}
