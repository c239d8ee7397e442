//! Every sample program runs on every sample model.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use convc::onnx::{self, Limits};

fn models() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "onnx"));
    paths.sort();
    paths
}

fn run(program: &str, args: &[&Path]) -> String {
    let out = Command::new(program).args(args).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn models_are_optimised_and_still_run() {
    let dir = tempfile::tempdir().unwrap();
    assert!(models().len() > 20);
    for path in models() {
        let (optimised, compiled) = (dir.path().join("o.onnx"), dir.path().join("o.convc"));
        run(env!("CARGO_BIN_EXE_optimize_in_process"), &[&path, &optimised]);
        let mut printed = Vec::new();
        for source in [&path, &optimised] {
            let model = onnx::import(source, &Limits::default()).unwrap();
            convc::lower::lower(&model.graph).unwrap().save(&compiled).unwrap();
            printed.push(run(env!("CARGO_BIN_EXE_run_compiled"), &[&compiled]));
        }
        let shape = |text: &str| text.lines().next().map(str::to_owned);
        assert!(shape(&printed[0]).is_some_and(|l| l.starts_with("y: f32[1, ")), "{}: {}", path.display(), printed[0]);
        assert_eq!(shape(&printed[0]), shape(&printed[1]), "{}", path.display());
    }
}
