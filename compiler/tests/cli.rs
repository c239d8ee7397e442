//! The command line as scripts see it: exit codes, what goes to which stream, JSON, files.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use convc::npz::{read_npz, write_npz};
use convc_runtime::Tensor;
use onnx_protobuf::{
    AttributeProto, GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};

fn convc(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_convc")).args(args).env_remove("NO_COLOR").output().unwrap()
}

/// Runs a command that must succeed; returns what it prints.
fn ok(args: &[&str]) -> String {
    let out = convc(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Runs a command that must fail with `code`; returns what it says.
fn fails(code: i32, args: &[&str]) -> String {
    let out = convc(args);
    let text = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(code), "{args:?}: {text}");
    text
}

fn json(args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&ok(args)).unwrap()
}

fn value_info(name: &str, shape: &[&str]) -> ValueInfoProto {
    let dim = |d: &&str| {
        let mut dim = Dimension::new();
        dim.value = Some(match d.parse() {
            Ok(n) => dimension::Value::DimValue(n),
            Err(_) => dimension::Value::DimParam((*d).to_owned()),
        });
        dim
    };
    let shape = TensorShapeProto { dim: shape.iter().map(dim).collect(), ..Default::default() };
    let tensor = type_proto::Tensor { elem_type: 1, shape: Some(shape).into(), ..Default::default() };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: name.into(), type_: Some(r#type).into(), ..Default::default() }
}

fn node(op_type: &str, name: &str, input: &[&str], output: &[&str]) -> NodeProto {
    let names = |v: &[&str]| v.iter().map(|s| (*s).to_owned()).collect();
    NodeProto {
        op_type: op_type.into(),
        name: name.into(),
        input: names(input),
        output: names(output),
        ..Default::default()
    }
}

/// `y = Relu(Conv(x, w))`, x `[N, 1, H, W]`, two 3x3 kernels whose first element is `first`.
fn model(first: f32) -> ModelProto {
    let mut conv = node("Conv", "conv", &["input:0", "w"], &["c"]);
    let pads = AttributeProto {
        name: "pads".into(),
        type_: AttributeType::INTS.into(),
        ints: vec![1; 4],
        ..Default::default()
    };
    conv.attribute.push(pads);
    let mut kernel: Vec<f32> = (0..18).map(|i| (i as f32 - 9.0) / 10.0).collect();
    kernel[0] = first;
    let w = TensorProto {
        name: "w".into(),
        dims: vec![2, 1, 3, 3],
        data_type: 1,
        float_data: kernel,
        ..Default::default()
    };
    let graph = GraphProto {
        name: "g".into(),
        node: vec![conv, node("Relu", "relu", &["c"], &["y"])],
        initializer: vec![w],
        input: vec![value_info("input:0", &["N", "1", "H", "W"])],
        output: vec![value_info("y", &["N", "2", "H", "W"])],
        ..Default::default()
    };
    let opset = OperatorSetIdProto { version: 17, ..Default::default() };
    ModelProto { ir_version: 8, opset_import: vec![opset], graph: Some(graph).into(), ..Default::default() }
}

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Files {
        Files { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn model(&self, name: &str, model: &ModelProto) -> String {
        std::fs::write(self.path(name), model.write_to_bytes().unwrap()).unwrap();
        self.path(name)
    }

    fn inputs(&self, shape: [usize; 4]) -> String {
        let x = (0..shape.iter().product()).map(|i: usize| (i as f32).sin()).collect();
        let path = self.path("x.npz");
        write_npz(Path::new(&path), [("input:0", &Tensor::new(shape, x).unwrap())]).unwrap();
        path
    }
}

fn sorted_names(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into()).collect();
    names.sort();
    names
}

#[test]
fn version_help_and_completions_go_to_stdout() {
    assert_eq!(ok(&["--version"]), format!("convc {}\n", env!("CARGO_PKG_VERSION")));
    assert!(ok(&["--help"]).contains("Exit codes"));
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(ok(&["completions", shell]).contains("convc"));
    }
}

