//! Models that were once rewritten into something else, or refused: what is made of them computes the same, at the sizes that
//! told the two apart.

use std::{collections::BTreeMap, path::Path};

use convc::{
    ir::Graph,
    lower::lower,
    onnx::{self, Limits},
    rewrite::{Dialect, Options, rewrite},
};
use convc_runtime::{
    Bindings, Tensor,
    session::{Session, SessionOptions},
};
use convc_tests::oracle::{self, Array, Number};

/// A file of tests/models, the sizes to try it at, and at how many of them it must run.
const MODELS: &[(&str, &[&[(&str, i64)]], usize)] = &[
    // A slice that ends at a number, of a Range, is a hidden minimum.
    (
        "rows_that_turn_at_200",
        &[
            &[("H", 2), ("W", 3)],
            &[("H", 99), ("W", 2)],
            &[("H", 100), ("W", 2)],
            &[("H", 101), ("W", 2)],
            &[("H", 130), ("W", 4)],
        ],
        5,
    ),
    // A channel's number is floor(N / 100).
    ("channel_of_whole_hundreds", &[&[("N", 1)], &[("N", 99)], &[("N", 100)], &[("N", 101)]], 4),
    // As many samples as channels: biases `[O, N]` have the shape of `[N, O]`.
    ("mixed_biases_transposed", &[&[]], 1),
    // Coefficients that are taken from across the rows of a softmax.
    ("rows_across_softmax", &[&[]], 1),
    // A pool of a map that is smaller than its window, which is empty in ONNX Runtime, where a convolution fails.
    (
        "pool_smaller_than_its_window",
        &[
            &[("N", 1), ("S0", 5), ("S1", 2)],
            &[("N", 2), ("S0", 6), ("S1", 3)],
            &[("N", 1), ("S0", 9), ("S1", 12)],
            &[("N", 0), ("S0", 9), ("S1", 12)],
        ],
        3,
    ),
    // Sizes that fit an empty batch alone.
    ("reshape_to_nothing", &[&[("N", 0)]], 1),
];

fn session(graph: &Graph) -> Session {
    let options = SessionOptions { real: f64::REAL, ..SessionOptions::default() };
    Session::new(lower(graph).expect("it lowers").into(), options).expect("its plan is sound")
}

#[test]
fn models_that_went_wrong_once_are_right() {
    for (name, sizes, least) in MODELS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name).with_extension("onnx");
        let graph = onnx::import(&path, &Limits::default()).unwrap_or_else(|e| panic!("{name}: {e}")).graph;
        let before = session(&graph);
        for dialect in [Dialect::Onnx, Dialect::Convc] {
            let options = Options { dialect, ..Options::default() };
            let rewritten = rewrite(graph.clone(), &options).unwrap_or_else(|e| panic!("{name}: {e}")).graph;
            let after = session(&rewritten);
            let mut ran = 0;
            for sizes in *sizes {
                let bindings: Bindings = sizes.iter().map(|(s, n)| ((*s).into(), *n)).collect();
                let inputs: BTreeMap<String, Tensor> = oracle::random_inputs(&graph, &bindings, 1);
                let Ok(expected) = before.run(&inputs) else { continue };
                ran += 1;
                let expected: Vec<Array<f64>> = expected.iter().map(oracle::read).collect();
                let found = after.run(&inputs).unwrap_or_else(|e| panic!("{name} at {sizes:?}: {e}"));
                // Folded constants are rounded to the model's own type once.
                oracle::compare(&expected, &found, 1e-5).unwrap_or_else(|e| panic!("{name} at {sizes:?}: {e}"));
            }
            assert!(ran >= *least, "{name} runs at {ran} of {} sizes", sizes.len());
        }
    }
}
