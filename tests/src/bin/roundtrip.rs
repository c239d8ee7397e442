//! Imports each model named on the command line and says what became of it.

use std::{path::Path, time::Instant};

use convc::onnx::{Limits, Severity, import};

fn main() {
    for path in std::env::args().skip(1) {
        let start = Instant::now();
        match import(Path::new(&path), &Limits::default()) {
            Ok(m) => {
                let ms = start.elapsed().as_millis();
                let verified = convc::ir::verify(&m.graph).err();
                let opaque = m.notes.iter().filter(|p| p.severity == Severity::Unsupported).count();
                println!("{path}: {} nodes, {opaque} not executed, {ms} ms, verifier: {verified:?}", m.graph.len());
                for p in m.notes.iter().take(5) {
                    println!("  {p}");
                }
            }
            Err(e) => println!("{path}: {e}"),
        }
    }
}
