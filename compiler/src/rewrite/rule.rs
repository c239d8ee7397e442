//! Rules as values: a name, an equation, named conditions, an exactness class, and a search.
//!
//! A rule is a function over a [`View`], so the same rule rewrites a graph in place, saturates an e-graph, and is checked
//! again on the terms of a trace.

use std::fmt;

use convc_runtime::Op;

pub use super::verdict::Verdict;
use super::{
    magnitude::finite_weights,
    types::Types,
    view::{App, Class, Expr, View},
};

/// In what sense both sides of a rule are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Exactness {
    /// Bit for bit.
    Bitwise,
    /// Over the real numbers, with the operations in another order.
    Reassociated,
    /// By an identity between functions.
    Analytic,
}

impl fmt::Display for Exactness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Exactness::Bitwise => "bitwise",
            Exactness::Reassociated => "reassociated",
            Exactness::Analytic => "analytic",
        })
    }
}

/// When a rule is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// On the graph itself, wherever it matches: the right side is never worse, and no other rule needs the left one.
    Normalise,
    /// In the e-graph of a region; cost decides.
    Explore,
    /// On the graph, before exploring and again once the other phases have come to rest: the right side is one operator that
    /// stands for all of the left one, which must not be needed otherwise. The left expression spells out every operator that
    /// is replaced.
    Recognise,
}

/// A named soundness condition of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    /// Its name, unique within the rule.
    pub name: &'static str,
    /// What it says.
    pub text: &'static str,
}

/// The condition that every rule has and none lists: [`Cx::search`] checks it before the rule's own search runs.
pub const ELEMENT_TYPE: Condition = Condition {
    name: "element-type",
    text: "the rule is exact at the element type of the value at its root, which is also that of the maps it is about",
};

/// The condition on what a rule computes from constants, which every rule has and none lists: [`Cx::rewrite`] checks it.
pub const FINITE_WEIGHTS: Condition = Condition {
    name: "finite-weights",
    text: "every number that is computed from constants is a finite one of its type and does not vanish there, and no factor is \
           so large that the model itself may overflow behind it",
};

/// The condition on the operators that a rule brings in, which every rule has and none lists: [`Cx::rewrite`] checks it.
pub const EXECUTED: Condition = Condition {
    name: "is-executed",
    text: "each operator that is brought in is one of the model at this element type, or ONNX Runtime's CPU provider executes it",
};

/// One rewrite rule.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Its name, unique.
    pub name: &'static str,
    /// `left => right` as a mathematician would write it, in the grammar of `tests/src/equations/mod.rs`. Tests unify it with
    /// the matches that the search finds.
    pub equation: &'static str,
    /// The soundness conditions.
    pub conditions: &'static [Condition],
    /// In what sense the sides are equal.
    pub exactness: Exactness,
    /// The element types of the value at the root for which the sides are equal in that sense: bit for bit for all types that
    /// are not floating-point, whose sums and products wrap and whose quotients are truncated. The other values of the left
    /// side have the same type, since no rule looks through an operator whose result has another type than the map it takes
    /// (a Cast, a comparison, a Shape); operands that an operator takes at a type of its own, such as shapes, indices and
    /// masks, are not spoken of.
    pub types: Types,
    /// Why it is worth having.
    pub pays: &'static str,
    /// When it is tried.
    pub phase: Phase,
    /// Whether it folds what acts on each channel by itself into the convolution before or behind it. A model with
    /// BatchNormalizations is also looked through, for what the rules of [`Phase::Recognise`] find, with these rules applied.
    pub folds: bool,
    /// Terms worth having in an e-graph beside those of the classes that are there, so that the rule finds what is equal to
    /// them. They state nothing by themselves.
    pub proposals: Option<fn(&dyn View, &[Class]) -> Vec<Expr>>,
    /// The operators at the root of the left side.
    pub roots: &'static [&'static str],
    /// Finds the rewrites of one application of a root operator.
    pub search: fn(&mut Cx<'_>, Class, &App<'_>),
}

/// A place where a rule applies.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    /// What is there.
    pub lhs: Expr,
    /// What may stand there instead.
    pub rhs: Expr,
    /// The conditions that were found to hold.
    pub conditions: Vec<&'static str>,
}

/// A place where a rule's shape matched but a condition did not hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Miss {
    /// The rule.
    pub rule: &'static str,
    /// The root of the left side.
    pub class: Class,
    /// The condition.
    pub condition: &'static str,
    /// Why it does not hold, or what is missing to know.
    pub reason: String,
}

