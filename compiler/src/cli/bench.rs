//! `convc bench`

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::json;

use super::{
    Failure, Say,
    model::{self, LimitArgs, RunArgs, SizeArgs},
    profile::Profile,
    say::{print, print_json},
    tensors::{InputArgs, made_up},
};

/// Measure how long a model takes, from input tensors to output tensors
#[derive(Args)]
pub(crate) struct Bench {
    /// The model: .onnx is compiled in memory, .convc is loaded
    model: PathBuf,
    #[command(flatten)]
    sizes: SizeArgs,
    #[command(flatten)]
    inputs: InputArgs,
    /// Seed of the inputs that are made up
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    run: RunArgs,
    /// How long to measure; at least three runs are made
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = parse_seconds)]
    seconds: f64,
    /// Print how long each instruction took
    #[arg(long)]
    profile: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.0..=86400.0).contains(&seconds) { Ok(seconds) } else { Err("it lies between 0 and 86400".into()) }
}

pub(crate) fn run(args: &Bench, say: Say) -> Result<(), Failure> {
    let limits = args.limits.limits();
    let options = args.run.options(&limits)?;
    let (threads, isa) = (options.threads, options.isa);
    let start = Instant::now();
    let session = model::session(model::load_plan(&args.model, &limits, args.run.optimize())?, options)?;
    let load = start.elapsed();
    let ports = &session.plan().inputs;
    let (bindings, unranked) = args.sizes.resolve(ports)?;
    let inputs = made_up(ports, args.inputs.load(ports)?, &bindings, &unranked, args.seed, say)?;

    session.run(&inputs)?;
    let mut profile = Profile::default();
    let mut times = Vec::new();
    let begin = Instant::now();
    while times.len() < 3 || begin.elapsed().as_secs_f64() < args.seconds {
        let start = Instant::now();
        let outputs = if args.profile {
            session.run_profiled(&inputs, &mut |step, time| profile.add(step, time))?
        } else {
            session.run(&inputs)?
        };
        times.push(start.elapsed());
        drop(outputs);
    }
    times.sort_unstable();
    let ms = |t: Duration| t.as_secs_f64() * 1e3;
    let at = |share: f64| times.get(((times.len() - 1) as f64 * share).round() as usize).map_or(0.0, |&t| ms(t));
    let latency = [("median", at(0.5)), ("min", at(0.0)), ("p90", at(0.9)), ("p99", at(0.99))];
    let rss = peak_rss_mib();
    if args.json {
        let shapes: BTreeMap<&String, &[usize]> = inputs.iter().map(|(n, t)| (n, t.shape())).collect();
        let mut result = json!({
            "model": args.model.display().to_string(),
            "latency_ms": latency.iter().map(|(n, v)| ((*n).to_owned(), json!(v))).collect::<serde_json::Map<_, _>>(),
            "runs": times.len(),
            "load_ms": ms(load),
            "peak_rss_mib": rss,
            "threads": threads,
            "isa": isa.name(),
            "inputs": shapes,
        });
        if args.profile {
            result["profile"] = json!(profile.rows());
        }
        return print_json("bench", result);
    }
    let latency: Vec<String> = latency.iter().map(|(n, v)| format!("{n} {v:.3} ms")).collect();
    let mut text = format!("latency  {}\n", latency.join("  "));
    text.push_str(&format!(
        "runs     {}, {threads} threads, {}\nload     {:.1} ms\n",
        times.len(),
        isa.name(),
        ms(load)
    ));
    if let Some(rss) = rss {
        text.push_str(&format!("memory   {rss:.1} MiB at most\n"));
    }
    if args.profile {
        text.push_str(&profile.table());
    }
    print(&super::say::visible(&text))
}

/// The largest resident size of this process so far, where the system says.
fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}
