//! Terms that no cost model would choose: of every saturated region the dearest and random ones, against the oracle.

use convc::{
    ir::{
        Graph,
        text::{parse, print},
    },
    rewrite::{Options, chaos::chaos},
};
use convc_runtime::scalar::Field;
use convc_tests::{
    agree::agree,
    blocks::BLOCKS,
    filetests,
    random::Rng,
    subjects::{Numbers, SUBJECTS},
};

/// Extracts chaotically and compares; on how many sizes.
fn compare(name: &str, graph: &Graph, seeds: u64, numbers: Numbers) -> usize {
    let mut tried = 0;
    // The field has no order for the rules of maxima and clips, and no fractions of the sizes at hand.
    let text = print(graph);
    let ordered = numbers != Numbers::Field
        || ["Pool", "Relu", "Clip", "Max", "Min", "Resize", "Mean"].iter().any(|op| text.contains(op));
    for seed in [None].into_iter().chain((0..seeds).map(Some)) {
        let chaotic = chaos(graph.clone(), &Options::default(), seed).unwrap_or_else(|e| panic!("{name}: {e}"));
        let result =
            if ordered { agree::<f64>(graph, &chaotic, 5, 1e-5) } else { agree::<Field>(graph, &chaotic, 5, 0.0) };
        tried += result.unwrap_or_else(|e| panic!("{name}, seed {seed:?}: {e}\n{}", print(&chaotic)));
    }
    tried
}

#[test]
fn blocks_are_right_whatever_term_is_taken() {
    for (name, text) in BLOCKS {
        assert!(compare(name, &parse(text).unwrap(), 20, Numbers::Field) > 20, "{name}");
    }
}

#[test]
fn goldens_are_right_whatever_term_is_taken() {
    let all = filetests::all();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = |k: usize| {
        let mine = all.iter().skip(k).step_by(threads);
        mine.map(|t| compare(&t.path.display().to_string(), &t.graph, 12, Numbers::Field)).sum::<usize>()
    };
    let tried: usize = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|k| scope.spawn(move || share(k))).collect();
        running.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert!(tried > 1000, "{tried}");
}

#[test]
fn random_graphs_are_right_whatever_term_is_taken() {
    let cases = std::env::var("CONVC_CASES").ok().and_then(|n| n.parse::<u64>().ok()).unwrap_or(200) / 20;
    for subject in SUBJECTS {
        for seed in 0..cases {
            // Weights that are computed are rounded to their type: 16 bits would hide what is compared here.
            let text =
                (subject.generate)(&mut Rng::new(seed + 31_000_000)).replace("bf16", "f32").replace("f16", "f32");
            if let Ok(graph) = parse(&text) {
                compare(&text, &graph, 5, subject.numbers);
            }
        }
    }
}
