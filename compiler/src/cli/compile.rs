//! `convc compile`

use std::path::PathBuf;

use clap::Args;

use super::{
    Failure, Say,
    model::{self, LimitArgs, SizeArgs},
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
    sizes: SizeArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

pub(crate) fn run(args: &Compile, say: Say) -> Result<(), Failure> {
    let output = args.output.clone().unwrap_or_else(|| model::beside(&args.model, "convc"));
    model::refuse_overwrite(&args.model, &output)?;
    let mut model = model::load_onnx(&args.model, &args.limits.limits())?;
    args.sizes.bind(&mut model.graph)?;
    let plan = model::lower(&args.model, &model)?;
    plan.save(&output).map_err(|e| model::plan_failure(&output, &e))?;
    say.detail(|| format!("{} instructions are in {}", plan.instructions.len(), output.display()));
    Ok(())
}
