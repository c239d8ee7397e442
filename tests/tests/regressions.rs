//! Models that were once rewritten into something else, or refused: what is made of them computes what ONNX Runtime computes with its
//! optimisations off, at the sizes that told the two apart, and its trace is proved.
//!
//! `models/expected.py` writes the inputs and outputs that the models are compared with.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use convc::{
    ir::Graph,
    lower::lower,
    npz::read_npz,
    onnx::{self, ExportOptions, Limits},
    rewrite::{Dialect, Options, rewrite},
    trace::{Meta, Trace, replay::replay},
    verify::{self, Request},
};
use convc_runtime::{
    Blob, Tensor,
    session::{Session, SessionOptions},
};

/// A model of tests/models or compiler/tests/models, and at how many cases ONNX Runtime runs it.
const MODELS: &[(&str, usize)] = &[
    // A slice that ends at a number, of a Range, is a hidden minimum.
    ("rows_that_turn_at_200", 6),
    // A channel's number is floor(N / 100).
    ("channel_of_whole_hundreds", 3),
    // As many samples as channels: biases `[O, N]` have the shape of `[N, O]`.
    ("mixed_biases_transposed", 1),
    // Coefficients that are taken from across the rows of a softmax.
    ("rows_across_softmax", 1),
    // A pool of a map that is smaller than its window, which is empty in ONNX Runtime, where a convolution fails.
    ("pool_smaller_than_its_window", 6),
    // Sizes that fit an empty batch alone.
    ("reshape_to_nothing", 1),
    // A Cast to f16 rounds and overflows.
    ("constant_through_f16", 1),
    // ONNX Runtime has no convolution in f64.
    ("normalisation_in_f64", 1),
    // An infinity in a channel that nothing reads.
    ("channel_left_out", 1),
    // Weights, or products of constants, that overflow once they are composed.
    ("normalised_then_scaled_beyond_f32", 1),
    ("product_of_constants_beyond_f32", 1),
    ("weights_of_two_convolutions_beyond_f32", 1),
    // Products that overflow with both signs: what becomes of their sum depends on how it is rounded.
    ("products_beyond_f32", 1),
    // The mean of integers is rounded.
    ("integer_mean_of_product", 1),
    // Facts of one class that are better along different axes.
    ("facts_of_one_class_a", 1),
    ("facts_of_one_class_b", 1),
    // Outputs that are one value, or an input.
    ("equal_outputs", 1),
    ("output_of_output", 1),
    ("output_is_input", 1),
];

/// Models of inputs without a shape, of which nodes are carried: convc writes and proves them, and does not run them.
const CARRIED: &[&str] = &["declared_output_is_another_a", "declared_output_is_another_b"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
}

