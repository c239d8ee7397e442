//! What the rewriter makes of real exports of every convolution system: single blocks of tests/networks/blocks.py, written by
//! both of PyTorch's exporters (samples/make_models.py).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use convc::{
    ir::Graph,
    lower::lower,
    onnx::{self, Limits},
    rewrite::{Dialect, Options, rewrite},
};
use convc_runtime::{
    Dim, Symbol,
    session::{Session, SessionOptions},
};
use convc_tests::oracle::{self, Array, Number};

/// How the names of some files begin, the operators of domain ai.convc that must come of them, and the Conv beside those.
const BLOCKS: &[(&str, &[(&str, usize)], usize)] = &[
    ("condconv_", &[("CondConv", 1)], 0),
    ("dynconv_group_single_", &[], 1),
    ("dynconv_group_two_", &[("DynamicConv", 1)], 0),
    // Two are the router's.
    ("dynconv_", &[("DynamicConv", 1)], 2),
    ("constant_routes_", &[], 1),
    ("involution_", &[("Involution", 1)], 2),
    ("ghost_", &[("GhostModule", 1)], 0),
    ("scconv_", &[("SCConv", 1)], 0),
    // A squeeze-and-excite gate.
    ("split_r1_", &[], 3),
    ("split_", &[("SplitAttention", 1)], 0),
    ("acnet_", &[], 1),
    ("dbb_", &[], 1),
    ("repvgg_", &[], 1),
    ("mobileone_", &[], 1),
    ("doconv_", &[], 1),
    ("expand_", &[], 1),
    ("chain_grouped_", &[], 1),
    // A bias that does not reach the zeros of the padding, and padding that cuts what lies beyond the map.
    ("chain_biased_border_", &[], 2),
    ("chain_padded_twice_", &[], 2),
];

/// The operators of domain ai.convc.
const SYSTEMS: [&str; 7] =
    ["DOConv", "CondConv", "DynamicConv", "GhostModule", "SCConv", "SplitAttention", "Involution"];

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/systems");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "onnx"));
    paths.sort();
    paths
}

/// How often each operator occurs: those of domain ai.convc, and all others.
fn operators(graph: &Graph) -> [BTreeMap<String, usize>; 2] {
    let mut found = [BTreeMap::new(), BTreeMap::new()];
    for id in graph.nodes() {
        let name = graph.node(id).kind.name();
        let [convc, onnx] = &mut found;
        let side = if SYSTEMS.contains(&name) { convc } else { onnx };
        *side.entry(name.to_owned()).or_default() += 1;
    }
    found
}

/// Whether both graphs compute the same, in f64, at two sets of sizes if the model leaves axes open.
fn same(original: &Graph, rewritten: &Graph) -> Result<(), String> {
    let options = SessionOptions { real: f64::REAL, ..SessionOptions::default() };
    let session = |g: &Graph| {
        let plan = lower(g).map_err(|e| e.to_string())?;
        Session::new(plan.into(), options.clone()).map_err(|e| e.to_string())
    };
    let (before, after) = (session(original)?, session(rewritten)?);
    let symbols: BTreeSet<Symbol> = original
        .inputs()
        .into_iter()
        .filter_map(|v| original.fact(v))
        .flat_map(|f| f.shape.iter().flat_map(Dim::symbols).collect::<Vec<_>>())
        .collect();
    for least in [13, 16].into_iter().take(1 + usize::from(!symbols.is_empty())) {
        let bound = symbols.iter().zip(least..).map(|(s, size)| (s.clone(), size)).collect();
        let inputs = oracle::random_inputs(original, &bound, 1);
        let expected = before.run(&inputs).map_err(|e| e.to_string())?;
        let found = after.run(&inputs).map_err(|e| e.to_string())?;
        let expected: Vec<Array<f64>> = expected.iter().map(oracle::read).collect();
        // Folded constants are rounded to the model's own type once.
        oracle::compare(&expected, &found, 1e-5).map_err(|e| format!("with {bound:?}: {e}"))?;
    }
    Ok(())
}

/// What is wrong with what becomes of a file.
fn problem(path: &Path, name: &str) -> Option<String> {
    let (_, systems, convs) =
        BLOCKS.iter().find(|(prefix, ..)| name.starts_with(prefix)).expect("a row for every file");
    let graph = match onnx::import(path, &Limits::default()) {
        Ok(model) => model.graph,
        Err(e) => return Some(e.to_string()),
    };
    for dialect in [Dialect::Convc, Dialect::Onnx] {
        let rewritten = match rewrite(graph.clone(), &Options { dialect, ..Options::default() }) {
            Ok(r) => r.graph,
            Err(e) => return Some(e.to_string()),
        };
        let [convc, onnx] = operators(&rewritten);
        if dialect == Dialect::Convc {
            let wanted: BTreeMap<String, usize> = systems.iter().map(|(n, k)| ((*n).to_owned(), *k)).collect();
            let found = onnx.get("Conv").copied().unwrap_or_default();
            if convc != wanted || found != *convs {
                return Some(format!("{convc:?} and {found} Conv of {onnx:?}, not {wanted:?} and {convs} Conv"));
            }
        } else if !convc.is_empty() {
            return Some(format!("standard ONNX holds {convc:?}"));
        }
        if onnx.contains_key("BatchNormalization") {
            return Some("a BatchNormalization is left".to_owned());
        }
        if let Err(e) = same(&graph, &rewritten) {
            return Some(format!("the rewritten graph computes something else: {e}"));
        }
    }
    None
}

#[test]
fn every_spelling_of_every_system_is_recognised() {
    let files = files();
    assert!(files.len() > 90, "{} files", files.len());
    let mut problems = Vec::new();
    for path in &files {
        let name = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        problems.extend(problem(path, name).map(|what| format!("{name}: {what}")));
    }
    assert!(problems.is_empty(), "{}\n{} of {} files fail", problems.join("\n"), problems.len(), files.len());
}
