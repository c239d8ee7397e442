//! Small models on which a whole class of defects once showed, and files that are malformed on purpose.

use std::{collections::BTreeSet, path::Path, sync::mpsc, time::Duration};

use convc::{
    ir::{self, text::parse},
    onnx::{self, ExportOptions, Limits as ModelLimits, Model},
    rewrite::{self, Options},
    trace::{
        Limits, Meta, Trace,
        lines::AttributeLine,
        replay::{NotProved, replay},
        show,
    },
};
use convc_runtime::Blob;

fn path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name)
}

fn import(name: &str) -> Model {
    onnx::import(&path(name), &ModelLimits::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn again(bytes: Vec<u8>) -> Result<Model, onnx::OnnxError> {
    onnx::import_bytes(Blob::from(bytes), None, &ModelLimits::default())
}

/// The trace of an optimisation, and the file written.
fn optimise(mut model: Model, options: &Options) -> (Trace, Vec<u8>) {
    let original = model.graph.clone();
    let rewritten = rewrite::rewrite(std::mem::take(&mut model.graph), options).unwrap();
    model.graph = rewritten.graph.clone();
    let exported = onnx::export(&model, &ExportOptions { origins: true, ..ExportOptions::default() }).unwrap();
    let meta = Meta { model_sha256: None, options, original: &original, written: &exported.written };
    (Trace::from_rewritten(&rewritten, &meta).unwrap(), exported.model.to_vec())
}

/// What is known of a class comes from several facts, each of which is better along another axis.
#[test]
fn rewriting_ends_where_facts_of_a_class_are_better_along_different_axes() {
    for name in ["facts_of_one_class_a.onnx", "facts_of_one_class_b.onnx"] {
        let graph = import(name).graph;
        let (done, ended) = mpsc::channel();
        std::thread::spawn(move || {
            let rewritten = rewrite::rewrite(graph, &Options::default());
            let _ = done.send(rewritten.map(|r| ir::verify(&r.graph)));
        });
        match ended.recv_timeout(Duration::from_secs(60)) {
            Ok(Ok(valid)) => valid.unwrap_or_else(|e| panic!("{name}: {e}")),
            Ok(Err(e)) => panic!("{name}: {e}"),
            Err(_) => panic!("{name}: no end after 60 s"),
        }
    }
}

/// What convc writes it reads again, as it is and rewritten, whatever the model declares its outputs to be.
#[test]
fn what_is_written_is_read_again() {
    for name in ["declared_output_is_another_a.onnx", "declared_output_is_another_b.onnx"] {
        let model = import(name);
        let exported = onnx::export(&model, &ExportOptions::default()).unwrap();
        again(exported.model.to_vec()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (_, written) = optimise(model, &Options::default());
        let model = again(written).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (_, written) = optimise(model, &Options::default());
        again(written).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

/// The exporter writes an Identity where an output is an input or another output as well.
#[test]
fn replay_looks_through_identities_that_the_exporter_adds() {
    for name in ["equal_outputs.onnx", "output_of_output.onnx", "output_is_input.onnx"] {
        let (trace, written) = optimise(import(name), &Options::default());
        let (read, written) = (import(name).graph, again(written).unwrap().graph);
        replay(&trace, Some(&read), Some(&written)).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn a_trace_with_malformed_attributes_is_refused() {
    let bytes = std::fs::read(path("conv_without_pads.jsonl")).unwrap();
    let trace = Trace::read_from(&*bytes, &Limits::default()).unwrap();
    assert!(matches!(replay(&trace, None, None), Err(NotProved::Term { .. })));
}

/// A sequence of numbers that depends on its seed alone.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn number(&mut self) -> i64 {
        const ODD: &[i64] = &[0, 1, 2, 3, -1, -2, 7, 100, 1 << 31, 1 << 40, i64::MAX, i64::MIN];
        ODD[self.below(ODD.len())]
    }

    fn change(&mut self, list: &mut Vec<i64>) {
        match self.below(4) {
            0 => list.push(self.number()),
            1 => drop(list.pop()),
            2 => list.clear(),
            _ => match list.len() {
                0 => list.push(1),
                n => list[self.below(n)] = self.number(),
            },
        }
    }
}

/// Models of `samples/models` that between them have most of the operators that rules read.
const SAMPLES: &[&str] =
    &["convnet", "repvgg_nhw", "condconv", "involution", "split_attention", "doconv_feature", "scconv_dy"];

fn sample(name: &str) -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../samples/models/{name}.onnx"));
    onnx::import(&path, &ModelLimits::default()).unwrap()
}

/// Attributes, types and operands of a trace's terms are changed at random: what is wrong is an error, never a panic.
#[test]
fn mutated_traces_do_not_panic() {
    let mut rng = Rng(5);
    let mut refused = 0;
    for name in SAMPLES {
        let options = Options { dialect: rewrite::Dialect::Convc, ..Options::default() };
        let (trace, written) = optimise(sample(name), &options);
        let written = again(written).unwrap().graph;
        for _ in 0..cases(24) {
            let mut changed = trace.clone();
            for _ in 0..=rng.below(2) {
                mutate(&mut changed, &mut rng);
            }
            refused += usize::from(replay(&changed, None, Some(&written)).is_err());
            let _ = show::summary(&changed);
        }
    }
    assert!(refused > 0, "changed traces are proved");
}

/// How many cases to try, of as many as are tried by default: `CONVC_CASES` says otherwise.
fn cases(default: usize) -> usize {
    std::env::var("CONVC_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn mutate(trace: &mut Trace, rng: &mut Rng) {
    let of_steps: BTreeSet<u32> = trace.steps.iter().flat_map(|s| [s.lhs, s.rhs]).collect();
    let n = trace.terms.len();
    // Terms that steps speak of are what rules look at.
    let at = (0..50).map(|_| rng.below(n)).find(|i| of_steps.contains(&trace.terms[*i].id)).unwrap_or(0);
    let earlier = trace.terms[rng.below(at.max(1))].id;
    let term = &mut trace.terms[at];
    match rng.below(5) {
        0 => term.r#type = None,
        1 if !term.operands.is_empty() => {
            let i = rng.below(term.operands.len());
            term.operands[i] = if rng.below(3) == 0 { None } else { Some(earlier) };
        }
        2 => drop(term.operands.pop()),
        _ => {
            let len = term.attributes.len();
            if len == 0 {
                return;
            }
            let key = term.attributes.keys().nth(rng.below(len)).cloned().unwrap_or_default();
            match term.attributes.get_mut(&key) {
                Some(AttributeLine::Int(v)) => *v = rng.number(),
                Some(AttributeLine::Ints(v)) => rng.change(v),
                _ => drop(term.attributes.remove(&key)),
            }
        }
    }
}

/// Numbers within the attributes of a text are changed at random: it is refused, or it is a graph that can be rewritten.
#[test]
fn mutated_texts_do_not_panic() {
    let mut rng = Rng(9);
    for name in ["convnet", "involution", "split_attention"] {
        let options = Options { dialect: rewrite::Dialect::Convc, ..Options::default() };
        let graph = rewrite::rewrite(sample(name).graph, &options).unwrap().graph;
        let text = ir::text::print(&graph);
        for _ in 0..cases(40) {
            if let Ok(graph) = parse(&mutated_text(&text, &mut rng)) {
                ir::verify(&graph).unwrap();
                let _ = rewrite::rewrite(graph, &Options::default());
            }
        }
    }
}

fn mutated_text(text: &str, rng: &mut Rng) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let with_attributes: Vec<usize> = (0..lines.len()).filter(|i| lines[*i].contains('{') && *i > 0).collect();
    let line = &mut lines[with_attributes[rng.below(with_attributes.len())]];
    let from = line.find('{').unwrap_or(0);
    let digits: Vec<usize> =
        line.char_indices().filter(|(i, c)| *i > from && c.is_ascii_digit()).map(|(i, _)| i).collect();
    if !digits.is_empty() {
        let i = digits[rng.below(digits.len())];
        match rng.below(3) {
            0 => line.replace_range(i..=i, &rng.number().to_string()),
            1 => line.replace_range(i..=i, "1, 1"),
            _ => line.replace_range(i..=i, ""),
        }
    }
    // The type behind it would be the first thing that is wrong.
    if let Some(end) = line.rfind("} :") {
        line.truncate(end + 1);
    }
    lines.join("\n")
}
