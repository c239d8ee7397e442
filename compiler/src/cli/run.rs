//! `convc run`

use std::path::PathBuf;

use clap::Args;
use convc::npz;
use convc_runtime::Tensor;

use super::{
    Failure, Say,
    model::{self, LimitArgs, RunArgs},
    profile::Profile,
    say::print,
    tensors::{InputArgs, npz_failure},
};

/// Run a model on inputs
#[derive(Args)]
pub(crate) struct Run {
    /// The model: .onnx is compiled in memory, .convc is loaded
    model: PathBuf,
    #[command(flatten)]
    inputs: InputArgs,
    /// Write the outputs to a .npz file whose keys are their names; without it a summary is printed
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    /// Print how long each instruction took
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

pub(crate) fn run(args: &Run, say: Say) -> Result<(), Failure> {
    let limits = args.limits.limits();
    let options = args.run.options(&limits)?;
    let plan = model::load_plan(&args.model, &limits, args.run.optimize())?;
    let inputs = args.inputs.load(&plan.inputs)?;
    let session = model::session(plan, options)?;
    let mut profile = Profile::default();
    let outputs = if args.profile {
        session.run_profiled(&inputs, &mut |step, time| profile.add(step, time))?
    } else {
        session.run(&inputs)?
    };
    let named = || session.plan().outputs.iter().map(|p| p.name.as_str()).zip(&outputs);
    let mut text = String::new();
    match &args.output {
        Some(path) => {
            npz::write_npz(path, named()).map_err(npz_failure)?;
            say.detail(|| format!("{} outputs are in {}", outputs.len(), path.display()));
        }
        None => {
            for (name, tensor) in named() {
                text.push_str(&summary(name, tensor));
            }
        }
    }
    if args.profile {
        text.push_str(&profile.table());
    }
    print(&super::say::visible(&text))
}

/// Name, type, sizes and range of a tensor, and its elements if there are few.
fn summary(name: &str, t: &Tensor) -> String {
    const FEW: usize = 8;
    let head = format!("{name}  {}{:?}", t.dtype(), t.shape());
    let elements = match (t.to_f64s(), t.to_i64s(), t.as_slice::<String>()) {
        (Some(v), _, _) if v.len() <= FEW => format!("{v:?}"),
        (_, Some(v), _) if v.len() <= FEW => format!("{v:?}"),
        (_, _, Some(v)) if v.len() <= FEW => format!("{v:?}"),
        (Some(v), _, _) => {
            let finite = || v.iter().copied().filter(|x| x.is_finite());
            let (least, most) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
            let mean = finite().sum::<f64>() / finite().count() as f64;
            format!("min {least:.6} mean {mean:.6} max {most:.6}, not finite: {}", v.len() - finite().count())
        }
        (_, Some(v), _) => {
            format!("min {:?} max {:?}", v.iter().min(), v.iter().max()).replace("Some(", "").replace(')', "")
        }
        _ => String::new(),
    };
    format!("{head}  {elements}\n")
}
