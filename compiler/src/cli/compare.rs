//! `convc compare`

use std::path::{Path, PathBuf};

use clap::Args;
use convc::{
    npz,
    verify::{Difference, Tolerance, difference},
};
use convc_runtime::Tensor;
use serde_json::json;

use super::{
    Failure, Say,
    model::{self, LimitArgs, RunArgs, SizeArgs},
    say::{print, print_json, visible},
    tensors::{InputArgs, made_up, npz_failure},
};

/// Compare what two models compute on the same inputs, or the arrays of two .npz files
///
/// An element of A agrees with that of B if |a - b| <= atol max|b| + rtol |b|. Elements that are no floating-point
/// numbers must be equal.
#[derive(Args)]
pub(crate) struct Compare {
    /// A model or a .npz file
    a: PathBuf,
    /// The reference: a model or a .npz file
    b: PathBuf,
    #[command(flatten)]
    sizes: SizeArgs,
    #[command(flatten)]
    inputs: InputArgs,
    /// Seed of the inputs that are made up
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Tolerance relative to the largest element
    #[arg(long, value_name = "X", default_value_t = 1e-4)]
    atol: f64,
    /// Tolerance relative to each element
    #[arg(long, value_name = "Y", default_value_t = 1e-3)]
    rtol: f64,
    #[command(flatten)]
    run: RunArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

pub(crate) fn run(args: &Compare, say: Say) -> Result<(), Failure> {
    let is_npz = |p: &Path| p.extension().is_some_and(|e| e == "npz");
    let (a, b) = match (is_npz(&args.a), is_npz(&args.b)) {
        (true, true) => (npz::read_npz(&args.a).map_err(npz_failure)?, npz::read_npz(&args.b).map_err(npz_failure)?),
        (false, false) => run_both(args, say)?,
        _ => return Err(Failure::usage("a model cannot be compared with a .npz file").help("run the model first")),
    };
    let mut rows = Vec::new();
    for (name, b) in &b {
        rows.push(match a.iter().find(|(n, _)| n == name) {
            Some((_, a)) => difference(name, a, b, Tolerance { of_largest: args.atol, of_each: args.rtol }),
            None => missing(name, "A"),
        });
    }
    rows.extend(a.iter().filter(|(n, _)| !b.iter().any(|(m, _)| m == n)).map(|(n, _)| missing(n, "B")));
    let agree = rows.iter().all(|r| r.agree);
    if args.json {
        print_json("compare", json!({ "agree": agree, "atol": args.atol, "rtol": args.rtol, "outputs": rows }))?;
    } else {
        print(&visible(&table(&rows)))?;
    }
    match rows.iter().filter(|r| !r.agree).count() {
        0 => Ok(()),
        n => Err(Failure::comparison(format!("{n} of {} outputs differ by more than they may", rows.len()))),
    }
}

type Named = Vec<(String, Tensor)>;

fn run_both(args: &Compare, say: Say) -> Result<(Named, Named), Failure> {
    let limits = args.limits.limits();
    let options = args.run.options(&limits)?;
    let plan = model::load_plan(&args.b, &limits, false)?;
    let (bindings, unranked) = args.sizes.resolve(&plan.inputs)?;
    let given = args.inputs.load(&plan.inputs)?;
    let inputs = made_up(&plan.inputs, given, &bindings, &unranked, args.seed, say)?;
    let outputs = |plan| -> Result<Named, Failure> {
        let session = model::session(plan, options.clone())?;
        let tensors = session.run(&inputs)?;
        Ok(session.plan().outputs.iter().map(|p| p.name.clone()).zip(tensors).collect())
    };
    let b = outputs(plan)?;
    Ok((outputs(model::load_plan(&args.a, &limits, false)?)?, b))
}

fn missing(name: &str, whose: &str) -> Difference {
    let problem = Some(format!("{whose} does not have it"));
    Difference { name: name.to_owned(), max_abs: None, max_rel: None, agree: false, problem }
}

fn table(rows: &[Difference]) -> String {
    let number = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.3e}"));
    let mut text = format!("{:>10}  {:>10}  {:<7}  output\n", "max abs", "max rel", "agree");
    for r in rows {
        let problem = r.problem.as_ref().map_or_else(String::new, |p| format!(": {p}"));
        let agree = if r.agree { "yes" } else { "no" };
        text.push_str(&format!(
            "{:>10}  {:>10}  {agree:<7}  {}{problem}\n",
            number(r.max_abs),
            number(r.max_rel),
            r.name
        ));
    }
    text
}
