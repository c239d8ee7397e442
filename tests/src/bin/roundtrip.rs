//! Imports models and writes them again, unoptimised: `roundtrip [--out FOLDER] [--external] [--origins] MODEL..`. Says what
//! became of each.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use convc::onnx::{ExportOptions, Limits, Severity, import, save};

fn main() -> ExitCode {
    let mut folder: Option<PathBuf> = None;
    let mut options = ExportOptions::default();
    let mut failed = false;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--out" => folder = args.next().map(PathBuf::from),
            "--external" => options.external_data = true,
            "--origins" => options.origins = true,
            path => {
                if let Err(e) = one(Path::new(path), folder.as_deref(), &options) {
                    println!("{path}: FAILED: {e}");
                    failed = true;
                }
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn one(path: &Path, folder: Option<&Path>, options: &ExportOptions) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let model = import(path, &Limits::default())?;
    let read = start.elapsed().as_millis();
    convc::ir::verify(&model.graph)?;
    let opaque = model.notes.iter().filter(|p| p.severity == Severity::Unsupported).count();
    let start = Instant::now();
    if let (Some(folder), Some(name)) = (folder, path.file_name()) {
        save(&model, &folder.join(name), options)?;
    }
    let nodes = model.graph.len();
    println!(
        "{}: {nodes} nodes, {opaque} not executed, read in {read} ms, written in {} ms",
        path.display(),
        start.elapsed().as_millis()
    );
    Ok(())
}