#[test]
fn a_compiled_model_computes_the_same() {
    let f = Files::new();
    let (m, x) = (f.model("m.onnx", &model(1.0)), f.inputs([3, 1, 5, 4]));
    let (plan, y, z) = (f.path("m.convc"), f.path("y.npz"), f.path("z.npz"));
    ok(&["run", &m, "--inputs", &x, "--output", &y, "--no-optimize"]);
    assert_eq!(ok(&["compile", &m]), "");
    ok(&["run", &plan, "--inputs", &x, "--output", &z, "--threads", "3"]);
    let y = read_npz(Path::new(&y)).unwrap();
    assert_eq!(y, read_npz(Path::new(&z)).unwrap());
    assert_eq!((y[0].0.as_str(), y[0].1.shape()), ("y", &[3, 2, 5, 4][..]));
    assert_eq!(sorted_names(f.dir.path()), ["m.convc", "m.onnx", "x.npz", "y.npz", "z.npz"].map(PathBuf::from));

    let bytes = std::fs::read(&plan).unwrap();
    ok(&["compile", &m, "-o", &plan]);
    assert_eq!(std::fs::read(&plan).unwrap(), bytes);
    ok(&["check", &plan]);
    let text = ok(&["run", &plan, "--inputs", &x, "--profile"]);
    assert!(text.contains("y  f32[3, 2, 5, 4]") && text.contains("Conv") && text.contains("share"), "{text}");
}

#[test]
fn sizes_can_be_bound() {
    let f = Files::new();
    let (m, x) = (f.model("m.onnx", &model(1.0)), f.inputs([1, 1, 5, 4]));
    let plan = f.path("m.convc");
    ok(&["compile", &m, "--dim", "N=1", "--shape", "input:0:1x1x6x4"]);
    assert!(fails(2, &["run", &plan, "--inputs", &x]).contains("[1, 1, 6, 4]"));
    assert!(fails(2, &["compile", &m, "--dim", "n=1"]).contains("did you mean \"N\"?"));
    assert!(fails(2, &["compile", &m, "--shape", "input_0:1,1,6,4"]).contains("did you mean \"input:0\"?"));
    assert!(fails(2, &["compile", &m, "--shape", "input:0:1,2,6,4"]).contains("does not fit"));
    assert!(fails(2, &["compile", &m, "--shape", "input:0:1,1,6,4", "--dim", "H=5"]).contains("both"));
}

#[test]
fn inputs_come_from_arrays_and_images() {
    let f = Files::new();
    let m = f.model("m.onnx", &model(1.0));
    let png = f.path("x.png");
    image::GrayImage::from_fn(4, 5, |x, y| image::Luma([(x * 50 + y) as u8])).save(&png).unwrap();
    let x = (0..20).map(|i| ((i % 4 * 50 + i / 4) as f32 / 255.0 - 0.5) / 0.25).collect();
    write_npz(Path::new(&f.path("x.npz")), [("whatever", &Tensor::new([1, 1, 5, 4], x).unwrap())]).unwrap();
    let (from_png, from_npz) = (f.path("a.npz"), f.path("b.npz"));
    let input = format!("input:0={png}");
    ok(&["run", &m, "--input", &input, "--mean", "0.5", "--std", "0.25", "-o", &from_png]);
    ok(&["run", &m, "--input", &format!("input:0={}", f.path("x.npz")), "-o", &from_npz]);
    assert_eq!(std::fs::read(from_png).unwrap(), std::fs::read(from_npz).unwrap());
    ok(&["compile", &m, "--shape", "input:0:1,1,5,5"]);
    assert!(fails(2, &["run", &f.path("m.convc"), "--input", &input]).contains("4 pixels wide"));
    assert!(fails(2, &["run", &m, "--input", &input, "--mean", "1,2"]).contains("2 values for 1 channels"));
}

#[test]
fn bench_prints_the_numbers_scripts_read() {
    let f = Files::new();
    let m = f.model("m.onnx", &model(1.0));
    let j =
        json(&["bench", &m, "--shape", "input:0:2,1,8,8", "--seconds", "0", "--json", "--threads", "2", "--profile"]);
    assert_eq!(j["schema"], "convc.bench/1");
    assert!(j["runs"].as_u64().unwrap() >= 3 && j["load_ms"].is_f64());
    for key in ["median", "min", "p90", "p99"] {
        assert!(j["latency_ms"][key].as_f64().unwrap() > 0.0);
    }
    assert_eq!(j["inputs"]["input:0"], serde_json::json!([2, 1, 8, 8]));
    assert_eq!(j["profile"].as_array().unwrap().len(), 2);
    let text = fails(2, &["bench", &m, "--seconds", "0"]);
    assert!(text.contains("'H' has no value") && text.contains("help: "), "{text}");
    ok(&["bench", &m, "--seconds", "0", "--dim", "H=4", "--dim", "W=4", "-q"]);
}

