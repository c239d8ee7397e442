//! A file in which a constant is not what the trace says must be refused, whatever is written in it.

use std::{fs, path::PathBuf};

use convc::{
    ir::Graph,
    onnx::{self, ExportOptions, Limits, Model},
    rewrite::{self, Dialect, Options},
    trace::{
        Meta, Trace,
        replay::{NotProved, replay},
    },
};
use convc_runtime::Blob;
use onnx_protobuf::{Message, ModelProto};

fn samples() -> Vec<PathBuf> {
    let folder = |name: &str| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../samples").join(name);
    let mut found: Vec<PathBuf> = ["models", "systems"]
        .iter()
        .flat_map(|n| fs::read_dir(folder(n)).unwrap())
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "onnx"))
        .collect();
    found.sort();
    assert!(found.len() > 60);
    found
}

fn import(bytes: Vec<u8>) -> Result<Graph, onnx::OnnxError> {
    onnx::import_bytes(Blob::from(bytes), None, &Limits::default()).map(|m| m.graph)
}

/// The trace of an optimisation, and the file written.
fn optimise(mut model: Model, dialect: Dialect) -> (Trace, ModelProto) {
    let original = model.graph.clone();
    let options = Options { dialect, opset: Some(model.opset), ..Options::default() };
    let rewritten = rewrite::rewrite(std::mem::take(&mut model.graph), &options).unwrap();
    model.graph = rewritten.graph.clone();
    let exported = onnx::export(&model, &ExportOptions { origins: true, ..ExportOptions::default() }).unwrap();
    let meta = Meta { model_sha256: None, options: &options, original: &original, written: &exported.written };
    let trace = Trace::from_rewritten(&rewritten, &meta).unwrap();
    (trace, ModelProto::parse_from_bytes(&exported.model.to_vec()).unwrap())
}

/// Every third sample in one dialect and every third in the other; of each file a few constants, others in each file.
#[test]
fn a_changed_constant_is_refused_in_both_dialects() {
    let mut changed = 0;
    for (i, path) in samples().iter().enumerate() {
        let dialect = match i % 3 {
            0 => Dialect::Onnx,
            1 => Dialect::Convc,
            _ => continue,
        };
        let read = || onnx::import(path, &Limits::default()).unwrap();
        let (trace, written) = optimise(read(), dialect);
        let model = read().graph;
        let proof = replay(&trace, Some(&model), Some(&import(written.write_to_bytes().unwrap()).unwrap()));
        proof.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let constants = written.graph.initializer.len();
        for k in 0..constants.min(2) {
            let at = (i * 7 + k * constants.div_ceil(2)) % constants;
            let mut tampered = written.clone();
            let tensor = &mut tampered.graph.mut_or_insert_default().initializer[at];
            let Some(byte) = tensor.raw_data.first_mut() else { continue };
            *byte ^= 1;
            let name = tensor.name.clone();
            // A shape that does not fit is refused when it is read.
            let Ok(file) = import(tampered.write_to_bytes().unwrap()) else { continue };
            let verdict = replay(&trace, Some(&model), Some(&file));
            assert!(matches!(verdict, Err(NotProved::Optimized(_))), "{} {name:?}: {verdict:?}", path.display());
            changed += 1;
        }
    }
    assert!(changed > 40, "{changed} constants were changed");
}

/// The weights of an operator of domain `ai.convc` are compared one by one.
#[test]
fn a_zeroed_weight_of_a_system_is_refused() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../samples/models/condconv.onnx");
    let read = || onnx::import(&path, &Limits::default()).unwrap();
    let (trace, written) = optimise(read(), Dialect::Convc);
    let system = written.graph.node.iter().find(|n| n.domain == "ai.convc").unwrap();
    let mut zeroed = 0;
    for name in &system.input {
        let mut tampered = written.clone();
        let list = &mut tampered.graph.mut_or_insert_default().initializer;
        let Some(tensor) = list.iter_mut().find(|t| t.name == *name) else { continue };
        tensor.raw_data.iter_mut().for_each(|b| *b = 0);
        let file = import(tampered.write_to_bytes().unwrap()).unwrap();
        assert!(matches!(replay(&trace, None, Some(&file)), Err(NotProved::Optimized(_))), "{name}");
        zeroed += 1;
    }
    assert!(zeroed > 0, "no weight of the operator was found");
}

/// What convc makes of a model it reads again, and makes the same kind of thing of.
#[test]
fn optimising_twice_works_on_every_sample() {
    for path in samples() {
        let model = onnx::import(&path, &Limits::default()).unwrap();
        let (_, once) = optimise(model, Dialect::Onnx);
        let again = onnx::import_bytes(Blob::from(once.write_to_bytes().unwrap()), None, &Limits::default());
        let (_, twice) = optimise(again.unwrap_or_else(|e| panic!("{}: {e}", path.display())), Dialect::Onnx);
        import(twice.write_to_bytes().unwrap()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
}
