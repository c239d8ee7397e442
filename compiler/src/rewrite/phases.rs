//! The phases: in what order folding, normalising, exploring and recognising take turns.

use std::collections::BTreeSet;

use super::{
    engine::Engine,
    error::RewriteError,
    explore::{RegionReport, SMALL_GROWTH, explore},
    fold::FoldLimits,
    options::{Fp, Options},
    region,
    rule::{Phase, Rule},
};
use crate::ir::{Kind, NodeId, Value};

/// The rules of each phase, and what they have done so far.
pub(super) struct Work<'a> {
    normalising: Vec<&'static Rule>,
    exploring: Vec<&'static Rule>,
    pub(super) recognising: Vec<&'static Rule>,
    options: &'a Options,
    budget: f64,
    made: usize,
    pub(super) reports: Vec<RegionReport>,
    pub(super) ill_typed: Vec<String>,
    /// Regions in which exploring with all rules found nothing.
    at_rest: BTreeSet<Content>,
}

/// The operators of a region, and what they work on.
type Content = Vec<(NodeId, Vec<Option<Value>>)>;

impl<'a> Work<'a> {
    pub(super) fn new(engine: &Engine, rules: &[&'static Rule], options: &'a Options) -> Work<'a> {
        let of_phase = |p: Phase| -> Vec<&'static Rule> { rules.iter().copied().filter(|r| r.phase == p).collect() };
        let bytes = |id: NodeId| match &engine.graph.node(id).kind {
            Kind::Constant(c) => c.bytes().len() as f64,
            _ => 0.0,
        };
        let constants: f64 = engine.graph.nodes().into_iter().map(bytes).sum();
        Work {
            normalising: of_phase(Phase::Normalise),
            exploring: of_phase(Phase::Explore),
            recognising: of_phase(Phase::Recognise),
            options,
            budget: options.max_growth * constants + SMALL_GROWTH,
            made: 0,
            reports: Vec::new(),
            ill_typed: Vec::new(),
            at_rest: BTreeSet::new(),
        }
    }

    /// Goes through the phases until none changes anything. Folding and normalisation expose each other's candidates;
    /// exploring exposes both; what is recognised takes part in exploring.
    pub(super) fn improve(&mut self, engine: &mut Engine) -> Result<(), RewriteError> {
        let options = self.options;
        for _ in 0..8 {
            let before = self.made;
            self.made += settle(engine, &self.normalising, options, self.made)?;
            let exploring = self.exploring.clone();
            engine.verify_after("folding and normalising")?;
            self.explore_all(engine, &exploring, true)?;
            engine.verify_after("exploring")?;
            self.made += settle(engine, &self.normalising, options, self.made)?;
            if self.made == before {
                self.recognise(engine)?;
            }
            if self.made == before || self.made >= options.max_rewrites {
                break;
            }
        }
        Ok(())
    }

    /// Explores every region with these rules; if all of them are, but for regions in which that found nothing before.
    fn explore_all(&mut self, engine: &mut Engine, rules: &[&'static Rule], all: bool) -> Result<(), RewriteError> {
        for region in region::regions(engine, self.options.region_cap) {
            if self.made >= self.options.max_rewrites {
                break;
            }
            let content: Content =
                region.nodes.iter().map(|id| (*id, engine.graph.node(*id).operands().to_vec())).collect();
            if all && self.at_rest.contains(&content) {
                continue;
            }
            let number = self.reports.len();
            let (options, budget, ill_typed) = (self.options, &mut self.budget, &mut self.ill_typed);
            if let Some(report) = explore(engine, &region, number, rules, options, budget, ill_typed)? {
                self.made += usize::from(report.changed);
                if all && !report.changed {
                    self.at_rest.insert(content);
                }
                self.reports.push(report);
            }
        }
        Ok(())
    }

    fn recognise(&mut self, engine: &mut Engine) -> Result<usize, RewriteError> {
        let left = self.options.max_rewrites.saturating_sub(self.made);
        let found = engine.recognise(&self.recognising, left, self.options)?;
        engine.verify_after("recognising")?;
        self.made += found;
        Ok(found)
    }

    /// Recognises what the model spells out, before exploring joins parts of it with their neighbours. A model with
    /// BatchNormalizations is tried with these folded, which is kept if something is recognised in it.
    pub(super) fn recognise_first(&mut self, engine: &mut Engine) -> Result<(), RewriteError> {
        if self.recognising.is_empty() {
            return Ok(());
        }
        self.made += settle(engine, &self.normalising, self.options, self.made)?;
        self.recognise(engine)?;
        let normalises = |id| engine.graph.node(id).op().is_some_and(|op| op.name() == "BatchNormalization");
        if !engine.graph.nodes().into_iter().any(normalises) {
            return Ok(());
        }
        let folding: Vec<&'static Rule> = self.exploring.iter().copied().filter(|r| r.folds).collect();
        let mut trial = engine.clone();
        let before = (self.made, self.budget, self.reports.len(), self.ill_typed.len());
        self.explore_all(&mut trial, &folding, false)?;
        self.made += settle(&mut trial, &self.normalising, self.options, self.made)?;
        if self.recognise(&mut trial)? > 0 {
            *engine = trial;
        } else {
            (self.made, self.budget) = (before.0, before.1);
            self.reports.truncate(before.2);
            self.ill_typed.truncate(before.3);
        }
        Ok(())
    }
}

/// Folds and normalises until neither finds anything.
pub(super) fn settle(
    engine: &mut Engine,
    rules: &[&'static Rule],
    options: &Options,
    made: usize,
) -> Result<usize, RewriteError> {
    let mut total = 0;
    loop {
        let left = options.max_rewrites.saturating_sub(made + total);
        if left == 0 {
            return Ok(total);
        }
        let limits = FoldLimits { keep_bits: options.fold.keep_bits || options.fp == Fp::Strict, ..options.fold };
        let folded = engine.fold(limits)?;
        let rewritten = engine.normalise(rules, left, options.forced)?;
        total += rewritten;
        if folded + rewritten == 0 {
            return Ok(total);
        }
    }
}