fn import(name: &str) -> onnx::Model {
    let file = format!("{name}.onnx");
    let own = folder().join(&file);
    let path = if own.exists() { own } else { folder().join("../../compiler/tests/models").join(&file) };
    onnx::import(&path, &Limits::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Inputs, outputs, and which elements of these are in doubt.
#[derive(Default)]
struct Case {
    inputs: BTreeMap<String, Tensor>,
    outputs: BTreeMap<String, Tensor>,
    in_doubt: BTreeMap<String, Tensor>,
}

fn cases(name: &str) -> BTreeMap<String, Case> {
    let path = folder().join("expected").join(name).with_extension("npz");
    let mut cases: BTreeMap<String, Case> = BTreeMap::new();
    for (key, tensor) in read_npz(&path).unwrap_or_else(|e| panic!("{name}: {e}")) {
        let [number, kind, name] = key.splitn(3, '.').collect::<Vec<_>>()[..] else { panic!("{key}") };
        let case = cases.entry(number.to_owned()).or_default();
        let list = match kind {
            "in" => &mut case.inputs,
            "out" => &mut case.outputs,
            _ => &mut case.in_doubt,
        };
        list.insert(name.to_owned(), tensor);
    }
    cases
}

/// Whether `found` is `expected` but for rounding: the same infinities, and NaN at the same places.
fn compare(expected: &Tensor, found: &Tensor, in_doubt: Option<&Tensor>) -> Result<(), String> {
    if (expected.dtype(), expected.shape()) != (found.dtype(), found.shape()) {
        let type_of = |t: &Tensor| format!("{} {:?}", t.dtype(), t.shape());
        return Err(format!("it is {}, not {}", type_of(found), type_of(expected)));
    }
    let numbers = |t: &Tensor| t.to_f64s().or_else(|| t.to_i64s().map(|v| v.iter().map(|x| *x as f64).collect()));
    let (Some(expected), Some(found)) = (numbers(expected), numbers(found)) else { return Err("no numbers".into()) };
    let in_doubt = in_doubt.and_then(|t| t.as_slice::<bool>());
    let largest = expected.iter().filter(|v| v.is_finite()).fold(0.0f64, |a, v| a.max(v.abs()));
    for (i, (a, b)) in expected.iter().zip(&found).enumerate() {
        let same = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-4 * largest + 1e-6;
        if !same && !in_doubt.is_some_and(|d| d[i]) {
            return Err(format!("element {i} is {b}, not {a}"));
        }
    }
    Ok(())
}

/// Runs a graph against what ONNX Runtime computes.
fn check(name: &str, which: &str, graph: &Graph, cases: &BTreeMap<String, Case>) {
    let session = lower(graph)
        .map_err(|e| e.to_string())
        .and_then(|plan| Session::new(plan.into(), SessionOptions::default()).map_err(|e| e.to_string()));
    let session = session.unwrap_or_else(|e| panic!("{name} {which}: {e}"));
    for (number, case) in cases {
        let found = session.run(&case.inputs).unwrap_or_else(|e| panic!("{name} {which}, case {number}: {e}"));
        for (output, found) in graph.outputs().iter().zip(&found) {
            let expected = &case.outputs[&output.name];
            compare(expected, found, case.in_doubt.get(&output.name))
                .unwrap_or_else(|e| panic!("{name} {which}, case {number}, output {}: {e}", output.name));
        }
    }
}

/// Optimises a model in each way, and proves the trace; returns the files written, read again.
fn optimised(name: &str) -> Vec<(String, Graph)> {
    let mut found = Vec::new();
    for (way, dialect, verified) in [
        ("optimised", Dialect::Onnx, true),
        ("not verified", Dialect::Onnx, false),
        ("in operators of convc", Dialect::Convc, true),
    ] {
        let mut model = import(name);
        let original = model.graph.clone();
        let options = Options { dialect, opset: Some(model.opset), ..Options::default() };
        let rewritten = rewrite(std::mem::take(&mut model.graph), &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        if verified {
            verify::verify_request(&original, &rewritten, &Request { threads: 1, ..Request::default() })
                .map(drop)
                .unwrap_or_else(|e| panic!("{name} {way}: {e}"));
        }
        model.graph = rewritten.graph.clone();
        let exported = onnx::export(&model, &ExportOptions { origins: true, ..ExportOptions::default() }).unwrap();
        let meta = Meta { model_sha256: None, options: &options, original: &original, written: &exported.written };
        let trace = Trace::from_rewritten(&rewritten, &meta).unwrap();
        let bytes = Blob::from(exported.model.to_vec());
        let again = onnx::import_bytes(bytes, None, &Limits::default()).unwrap_or_else(|e| panic!("{name} {way}: {e}"));
        replay(&trace, Some(&original), Some(&again.graph)).unwrap_or_else(|e| panic!("{name} {way}: {e}"));
        found.push((way.to_owned(), again.graph));
    }
    found
}

#[test]
fn models_that_went_wrong_once_are_right() {
    for (name, least) in MODELS {
        let cases = cases(name);
        assert_eq!(cases.len(), *least, "{name}: cases");
        check(name, "as read", &import(name).graph, &cases);
        for (way, graph) in optimised(name) {
            check(name, &way, &graph, &cases);
        }
    }
}

#[test]
fn models_that_are_carried_are_proved() {
    for name in CARRIED {
        optimised_without_running(name);
    }
}

fn optimised_without_running(name: &str) {
    assert!(lower(&import(name).graph).is_err(), "{name} is run: compare it with what ONNX Runtime computes");
    assert_eq!(optimised(name).len(), 3);
}
