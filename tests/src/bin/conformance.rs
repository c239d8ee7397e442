//! Runs ONNX's node cases: `conformance [--bless] [--list] [--only PART] FOLDER`.
//!
//! FOLDER is written by `python tests/conformance/generate.py FOLDER`. The cases that must pass are named in
//! `tests/conformance/passing.txt`. The run fails if one of them does not pass, if another one does, or if any
//! case gives a wrong result or panics. `--bless` rewrites the list from this run; `--list` prints the
//! outcome of every case that does not pass, `--only PART` runs the cases whose name contains PART and judges no list.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::ExitCode,
};

use convc_tests::conformance::{Judgement, Outcome, run_case};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, String> {
    let (mut bless, mut list, mut only, mut folder) = (false, false, None, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bless" => bless = true,
            "--list" => list = true,
            "--only" => only = args.next(),
            _ => folder = Some(PathBuf::from(arg)),
        }
    }
    let folder = folder.ok_or("give the folder that tests/conformance/generate.py has written")?;
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()));
    let names: Vec<String> = read(&folder.join("cases.txt"))?.lines().map(str::to_owned).collect();
    let passing = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/passing.txt");

    // What a panic says is part of its case's outcome.
    std::panic::set_hook(Box::new(|_| {}));
    let mut outcomes = BTreeMap::new();
    for name in names.iter().filter(|n| only.as_ref().is_none_or(|part| n.contains(part.as_str()))) {
        let outcome = run_case(&folder.join(name)).map_err(|e| format!("{name}: {e}"))?;
        outcomes.insert(name.clone(), outcome);
    }
    let _ = std::panic::take_hook();

    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, outcome) in &outcomes {
        *counts.entry(outcome.word()).or_default() += 1;
        let bad = matches!(outcome, Outcome::Wrong(_) | Outcome::Panic(_));
        if (bad || list) && *outcome != Outcome::Pass {
            println!("{name}: {outcome}");
        }
    }
    let count = |word| counts.get(word).copied().unwrap_or(0);
    println!(
        "conformance: {} cases: {} pass, {} wrong, {} panic, {} failed, {} refused by name",
        outcomes.len(),
        count("pass"),
        count("wrong"),
        count("panic"),
        count("failed"),
        count("refused")
    );
    if outcomes.is_empty() {
        return Err("there are no such cases".to_owned());
    }
    let passed: BTreeSet<String> =
        outcomes.iter().filter(|(_, o)| **o == Outcome::Pass).map(|(n, _)| n.clone()).collect();
    if bless && only.is_none() {
        let text: String = passed.iter().map(|n| format!("{n}\n")).collect();
        std::fs::write(&passing, text).map_err(|e| format!("{}: {e}", passing.display()))?;
        println!("tests/conformance/passing.txt lists {} cases", passed.len());
    }
    let listed: BTreeSet<String> =
        if only.is_some() { passed.clone() } else { read(&passing)?.lines().map(str::to_owned).collect() };
    let judgement = Judgement::of(&outcomes, &listed);
    for name in &judgement.lost {
        println!("must pass, and does not: {name}: {}", outcomes[name]);
    }
    for name in &judgement.unknown {
        println!("must pass, and there is no such case: {name}");
    }
    for name in &judgement.unlisted {
        println!("passes, and is not listed: {name}");
    }
    if !judgement.lost.is_empty() || !judgement.unlisted.is_empty() || !judgement.unknown.is_empty() {
        println!(
            "if this is as it should be: cargo run -p convc-tests --bin conformance -- --bless {}",
            folder.display()
        );
    }
    let faults: BTreeSet<&String> =
        [&judgement.lost, &judgement.unknown, &judgement.unlisted, &judgement.bad].into_iter().flatten().collect();
    println!("{} passed, {} failed", passed.len() - judgement.unlisted.len(), faults.len());
    Ok(judgement.good())
}
