//! [`Options`]: what a rewriting is asked for.

use std::collections::BTreeMap;

use convc_runtime::Symbol;

use super::{
    fold::FoldLimits,
    profile::{PORTABLE, Profile},
    saturate::SaturationLimits,
};

/// Which inexactness is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fp {
    /// Bit-exact rules only.
    Strict,
    /// All that is equal over the reals.
    #[default]
    Real,
    /// Approximations too.
    Fast,
}

/// How operators of domain `ai.convc` are left in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Written out in ONNX's own operators.
    #[default]
    Onnx,
    /// As they are.
    Convc,
}

/// How to rewrite.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which inexactness is allowed.
    pub fp: Fp,
    /// Only these rules; empty for all.
    pub only: Vec<String>,
    /// Not these rules.
    pub skip: Vec<String>,
    /// At most so many rewrites; for bisection.
    pub max_rewrites: usize,
    /// What nodes cost.
    pub profile: &'static Profile,
    /// How operators of domain `ai.convc` are left.
    pub dialect: Dialect,
    /// The operator set that the result is to be written in: operators that it lacks are written out by their definitions.
    pub opset: Option<i64>,
    /// How much larger the constants may become in all, relative to those of the model.
    pub max_growth: f64,
    /// Sizes to reckon with for symbols, in the cost model only.
    pub nominal: BTreeMap<Symbol, i64>,
    /// Limits of each saturation.
    pub saturation: SaturationLimits,
    /// Limits of folding.
    pub fold: FoldLimits,
    /// Operators in a region at most.
    pub region_cap: usize,
    /// A rule and one of its conditions that counts as holding: for tests that show the condition is needed.
    pub forced: Option<(&'static str, &'static str)>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            fp: Fp::default(),
            only: Vec::new(),
            skip: Vec::new(),
            max_rewrites: usize::MAX,
            profile: &PORTABLE,
            dialect: Dialect::default(),
            opset: None,
            max_growth: 0.1,
            nominal: BTreeMap::new(),
            saturation: SaturationLimits::default(),
            fold: FoldLimits::default(),
            region_cap: 512,
            forced: None,
        }
    }
}