#[test]
fn inspect_counts_the_same_in_model_and_plan() {
    let f = Files::new();
    let m = f.model("m.onnx", &model(1.0));
    ok(&["compile", &m]);
    let (a, b) = (json(&["inspect", &m, "--json"]), json(&["inspect", &f.path("m.convc"), "--json"]));
    assert_eq!((&a["schema"], &a["parameters"], &a["nodes"]), (&"convc.inspect/1".into(), &18.into(), &2.into()));
    assert_eq!(a["macs"], "18*H*N*W");
    assert_eq!(a["inputs"], serde_json::json!([{ "name": "input:0", "type": "f32[N, 1, H, W]" }]));
    for key in ["inputs", "outputs", "operators", "parameters", "macs", "constant_bytes"] {
        assert_eq!(a[key], b[key]);
    }
    let bound = ["--dim", "N=1", "--shape", "input:0:1,1,10,10"];
    assert!(ok(&[&["inspect", &m][..], &bound].concat()).contains("MACs        1800"));
    assert_eq!(json(&[&["inspect", &f.path("m.convc"), "--json"][..], &bound].concat())["macs"], 1800);
}

#[test]
fn compare_exits_6_on_a_difference() {
    let f = Files::new();
    let (a, b) = (f.model("a.onnx", &model(1.0)), f.model("b.onnx", &model(1.5)));
    let sizes = ["--shape", "input:0:1,1,8,8"];
    assert_eq!(json(&[&["compare", &a, &a, "--json"][..], &sizes].concat())["agree"], true);
    assert!(fails(6, &[&["compare", &a, &b][..], &sizes].concat()).contains("1 of 1 outputs differ"));
    ok(&[&["compare", &a, &b, "--atol", "1"][..], &sizes].concat());
    let x = f.inputs([1, 1, 4, 4]);
    let (ya, yb) = (f.path("ya.npz"), f.path("yb.npz"));
    ok(&["run", &a, "--inputs", &x, "-o", &ya]);
    ok(&["run", &b, "--inputs", &x, "-o", &yb]);
    ok(&["compare", &ya, &ya]);
    fails(6, &["compare", &ya, &yb]);
    fails(6, &["compare", &ya, &x]);
    fails(2, &["compare", &a, &ya]);
}

#[test]
fn check_lists_every_problem() {
    let f = Files::new();
    ok(&["check", &f.model("m.onnx", &model(1.0))]);
    let mut bad = model(1.0);
    let graph = bad.graph.as_mut().unwrap();
    graph.node.push(node("Nonesuch", "odd", &["y"], &["z"]));
    graph.node.push(node("Nonesuch2", "odder", &["y"], &["z2"]));
    graph.output.push(value_info("z", &["N"]));
    graph.output.push(value_info("z2", &["N"]));
    let bad = f.model("bad.onnx", &bad);
    let out = convc(&["check", &bad, "--json"]);
    assert_eq!(out.status.code(), Some(3));
    let j: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(j["schema"], "convc.check/1");
    let places: Vec<&str> = j["problems"].as_array().unwrap().iter().map(|p| p["op_type"].as_str().unwrap()).collect();
    assert!(places.contains(&"Nonesuch") && places.contains(&"Nonesuch2"), "{places:?}");
    let text = fails(3, &["run", &bad, "--inputs", &f.inputs([1, 1, 4, 4])]);
    assert!(text.contains("Nonesuch") && text.contains("convc check"), "{text}");
}

