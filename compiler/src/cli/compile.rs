//! `convc compile`

use std::path::PathBuf;

use clap::Args;
use convc::rewrite::{Dialect, cost::PLAN};

use super::{
    Failure, Say,
    model::{self, LimitArgs},
    rewriting::{RewriteArgs, VerifyArgs, rewrite},
};

/// Compile a model to a plan, which the runtime loads in no time
#[derive(Args)]
pub(crate) struct Compile {
    /// The ONNX model
    model: PathBuf,
    /// Where the plan goes; the default is beside the model, with the extension .convc
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    rewriting: RewriteArgs,
    #[command(flatten)]
    verification: VerifyArgs,
    /// Compile the model as it is
    #[arg(long)]
    no_optimize: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

pub(crate) fn run(args: &Compile, say: Say) -> Result<(), Failure> {
    let output = args.output.clone().unwrap_or_else(|| model::beside(&args.model, "convc"));
    model::refuse_overwrite(&args.model, &output)?;
    let mut model = model::load_onnx(&args.model, &args.limits.limits())?;
    if args.no_optimize {
        args.verification.sizes.bind(&mut model.graph)?;
    } else {
        // Nothing is rewritten that no plan can hold.
        model::lower(&args.model, &model)?;
        let graph = std::mem::take(&mut model.graph);
        let done = rewrite(graph, (&PLAN, Dialect::Convc, None), &args.rewriting, &args.verification, say)?;
        model.graph = done.rewritten.graph;
        args.verification.sizes.bind(&mut model.graph)?;
    }
    let plan = model::lower(&args.model, &model)?;
    plan.save(&output).map_err(|e| model::plan_failure(&output, &e))?;
    say.detail(|| format!("{} instructions are in {}", plan.instructions.len(), output.display()));
    Ok(())
}
