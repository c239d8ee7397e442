//! Helpers: terms that are named by what they are made of.

use std::collections::BTreeSet;

use convc::rewrite::view::{Class, Expr};

use super::{
    Operand, Term,
    env::Env,
    unify::{MOST, Matcher},
};

/// A helper.
pub struct Helper {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub text: &'static str,
    /// The operators that it has.
    pub has: &'static [&'static str],
    /// The operators that it may have beside those.
    pub may_have: &'static [&'static str],
}

const fn row(
    name: &'static str,
    text: &'static str,
    has: &'static [&'static str],
    may_have: &'static [&'static str],
) -> Helper {
    Helper { name, text, has, may_have }
}

/// The helpers. Those that are functions of `rules::weights` have their names.
pub const HELPERS: &[Helper] = &[
    // Functions of `rules::weights`.
    row(
        "embedded",
        "a kernel inside a larger one of zeros",
        &[],
        &["Pad", "Reshape", "Concat", "Mul", "Expand", "Transpose"],
    ),
    row("compose", "the kernel of one convolution behind another one", &["ConvTranspose"], &["Reshape", "Transpose"]),
    row(
        "response",
        "what a kernel makes of a constant in each of its input channels",
        &["ReduceSum"],
        &["Conv", "Mul", "Reshape", "Transpose"],
    ),
    row("zero_pad", "zeros around it", &["Pad"], &[]),
    // What families of rules make of kernels, biases and coefficients.
    row("slice", "neighbours along an axis", &["Slice"], &[]),
    row("gather", "elements along an axis in another order", &["Gather"], &[]),
    row("transposed", "a matrix, or its transpose if the operator says so", &[], &["Transpose", "Reshape"]),
    row(
        "joined",
        "the product of two kernels, one of which has a single tap",
        &[],
        &["Conv", "Mul", "Transpose", "Reshape"],
    ),
    row("diagonal", "the blocks on the diagonal of a kernel, one below the other", &["ReduceSum", "Mul"], &["Reshape"]),
    row("collapsed", "the kernel that two factors make", &["MatMul"], &["Reshape", "Transpose"]),
    row(
        "parts",
        "parts of the values, one behind the other, under some shape",
        &[],
        &["Slice", "Gather", "Concat", "Reshape", "Unsqueeze", "Squeeze", "Transpose", "Split", "Flatten", "Expand"],
    ),
    row(
        "scaled",
        "parts of the values, each times a number, one behind the other",
        &[],
        &["Mul", "Slice", "Gather", "Concat", "Reshape", "Transpose"],
    ),
    // What rules read by its meaning.
    row(
        "filled",
        "a tensor all of whose elements are one number",
        &["ConstantOfShape"],
        &["Reshape", "Squeeze", "Unsqueeze", "Expand"],
    ),
    row("viewed", "the elements under another shape", &[], &["Reshape", "Squeeze", "Unsqueeze", "Flatten"]),
    row("arranged", "the elements under another shape and in another order", &[], &["Reshape", "Transpose", "Gather"]),
    row("affine", "a constant times the value plus a constant", &[], &["Mul", "Div", "Add", "Sub", "Neg"]),
    row("cubic", "a polynomial of the value of degree 3", &[], &["Mul", "Div", "Add", "Sub", "Pow"]),
    row("softplus", "log(1 + exp(x))", &[], &["Softplus", "Log", "Exp", "Add", "Sub"]),
    row("clamped", "a Relu or a Clip of the value, or the value", &[], &["Relu", "Clip"]),
    row("activated", "an activation of the value, or the value", &[], &["Relu", "Clip"]),
    row(
        "bordered",
        "a map with a constant border around it",
        &[],
        &["Pad", "ScatterND", "Where", "Transpose", "Concat"],
    ),
    row("picked", "channels of a map in another order", &[], &["Gather", "Reshape", "Transpose", "Concat", "Slice"]),
    row(
        "blocks",
        "the elements of each block of the map as channels, in some order",
        &[],
        &["Reshape", "Transpose", "Concat", "Slice"],
    ),
    row("row", "the one row that all rows of the matrix are", &[], &["Expand", "Slice", "Gather", "Reshape"]),
    row(
        "mixed",
        "the sum of each expert's kernel or bias times its coefficient",
        &[],
        &[
            "MatMul",
            "Mul",
            "Add",
            "Sum",
            "Gemm",
            "Einsum",
            "ReduceSum",
            "Gather",
            "Slice",
            "Reshape",
            "Transpose",
            "Concat",
            "Squeeze",
            "Unsqueeze",
            "Expand",
            "Conv",
        ],
    ),
    row(
        "ghosts",
        "a convolution's result and a cheap convolution of it, one behind the other along channels",
        &[],
        &["Concat", "Slice", "Gather", "Relu", "Clip"],
    ),
    row("resized", "a map at the sizes of another one", &["Resize"], &["Concat", "Slice", "Gather"]),
    row(
        "pooled",
        "the mean of a sum of parts over all positions",
        &[],
        &[
            "GlobalAveragePool",
            "AveragePool",
            "ReduceMean",
            "ReduceSum",
            "Add",
            "Sum",
            "Slice",
            "Gather",
            "Reshape",
            "Transpose",
            "Relu",
        ],
    ),
    row(
        "attended",
        "the sum of a convolution's parts, each weighed by a softmax over the parts",
        &["Mul"],
        &["Add", "Sub", "Sum", "ReduceSum", "Softmax", "Sigmoid", "Slice", "Gather", "Reshape", "Transpose", "Relu"],
    ),
    row(
        "patches",
        "the sum over a window of elements times the kernel of their place",
        &[],
        &[
            "Mul",
            "ReduceSum",
            "Einsum",
            "MatMul",
            "Add",
            "Sum",
            "Reshape",
            "Transpose",
            "Conv",
            "Gather",
            "Slice",
            "Pad",
            "Concat",
            "Squeeze",
            "Unsqueeze",
        ],
    ),
];

