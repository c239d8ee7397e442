//! Feeds mutated models to the compiler: `mutate [--cases N] [--seed S] [--case K] [--seconds T] [--verbose] MODEL..`.
//!
//! Each case is imported, checked, written, read again, rewritten and lowered. A panic, a case that takes longer than the
//! limit, memory beyond 1 GiB, or a broken invariant is a failure: exit code 1. `--case K` runs one case alone and leaves
//! its model in `mutated.onnx`; `--verbose` says why models are refused.

use std::{
    alloc::System,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use cap::Cap;
use convc::{
    ir, lower,
    onnx::{ExportOptions, Limits, OnnxError, Severity, WriteError, check_bytes, export, import_bytes},
    rewrite::{self, RewriteError},
};
use convc_runtime::Blob;
use convc_tests::mutate::{Random, mutated};
use onnx_protobuf::{Message, ModelProto};

/// Beyond this an allocation fails, which ends the process.
const MEMORY: usize = 1 << 30;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// What became of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Refused,
    Carried,
    Rewritten,
}

struct Seed {
    path: PathBuf,
    bytes: Vec<u8>,
    model: ModelProto,
}

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failures) => {
            println!("{failures} failures");
            ExitCode::FAILURE
        }
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<usize, Box<dyn std::error::Error>> {
    let (mut cases, mut seed, mut single, mut seconds, mut verbose) = (1000_u64, 0_u64, None, 20_u64, false);
    let mut seeds = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().unwrap_or_default().parse::<u64>().map_err(|e| format!("{arg}: {e}"));
        match arg.as_str() {
            "--cases" => cases = number()?,
            "--seed" => seed = number()?,
            "--verbose" => verbose = true,
            "--case" => single = Some(number()?),
            "--seconds" => seconds = number()?,
            path => {
                let bytes = std::fs::read(path).map_err(|e| format!("{path}: {e}"))?;
                let mut model = ModelProto::parse_from_bytes(&bytes).map_err(|e| format!("{path}: {e}"))?;
                for node in &mut model.graph.mut_or_insert_default().node {
                    node.metadata_props.clear();
                }
                seeds.push(Seed { path: path.into(), bytes, model });
            }
        }
    }
    if seeds.is_empty() {
        return Err("name at least one model".into());
    }
    // Standard output is lost if an allocation fails; the seed must not be.
    eprintln!("seed {seed}");
    let held = ALLOCATOR.allocated();
    ALLOCATOR.set_limit(held + MEMORY).map_err(|()| "the memory in use exceeds the limit")?;
    std::panic::set_hook(Box::new(|p| eprintln!("{p}")));
    let seeds = Arc::new(seeds);
    let (to_worker, jobs) = mpsc::channel::<u64>();
    let (results, from_worker) = mpsc::channel();
    {
        let seeds = Arc::clone(&seeds);
        std::thread::Builder::new().stack_size(8 << 20).spawn(move || {
            for case in jobs {
                let (seed_model, bytes) = bytes_of(&seeds, seed, case);
                let result = catch_unwind(AssertUnwindSafe(|| one(bytes, &seed_model, verbose)));
                let result = result.unwrap_or_else(|p| Err(format!("panic: {}", message(&*p))));
                if results.send(result).is_err() {
                    return;
                }
            }
        })?;
    }
    if let Some(case) = single {
        std::fs::write("mutated.onnx", bytes_of(&seeds, seed, case).1)?;
    }
    let (first, last) = single.map_or((0, cases), |c| (c, c + 1));
    let (mut counts, mut failures, mut slowest) = ([0_usize; 3], 0, (Duration::ZERO, 0));
    for case in first..last {
        let start = Instant::now();
        to_worker.send(case)?;
        match from_worker.recv_timeout(Duration::from_secs(seconds)) {
            Ok(Ok(outcome)) => counts[outcome as usize] += 1,
            Ok(Err(problem)) => {
                failures += 1;
                println!("seed {seed}, case {case}: {problem}");
            }
            Err(_) => {
                println!("seed {seed}, case {case}: no end after {seconds} s");
                return Ok(failures + 1);
            }
        }
        slowest = slowest.max((start.elapsed(), case));
        if case % 1000 == 999 {
            eprintln!("{} cases", case + 1);
        }
    }
    let [refused, carried, rewritten] = counts;
    println!(
        "seed {seed}, {} cases: {refused} refused, {carried} carried in part, {rewritten} rewritten and lowered, {failures} failures; \
         slowest {} ms (case {}), most memory {} MiB",
        last - first,
        slowest.0.as_millis(),
        slowest.1,
        ALLOCATOR.max_allocated().saturating_sub(held) >> 20
    );
    Ok(failures)
}

fn bytes_of(seeds: &[Seed], seed: u64, case: u64) -> (PathBuf, Vec<u8>) {
    let mut r = Random::new(seed, case);
    match r.pick(seeds) {
        Some(s) => (s.path.clone(), mutated(&s.bytes, &s.model, &mut r)),
        None => (PathBuf::new(), Vec::new()),
    }
}

fn message(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_default()
}

/// What the compiler makes of one model; an error is a defect of the compiler.
fn one(bytes: Vec<u8>, path: &Path, verbose: bool) -> Result<Outcome, String> {
    let limits = Limits::default();
    let bytes = Blob::from(bytes);
    let problems = check_bytes(bytes.clone(), path.parent(), &limits);
    let text: String = problems.iter().map(|p| format!("{p}\n")).collect();
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return Err("a message holds control characters".into());
    }
    let listed = problems.iter().any(|p| p.severity >= Severity::Error);
    let model = match (import_bytes(bytes, path.parent(), &limits), listed) {
        (Err(e), true) => {
            if verbose {
                println!("{e}");
            }
            return Ok(Outcome::Refused);
        }
        (Err(e), false) => return Err(format!("check passes what import refuses: {e}")),
        (Ok(_), true) => return Err(format!("check refuses what import passes: {}", problems[0])),
        (Ok(model), false) => model,
    };
    ir::verify(&model.graph).map_err(|e| format!("after import: {e}"))?;
    let exported = match export(&model, &ExportOptions { origins: true, ..ExportOptions::default() }) {
        Ok(e) => Some(e),
        Err(WriteError::Operator { .. } | WriteError::TooLarge { .. }) => None,
        Err(e) => return Err(format!("export: {e}")),
    };
    if let Some(e) = exported {
        match import_bytes(Blob::from(e.model.to_vec()), None, &limits) {
            Ok(_) | Err(OnnxError::Limit { .. }) => {}
            Err(e) => return Err(format!("what was written is refused: {e}")),
        }
    }
    let opaque = problems.iter().any(|p| p.severity == Severity::Unsupported);
    match rewrite::rewrite(model.graph, &rewrite::Options::default()) {
        Ok(rewritten) => {
            ir::verify(&rewritten.graph).map_err(|e| format!("after rewriting: {e}"))?;
            let _ = lower::lower(&rewritten.graph);
        }
        Err(RewriteError::Fold(_)) => return Ok(Outcome::Refused),
        Err(e) => return Err(format!("rewriting: {e}")),
    }
    Ok(if opaque { Outcome::Carried } else { Outcome::Rewritten })
}
