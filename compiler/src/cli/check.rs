//! `convc check`

use std::{io::Read, path::PathBuf};

use clap::Args;
use convc::onnx::{self, Severity};
use convc_runtime::plan::{
    Plan,
    file::{MAGIC, verify_checksums},
};
use serde_json::json;

use super::{
    Failure,
    model::{LimitArgs, plan_failure},
    say::{print, print_json, visible},
};

/// List all that is wrong with a model, or in the way of running it
#[derive(Args)]
pub(crate) struct Check {
    /// The model; a plan is checked for damage
    model: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

pub(crate) fn run(args: &Check) -> Result<(), Failure> {
    let path = &args.model;
    let mut start = [0; MAGIC.len()];
    let mut file = std::fs::File::open(path).map_err(|e| Failure::io(path, &e))?;
    if file.read_exact(&mut start).is_ok() && start == MAGIC {
        let file = convc_runtime::sys::map_file(path).map_err(|e| Failure::io(path, &e))?;
        Plan::decode(&file).and_then(|_| verify_checksums(&file)).map_err(|e| plan_failure(path, &e))?;
        return if args.json { print_json("check", json!({ "runs": true, "problems": [] })) } else { Ok(()) };
    }
    let problems = onnx::check(path, &args.limits.limits());
    let count = |s: Severity| problems.iter().filter(|p| p.severity == s).count();
    let (errors, unsupported) = (count(Severity::Error), count(Severity::Unsupported));
    if args.json {
        let rows: Vec<serde_json::Value> = problems
            .iter()
            .map(|p| {
                json!({
                    "severity": p.severity.text(), "place": p.place, "op_type": p.op_type, "domain": p.domain,
                    "opset": p.opset, "problem": p.problem, "help": p.help,
                })
            })
            .collect();
        print_json(
            "check",
            json!({ "runs": problems.iter().all(|p| p.severity == Severity::Note), "problems": rows }),
        )?;
    } else {
        let lines: String = problems.iter().map(|p| format!("{}: {p}\n", p.severity.text())).collect();
        print(&visible(&lines))?;
    }
    if count(Severity::Limit) > 0 {
        return Err(Failure::limit("the model exceeds a limit"));
    }
    match (errors, unsupported) {
        (0, 0) => Ok(()),
        (0, n) => Err(Failure::model(format!("{n} nodes are not executed"))
            .help("`convc optimize` carries them through; `convc list ops` names what is executed")),
        (n, _) => Err(Failure::model(format!("{n} errors"))),
    }
}