/// What is read of a helper's term so far.
#[derive(Clone, PartialEq)]
struct Reading {
    env: Env,
    /// The operands that were met, by their places, and by their indices in a run.
    met: BTreeSet<(usize, usize)>,
    /// The operators that were met.
    has: BTreeSet<&'static str>,
}

impl Matcher<'_> {
    pub(super) fn helper(&self, name: &str, operands: &[Operand], expr: &Expr, env: &Env) -> Vec<Env> {
        let Some(helper) = HELPERS.iter().find(|h| h.name == name) else { return Vec::new() };
        let start = Reading { env: env.clone(), met: BTreeSet::new(), has: BTreeSet::new() };
        let mut out: Vec<Env> = Vec::new();
        for found in self.read(helper, operands, expr, start) {
            if helper.has.iter().all(|h| found.has.contains(h)) && self.is_whole(operands, &found) {
                out.push(found.env);
            }
        }
        out
    }

    /// Whether all operands were met.
    fn is_whole(&self, operands: &[Operand], reading: &Reading) -> bool {
        operands.iter().enumerate().all(|(k, o)| match o {
            Operand::One(t) => reading.met.contains(&(k, 0)) || self.may_be_missing(t, &reading.env),
            Operand::Run(t) => reading.env.length(t).is_some_and(|n| {
                (0..n).all(|i| reading.met.contains(&(k, i)) || self.may_be_missing(t, &reading.env.indexed(i)))
            }),
            Operand::Set(name) => {
                let set = reading.env.sets.get(name).map_or(0, BTreeSet::len);
                set > 0 && (self.is_left || reading.met.iter().filter(|m| m.0 == k).count() == set)
            }
            Operand::Some(_) => reading.met.iter().any(|m| m.0 == k),
            Operand::Rest => true,
            Operand::Missing => false,
        })
    }

    fn read(&self, helper: &Helper, operands: &[Operand], expr: &Expr, reading: Reading) -> Vec<Reading> {
        let mut out = Vec::new();
        let met = |env: Env, place: (usize, usize)| {
            let mut next = Reading { env, ..reading.clone() };
            next.met.insert(place);
            next
        };
        let sets = operands.iter().filter(|o| matches!(o, Operand::Set(_))).count();
        let mut set = 0;
        for (k, o) in operands.iter().enumerate() {
            match o {
                Operand::One(t) => {
                    let aside =
                        matches!((t, expr), (Term::Variable { .. }, Expr::Class(c)) if self.is_about_shapes(*c));
                    if !aside {
                        let found = self.term(t, Some(expr), reading.env.clone());
                        out.extend(found.into_iter().map(|e| met(e, (k, 0))));
                    }
                }
                Operand::Run(t) | Operand::Some(t) => {
                    // What is the same in several terms of the run is there for all of them.
                    let is = |i: &usize| !self.at(*i, t, Some(expr), reading.env.clone()).is_empty();
                    let same: Vec<usize> = (0..reading.env.length(t).unwrap_or(0)).filter(is).collect();
                    if !same.is_empty() {
                        let mut next = reading.clone();
                        next.met.extend(same.into_iter().map(|i| (k, i)));
                        out.push(next);
                    }
                }
                Operand::Set(name) => {
                    let Expr::Class(c) = expr else { continue };
                    let place = usize::from(self.view.is_constant(*c));
                    let mut env = reading.env.clone();
                    let known = env.sets.entry(name.clone()).or_default();
                    if self.is_left && !self.is_about_shapes(*c) && (sets < 2 || place == set) {
                        known.insert(*c);
                    }
                    if let Some(at) = known.iter().position(|s| s == c) {
                        out.push(met(env, (k, at)));
                    }
                    set += 1;
                }
                Operand::Rest | Operand::Missing => {}
            }
        }
        let open = operands.contains(&Operand::Rest);
        match expr {
            Expr::Constant(_) => out.push(reading),
            Expr::Class(c) => {
                let aside = self.is_about_shapes(*c) || (self.is_left && self.view.is_constant(*c) && sets < 2);
                if open || aside {
                    out.push(reading);
                }
            }
            Expr::Op(..) if self.is_size(expr) => out.push(reading),
            Expr::Op(op, inner) => {
                if helper.has.contains(&op.name()) || helper.may_have.contains(&op.name()) {
                    let mut readings = vec![reading];
                    readings[0].has.insert(op.name());
                    for o in inner.iter().flatten() {
                        let all = readings.into_iter().flat_map(|r| self.read(helper, operands, o, r));
                        // What is read in several ways is no more than what is read.
                        let mut apart: Vec<Reading> = Vec::new();
                        for r in all {
                            if !apart.contains(&r) {
                                apart.push(r);
                            }
                        }
                        readings = apart;
                        readings.truncate(MOST);
                    }
                    out.extend(readings);
                }
            }
        }
        out
    }

    /// Whether the term is computed from sizes alone.
    fn is_size(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Constant(c) => !c.dtype().is_float(),
            Expr::Class(c) => self.is_about_shapes(*c),
            Expr::Op(op, _) if ["Shape", "Size"].contains(&op.name()) => true,
            Expr::Op(op, operands) => {
                op.name() != "ConstantOfShape" && operands.iter().flatten().all(|o| self.is_size(o))
            }
        }
    }

    /// Shapes, indices and bounds of slices.
    fn is_about_shapes(&self, class: Class) -> bool {
        self.view.fact(class).is_some_and(|f| !f.dtype.is_float())
    }
}