/// What a rule's search works with: the view, and where it puts what it finds.
pub struct Cx<'a> {
    /// The values.
    pub view: &'a dyn View,
    rule: &'static Rule,
    class: Class,
    held: Vec<&'static str>,
    forced: Option<&'static str>,
    matches: Vec<Match>,
    misses: Vec<Miss>,
}

impl<'a> Cx<'a> {
    /// Searches one application for a rule. A condition named `forced` counts as holding: for tests that show it is needed.
    pub fn search(
        view: &'a dyn View,
        rule: &'static Rule,
        class: Class,
        app: &App<'_>,
        forced: Option<&'static str>,
    ) -> (Vec<Match>, Vec<Miss>) {
        let mut cx = Cx { view, rule, class, held: Vec::new(), forced, matches: Vec::new(), misses: Vec::new() };
        // A search takes its operator and its element type for granted.
        if rule.roots.contains(&app.op.name()) && cx.is_sound_type(class) {
            (rule.search)(&mut cx, class, app);
        }
        (cx.matches, cx.misses)
    }

    /// Whether the rule is sound for the type of its root.
    fn is_sound_type(&mut self, class: Class) -> bool {
        let types = self.rule.types;
        if types == Types::ALL {
            return true;
        }
        let verdict = match self.view.fact(class) {
            Some(fact) if types.contains(fact.dtype) => Verdict::Holds,
            // Constants and shape arithmetic are no candidates that anybody would ask about.
            Some(fact) if fact.known.is_some() || self.view.is_constant(class) => return false,
            Some(fact) => Verdict::Fails(format!("the elements are {}, the rule is sound for {types}", fact.dtype)),
            None => Verdict::Unknown(format!("the element type is not known, the rule is sound for {types}")),
        };
        self.require(ELEMENT_TYPE.name, verdict)
    }

    /// Begins a candidate: the conditions held so far are those of an earlier one.
    pub fn begin(&mut self) {
        self.held.clear();
    }

    /// Whether the condition holds; if not, notes why.
    pub fn require(&mut self, condition: &'static str, verdict: Verdict) -> bool {
        debug_assert!(
            [ELEMENT_TYPE.name, FINITE_WEIGHTS.name, EXECUTED.name].contains(&condition)
                || self.rule.conditions.iter().any(|c| c.name == condition),
            "{} does not list {condition}",
            self.rule.name
        );
        match verdict {
            _ if self.forced == Some(condition) => true,
            Verdict::Holds => {
                if !self.held.contains(&condition) {
                    self.held.push(condition);
                }
                true
            }
            Verdict::Fails(reason) | Verdict::Unknown(reason) => {
                self.misses.push(Miss { rule: self.rule.name, class: self.class, condition, reason });
                false
            }
        }
    }

    /// Whether the target executes what a term brings in. All of it has the type of the root, but for the arithmetic of shapes.
    fn executed(&self, rhs: &Expr) -> Verdict {
        fn missing<'e>(view: &dyn View, term: &'e Expr, may: &dyn Fn(&Op) -> bool) -> Result<bool, &'e Op> {
            match term {
                Expr::Class(c) => Ok(view.is_constant(*c)),
                Expr::Constant(_) => Ok(true),
                Expr::Op(op, operands) => {
                    let mut constant = true;
                    for o in operands.iter().flatten() {
                        constant &= missing(view, o, may)?;
                    }
                    if constant || may(op) { Ok(constant) } else { Err(op) }
                }
            }
        }
        let (Some(target), Some(dtype)) = (self.view.target(), self.view.fact(self.class).map(|f| f.dtype)) else {
            return Verdict::Holds;
        };
        let may = |op: &Op| matches!(op, Op::Shape(_) | Op::Size(_)) || target.executes(op, dtype);
        match missing(self.view, rhs, &may) {
            Ok(_) => Verdict::Holds,
            Err(op) => {
                Verdict::Fails(format!("the model has no {} of {dtype}, and ONNX Runtime executes none", op.name()))
            }
        }
    }

    /// Records a rewrite, unless it brings in an operator that the target does not execute, or makes weights of constants that may be no finite numbers.
    pub fn rewrite(&mut self, lhs: Expr, rhs: impl Into<Expr>) {
        let rhs = rhs.into();
        let conditions = self.held.clone();
        if !self.require(EXECUTED.name, self.executed(&rhs))
            || !self.require(FINITE_WEIGHTS.name, finite_weights(self.view, &rhs))
        {
            return;
        }
        let m = Match { lhs, rhs, conditions };
        if !self.matches.contains(&m) {
            self.matches.push(m);
        }
    }
}