#[test]
fn each_kind_of_failure_has_its_exit_code() {
    let f = Files::new();
    let (m, x) = (f.model("m.onnx", &model(1.0)), f.inputs([1, 1, 4, 4]));
    // 1: the system.
    assert!(fails(1, &["run", &f.path("missing.onnx")]).starts_with("error: "));
    fails(1, &["run", &m, "--inputs", &x, "-o", &f.path("missing/y.npz")]);
    // 2: the command line.
    for args in [
        &["frobnicate"][..],
        &["run"],
        &["run", &m, "--threads", "0"],
        &["run", &m, "--isa", "sse9"],
        &["run", &m],
        &["run", &m, "--input", &format!("input:1={x}")],
        &["compile", &m, "-o", &m],
        &["bench", &m, "--shape", "input:0=1"],
        &["run", &m, "--inputs", &m],
        &["compile", &m, "--skip", "nonesuch"],
    ] {
        fails(2, args);
    }
    // 3: the model.
    std::fs::write(f.path("cut.onnx"), &model(1.0).write_to_bytes().unwrap()[..40]).unwrap();
    fails(3, &["run", &f.path("cut.onnx"), "--inputs", &x]);
    fails(3, &["check", &f.path("cut.onnx")]);
    std::fs::write(f.path("cut.convc"), b"CONVC\0\x01\0").unwrap();
    fails(3, &["run", &f.path("cut.convc"), "--inputs", &x]);
    std::fs::write(f.path("other.convc"), b"hello").unwrap();
    assert!(fails(3, &["run", &f.path("other.convc")]).contains("not a plan file"));
    // 5: a limit.
    fails(5, &["run", &m, "--inputs", &x, "--max-nodes", "1"]);
    fails(5, &["check", &m, "--max-nodes", "1"]);
    fails(5, &["run", &m, "--inputs", &x, "--max-elements", "20"]);
}

#[test]
fn what_a_file_says_reaches_no_terminal_unescaped() {
    let f = Files::new();
    let mut m = model(1.0);
    let graph = m.graph.as_mut().unwrap();
    graph.output[0].name = "y\u{1b}[31m".into();
    graph.node[1].output[0] = "y\u{1b}[31m".into();
    let m = f.model("m.onnx", &m);
    let text = ok(&["run", &m, "--inputs", &f.inputs([1, 1, 4, 4])]);
    assert!(!text.contains('\u{1b}') && text.contains("[31m"), "{text}");
}

#[test]
fn lists_agree_in_every_form() {
    let j = json(&["list", "ops", "--json"]);
    assert_eq!(j["schema"], "convc.list/1");
    let names: Vec<&str> = j["ops"].as_array().unwrap().iter().map(|r| r["operator"].as_str().unwrap()).collect();
    assert!(names.contains(&"Conv"));
    assert_eq!(ok(&["list", "ops", "--markdown"]).lines().count(), names.len() + 2);
    assert_eq!(ok(&["list", "ops"]).lines().count(), names.len() + 1);
    ok(&["list", "instructions"]);
    let rules = json(&["list", "rules", "--json"]);
    assert_eq!(rules["rules"].as_array().unwrap().len(), convc::rewrite::rules::all().len());
}

#[test]
fn traces_are_written_read_and_replayed() {
    let f = Files::new();
    // A name that appears in the pages, and a rule that fires.
    let mut m = model(1.0);
    let graph = m.graph.mut_or_insert_default();
    graph.node.push(node("Identity", "id", &["y"], &["z"]));
    graph.output[0].name = "z".into();
    let m = f.model("m.onnx", &m);
    let (out, trace, page) = (f.path("o.onnx"), f.path("t.jsonl"), f.path("r.html"));
    ok(&["optimize", &m, "-o", &out, "--trace", &trace, "--report", &page]);
    assert!(std::fs::read_to_string(&page).unwrap().starts_with("<!doctype html>"));
    assert!(ok(&["trace", "show", &trace]).contains("identity"));
    assert_eq!(json(&["trace", "show", "--json", &trace])["rules"]["identity"], 1);
    assert!(ok(&["trace", "explain", "id", &trace]).contains("Identity(x) => x"));
    assert!(fails(2, &["trace", "explain", "conw", &trace]).contains("\"conv\""));
    ok(&["trace", "why-not", "conv-compose", &trace]);
    ok(&["trace", "why-not", "conv-compose", "conv", &trace]);
    assert!(fails(2, &["trace", "why-not", "conv-composed", &trace]).contains("conv-compose"));
    assert!(ok(&["trace", "dot", &trace]).starts_with("digraph"));
    ok(&["trace", "html", &trace]);
    assert!(Path::new(&f.path("t.html")).exists());
    assert!(ok(&["trace", "replay", &trace, "--model", &m, "--optimized", &out]).starts_with("proved"));
    assert!(fails(6, &["trace", "replay", &trace, "--model", &out]).contains("SHA-256"));
    let text = std::fs::read_to_string(&trace).unwrap();
    std::fs::write(&trace, text.replace("\"rule\":\"identity\"", "\"rule\":\"relu-relu\"")).unwrap();
    assert!(fails(6, &["trace", "replay", &trace]).contains("step 0"));
    fails(3, &["trace", "show", &m]);
    fails(1, &["trace", "show", &f.path("none.jsonl")]);
}
