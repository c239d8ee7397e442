//! Optimises a model within a program, as `convc optimize` does: read, rewrite, verify, write.
//!
//! ```sh
//! cargo run --release -p convc-samples --bin optimize_in_process -- samples/models/repvgg.onnx repvgg.onnx
//! ```

use std::{collections::BTreeMap, error::Error, path::PathBuf};

use convc::{
    onnx::{self, ExportOptions, Limits},
    rewrite::{self, Options},
    verify,
};
use convc_runtime::Tensor;
use convc_samples::wave;

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: optimize_in_process IN.onnx OUT.onnx";
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [input, output] = paths.as_slice() else { return Err(usage.into()) };

    let mut model = onnx::import(input, &Limits::default())?;
    let original = model.graph.clone();
    let rewritten = rewrite::rewrite(std::mem::take(&mut model.graph), &Options::default())?;
    for step in &rewritten.steps {
        println!("{}", step.rule);
    }

    // Every rewritten region is run before and after in f64, then the whole model once in f32.
    let inputs: BTreeMap<String, Tensor> = original
        .inputs()
        .into_iter()
        .filter_map(|v| {
            Some((original.value_name(v)?.to_owned(), wave(original.fact(v)?.dtype, &original.fact(v)?.shape)?))
        })
        .collect();
    let report = verify::verify(&original, &rewritten, &inputs, 2)?;
    println!("{} regions and {} outputs agree", report.regions.len(), report.outputs.len());

    // What the file says besides the graph, such as names, versions and metadata, is kept.
    println!("{} nodes become {}", original.len(), rewritten.graph.len());
    model.graph = rewritten.graph;
    onnx::save(&model, output, &ExportOptions::default())?;
    Ok(())
}
