//! Traces: every node of the file written leads back to the file read, replay proves what was done, and nothing else.

use convc::{
    onnx::{self, ExportOptions, Limits as ModelLimits, Model},
    rewrite::{self, Options},
    trace::{
        Limits, Meta, Side, Trace, TraceError, dot, html,
        replay::{NotProved, replay},
        show,
        walk::Walk,
        why_not,
    },
};
use convc_runtime::Blob;
use onnx_protobuf::{
    AttributeProto, GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};

/// A model under construction: the nodes are named as their outputs.
struct Build {
    graph: GraphProto,
    seed: u32,
}

impl Build {
    fn new(channels: &str) -> Build {
        let graph = GraphProto {
            name: "g".into(),
            input: vec![value_info("x", &["N", channels, "H", "W"])],
            ..Default::default()
        };
        Build { graph, seed: 1 }
    }

    /// Positive numbers below 1.
    fn weight(&mut self, name: &str, dims: &[i64]) -> String {
        let count: i64 = dims.iter().product();
        let mut next = || {
            self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (self.seed >> 8) as f32 / (1u32 << 24) as f32
        };
        self.graph.initializer.push(TensorProto {
            name: name.into(),
            dims: dims.to_vec(),
            data_type: 1,
            float_data: (0..count).map(|_| next()).collect(),
            ..Default::default()
        });
        name.into()
    }

    fn node(&mut self, op: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) -> String {
        self.graph.node.push(NodeProto {
            op_type: op.into(),
            name: output.into(),
            input: inputs.iter().map(|i| (*i).to_owned()).collect(),
            output: vec![output.into()],
            attribute: attributes,
            ..Default::default()
        });
        output.into()
    }

    fn conv(&mut self, x: &str, name: &str, kernel: &[i64], pad: i64, group: i64) -> String {
        let w = self.weight(&format!("{name}.w"), kernel);
        let attributes = vec![ints("pads", &[pad; 4]), int("group", group)];
        self.node("Conv", &[x, &w], name, attributes)
    }

    fn bn(&mut self, x: &str, name: &str, channels: i64) -> String {
        let p: Vec<String> =
            ["g", "b", "m", "v"].iter().map(|p| self.weight(&format!("{name}.{p}"), &[channels])).collect();
        self.node("BatchNormalization", &[x, &p[0], &p[1], &p[2], &p[3]], name, Vec::new())
    }

    fn finish(mut self, output: &str, channels: &str) -> Vec<u8> {
        self.graph.output.push(value_info(output, &["N", channels, "H", "W"]));
        let opset = OperatorSetIdProto { version: 17, ..Default::default() };
        let model = ModelProto {
            ir_version: 8,
            opset_import: vec![opset],
            graph: Some(self.graph).into(),
            ..Default::default()
        };
        model.write_to_bytes().unwrap()
    }
}

fn ints(name: &str, v: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), type_: AttributeType::INTS.into(), ints: v.to_vec(), ..Default::default() }
}

fn int(name: &str, v: i64) -> AttributeProto {
    AttributeProto { name: name.into(), type_: AttributeType::INT.into(), i: v, ..Default::default() }
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

fn conv_bn_relu() -> Vec<u8> {
    let mut b = Build::new("3");
    let c = b.conv("x", "conv", &[4, 3, 3, 3], 1, 1);
    let n = b.bn(&c, "bn", 4);
    let id = b.node("Identity", &[&n], "id", Vec::new());
    let y = b.node("Relu", &[&id], "y", Vec::new());
    b.finish(&y, "4")
}

fn repvgg() -> Vec<u8> {
    let mut b = Build::new("4");
    let stem = b.node("Relu", &["x"], "stem", Vec::new());
    let c3 = b.conv(&stem, "conv3", &[4, 4, 3, 3], 1, 1);
    let n3 = b.bn(&c3, "bn3", 4);
    let c1 = b.conv(&stem, "conv1", &[4, 4, 1, 1], 0, 1);
    let n1 = b.bn(&c1, "bn1", 4);
    let n0 = b.bn(&stem, "bn0", 4);
    let s = b.node("Add", &[&n3, &n1], "add1", Vec::new());
    let s = b.node("Add", &[&s, &n0], "add0", Vec::new());
    let y = b.node("Relu", &[&s], "y", Vec::new());
    b.finish(&y, "4")
}

/// A mean of a product that is needed otherwise.
fn mean_of_gated() -> Vec<u8> {
    let mut b = Build::new("4");
    let s = b.weight("s", &[4, 1, 1]);
    let m = b.node("Mul", &["x", &s], "m", Vec::new());
    let z = b.node("GlobalAveragePool", &[&m], "z", Vec::new());
    let y = b.node("Add", &[&m, &z], "y", Vec::new());
    b.finish(&y, "4")
}

fn depthwise_pointwise() -> Vec<u8> {
    let mut b = Build::new("2");
    let d = b.conv("x", "depthwise", &[18, 1, 3, 3], 1, 2);
    let p = b.conv(&d, "pointwise", &[4, 18, 1, 1], 0, 1);
    // Not to be composed: the second kernel reads what the first's bias leaves at the border.
    let n = b.bn(&p, "bn", 4);
    let r = b.node("Relu", &[&n], "relu", Vec::new());
    let e = b.conv(&r, "next", &[4, 4, 1, 1], 0, 1);
    let e = b.bn(&e, "next_bn", 4);
    let y = b.conv(&e, "y", &[4, 4, 3, 3], 1, 1);
    b.finish(&y, "4")
}

fn do_conv() -> Vec<u8> {
    let mut b = Build::new("3");
    let w = b.weight("W", &[4, 3, 9]);
    let d = b.weight("D", &[3, 9, 9]);
    let mut equation = AttributeProto { name: "equation".into(), s: b"ims,ois->oim".to_vec(), ..Default::default() };
    equation.type_ = AttributeType::STRING.into();
    let e = b.node("Einsum", &[&d, &w], "einsum", vec![equation]);
    b.graph.initializer.push(TensorProto {
        name: "shape".into(),
        dims: vec![4],
        data_type: 7,
        int64_data: vec![4, 3, 3, 3],
        ..Default::default()
    });
    let k = b.node("Reshape", &[&e, "shape"], "reshape", Vec::new());
    let c = b.node("Conv", &["x", &k], "conv", vec![ints("pads", &[1; 4])]);
    let n = b.bn(&c, "bn", 4);
    let y = b.node("Relu", &[&n], "y", Vec::new());
    b.finish(&y, "4")
}

/// A node that is carried as it is, and one with two results, both behind what is rewritten.
fn not_looked_into() -> Vec<u8> {
    let mut b = Build::new("4");
    let c = b.conv("x", "conv", &[4, 4, 3, 3], 1, 1);
    let n = b.bn(&c, "bn", 4);
    b.graph.node.push(NodeProto {
        op_type: "Split".into(),
        name: "split".into(),
        input: vec![n],
        output: vec!["s0".into(), "s1".into()],
        // Parts whose places depend on N are no slices.
        attribute: vec![int("axis", 0)],
        ..Default::default()
    });
    b.graph.node.push(NodeProto {
        op_type: "Mystery".into(),
        domain: "test".into(),
        name: "mystery".into(),
        input: vec!["s0".into()],
        output: vec!["m".into()],
        ..Default::default()
    });
    let y = b.node("Add", &["m", "s1"], "y", Vec::new());
    b.finish(&y, "2")
}

fn all() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("conv_bn_relu", conv_bn_relu()),
        ("repvgg", repvgg()),
        ("depthwise_pointwise", depthwise_pointwise()),
        ("do_conv", do_conv()),
        ("not_looked_into", not_looked_into()),
    ]
}

fn import(bytes: &[u8]) -> Model {
    onnx::import_bytes(Blob::from(bytes.to_vec()), None, &ModelLimits::default()).unwrap()
}

/// The trace of an optimisation, and the file written.
fn optimise(bytes: &[u8]) -> (Trace, Vec<u8>) {
    let mut model = import(bytes);
    let original = model.graph.clone();
    let options = Options::default();
    let rewritten = rewrite::rewrite(std::mem::take(&mut model.graph), &options).unwrap();
    model.graph = rewritten.graph.clone();
    let exported = onnx::export(&model, &ExportOptions { origins: true, ..ExportOptions::default() }).unwrap();
    let meta = Meta { model_sha256: None, options: &options, original: &original, written: &exported.written };
    (Trace::from_rewritten(&rewritten, &meta).unwrap(), exported.model.to_vec())
}

fn bytes_of(trace: &Trace) -> Vec<u8> {
    let mut out = Vec::new();
    trace.write(&mut out).unwrap();
    out
}

#[test]
fn every_node_and_value_of_the_file_written_leads_to_the_file_read() {
    for (model, bytes) in all() {
        let (trace, written) = optimise(&bytes);
        let read = ModelProto::parse_from_bytes(&bytes).unwrap();
        let known: Vec<&str> = (read.graph.node.iter().map(|n| n.name.as_str()))
            .chain(read.graph.initializer.iter().map(|i| i.name.as_str()))
            .chain(["x"])
            .collect();
        let walk = Walk::new(&trace);
        let written = ModelProto::parse_from_bytes(&written).unwrap();
        let names = (written.graph.node.iter().map(|n| &n.name))
            .chain(written.graph.node.iter().flat_map(|n| &n.output))
            .chain(written.graph.initializer.iter().map(|i| &i.name));
        for name in names {
            let found = show::explain(&walk, &trace, name).unwrap().back.unwrap();
            assert!(found.unexplained.is_empty(), "{model}: {name}: {found:?}");
            assert!(!found.read.is_empty(), "{model}: {name} leads nowhere");
            for origin in &found.read {
                assert!(
                    known.contains(&&**origin),
                    "{model}: {name} leads to {origin:?}, which the file does not have"
                );
            }
        }
    }
}

#[test]
fn the_way_names_the_rules() {
    let (trace, written) = optimise(&repvgg());
    let written = ModelProto::parse_from_bytes(&written).unwrap();
    let ops: Vec<&str> = written.graph.node.iter().map(|n| n.op_type.as_str()).collect();
    assert_eq!(ops, ["Relu", "Conv", "Relu"]);
    let walk = Walk::new(&trace);
    let conv = &written.graph.node[1].name;
    let back = show::explain(&walk, &trace, conv).unwrap().back.unwrap();
    let origins: Vec<&str> = back.read.iter().map(String::as_str).filter(|o| !o.contains('.')).collect();
    assert_eq!(origins, ["add0", "add1", "bn0", "bn1", "bn3", "conv1", "conv3"]);
    let rules: Vec<&str> = back.steps.iter().map(|n| &*trace.steps[*n].rule).collect();
    assert!(rules.contains(&"branch-add") && rules.contains(&"fold-weights"), "{rules:?}");
    let forwards = show::explain(&walk, &trace, "bn1").unwrap().forwards.unwrap();
    assert!(forwards.written.contains(conv), "{forwards:?}");
    let text = show::explain(&walk, &trace, conv).unwrap().text(&walk);
    assert!(text.contains("conv3") && text.contains("holds: same-shape"), "{text}");
    let e = show::explain(&walk, &trace, "bn7").unwrap_err();
    assert!(e.known.iter().any(|k| k == "bn1"));
}

#[test]
fn what_did_not_fire_is_said() {
    let (trace, _) = optimise(&depthwise_pointwise());
    let rows = why_not::why_not(&trace, "conv-compose", None).unwrap().not_fired;
    assert!(rows.iter().any(|r| r.condition == "border-exact" && r.origins.contains("y")), "{rows:?}");
    assert_eq!(why_not::why_not(&trace, "conv-compos", None).unwrap_err().what, "rule");
    assert_eq!(why_not::why_not(&trace, "conv-compose", Some("z")).unwrap_err().what, "node");
}

#[test]
fn what_cost_decided_against_is_another_answer_than_no_candidate() {
    let (trace, _) = optimise(&mean_of_gated());
    let rule = "mean-of-scaled";
    let at_mean = why_not::why_not(&trace, rule, Some("z")).unwrap();
    let [declined] = at_mean.declined.as_slice() else { panic!("{at_mean:?}") };
    // The product of the map stays for the sum, so that the other one comes on top of it.
    assert!(declined.before > declined.after && declined.after > 0.0, "{declined:?}");
    let text = why_not::text(&trace, rule, Some("z"), &at_mean);
    assert!(text.contains("cost decided against it: before ") && text.contains(", after "), "{text}");
    let none = why_not::why_not(&trace, "conv-compose", None).unwrap();
    assert_eq!(why_not::text(&trace, "conv-compose", None, &none), "conv-compose found no candidate\n");
    // A rule that was taken is not declined as well.
    let (trace, _) = optimise(&repvgg());
    assert!(trace.steps.iter().any(|s| s.rule == "branch-add"));
    assert!(!trace.declined.iter().any(|d| d.rule == "branch-add" && d.origins.iter().any(|o| o == "add0")));
}

#[test]
fn traces_are_the_same_bytes_and_read_back() {
    for (model, bytes) in all() {
        let (trace, _) = optimise(&bytes);
        let text = bytes_of(&trace);
        assert!(text == bytes_of(&optimise(&bytes).0), "{model}");
        assert!(Trace::read_from(&*text, &Limits::default()).unwrap() == trace, "{model}");
    }
}

#[test]
fn replay_proves_what_was_done() {
    for (model, bytes) in all() {
        let (trace, written) = optimise(&bytes);
        let proof = replay(&trace, None, None).unwrap_or_else(|e| panic!("{model}: {e}"));
        assert!(proof.derived > 0 && proof.computed > 0 && proof.outputs == 1, "{model}: {proof:?}");
        let (read, written) = (import(&bytes).graph, import(&written).graph);
        let proof = replay(&trace, Some(&read), Some(&written)).unwrap_or_else(|e| panic!("{model}: {e}"));
        assert_eq!(proof.not_computed, 0, "{model}");
        if model == "not_looked_into" {
            assert_eq!(proof.opaque, 3);
        }
    }
}

#[test]
fn another_model_or_file_is_refused() {
    let (trace, written) = optimise(&repvgg());
    let (read, other) = (import(&repvgg()).graph, import(&conv_bn_relu()).graph);
    let written = import(&written).graph;
    assert!(matches!(replay(&trace, Some(&other), None), Err(NotProved::Model(_))));
    assert!(matches!(replay(&trace, Some(&read), Some(&other)), Err(NotProved::Optimized(_))));
    assert!(matches!(replay(&trace, Some(&read), Some(&read)), Err(NotProved::Optimized(_))));
    assert!(matches!(replay(&trace, Some(&written), None), Err(NotProved::Model(_))));
}

/// A file written in which a weight differs in one bit.
#[test]
fn another_weight_is_refused() {
    let (trace, written) = optimise(&repvgg());
    let mut proto = ModelProto::parse_from_bytes(&written).unwrap();
    let weight = proto.graph.mut_or_insert_default().initializer.iter_mut().find(|i| i.dims.len() == 4).unwrap();
    weight.raw_data[0] ^= 1;
    let changed = import(&proto.write_to_bytes().unwrap()).graph;
    let e = replay(&trace, Some(&import(&repvgg()).graph), Some(&changed)).unwrap_err();
    assert!(matches!(e, NotProved::Optimized(_)), "{e}");
}

#[test]
fn a_dropped_step_is_found() {
    for (model, bytes) in all() {
        let (trace, _) = optimise(&bytes);
        for dropped in 0..trace.steps.len() {
            if trace.steps[dropped].lhs == trace.steps[dropped].rhs {
                continue;
            }
            let mut t = trace.clone();
            t.steps.remove(dropped);
            t.steps.iter_mut().enumerate().for_each(|(n, s)| s.n = n);
            // Steps that are stated of both branches of a way may be missed; the outputs' own may not.
            if let Ok(proof) = replay(&t, None, None) {
                let all = replay(&trace, None, None).unwrap();
                panic!("{model}: without step {:?}: {proof:?}, with it {all:?}", trace.steps[dropped]);
            }
        }
    }
}

#[test]
fn a_corrupted_step_is_found() {
    for (model, bytes) in all() {
        let (trace, _) = optimise(&bytes);
        let found = |t: &Trace, n: usize| match replay(t, None, None) {
            Err(NotProved::Step { n: at, .. }) => at == n,
            _ => false,
        };
        let ids: Vec<u32> = trace.terms.iter().map(|t| t.id).collect();
        for n in 0..trace.steps.len() {
            let step = &trace.steps[n];
            if step.lhs == step.rhs {
                continue;
            }
            for other in ids.iter().filter(|id| **id != step.rhs) {
                let mut t = trace.clone();
                t.steps[n].rhs = *other;
                assert!(found(&t, n), "{model}: {step:?} may end in term {other}");
            }
            for rule in trace.header.rules.iter().map(|r| r.name.as_str()).chain(["merge-duplicates", "no-such-rule"]) {
                let mut t = trace.clone();
                t.steps[n].rule = rule.into();
                assert!(rule == step.rule || found(&t, n), "{model}: {step:?} may be {rule}");
            }
            if !step.rule.starts_with("fold-") {
                let mut t = trace.clone();
                t.steps[n].conditions.push("always".into());
                assert!(found(&t, n), "{model}: {step:?} may have other conditions");
            }
        }
    }
}

#[test]
fn what_a_node_works_on_is_proved() {
    let (mut trace, _) = optimise(&not_looked_into());
    let x = trace.values.iter().find(|v| v.name == "x").unwrap().term;
    let split = trace.nodes.iter_mut().find(|n| n.side == Side::Written && n.name == "split").unwrap();
    split.operands.as_mut().unwrap()[0] = Some(x);
    assert!(matches!(replay(&trace, None, None), Err(NotProved::Node { .. })));
}

#[test]
fn strict_allows_exact_rules_only() {
    let (mut trace, _) = optimise(&repvgg());
    trace.header.fp = "strict".into();
    assert!(matches!(replay(&trace, None, None), Err(NotProved::Step { .. })));
}

#[test]
fn damaged_files_are_refused_with_their_line() {
    let (trace, _) = optimise(&conv_bn_relu());
    let text = String::from_utf8(bytes_of(&trace)).unwrap();
    let read = |text: &str| Trace::read_from(text.as_bytes(), &Limits::default());
    let lines: Vec<&str> = text.lines().collect();
    for n in 0..lines.len() {
        // Cut off behind every line, and each line left out, doubled and cut short.
        assert!(matches!(read(&lines[..n].join("\n")), Err(TraceError::CutOff)), "{n}");
        let mut without = lines.clone();
        without.remove(n);
        assert!(read(&without.join("\n")).is_err(), "{n}");
        let mut twice = lines.clone();
        twice.insert(n, lines[n]);
        assert!(read(&twice.join("\n")).is_err(), "{n}");
        let mut short = lines.clone();
        short[n] = &lines[n][..lines[n].len() - 1];
        match read(&short.join("\n")) {
            Err(TraceError::Line { line, .. }) => assert_eq!(line, n + 1),
            other => panic!("{n}: {other:?}"),
        }
    }
    assert!(matches!(read(&text.replace("convc.trace/2", "convc.trace/9")), Err(TraceError::Line { line: 1, .. })));
    let small = Limits { line: 100, ..Limits::default() };
    assert!(matches!(Trace::read_from(text.as_bytes(), &small), Err(TraceError::Limit { .. })));
    // Numbers that lie are refused when they are used, never with a panic.
    let digits: Vec<usize> = text.char_indices().filter(|(_, c)| c.is_ascii_digit()).map(|(i, _)| i).collect();
    for i in digits.into_iter().step_by(7) {
        let mut changed = text.clone().into_bytes();
        changed[i] = if changed[i] == b'9' { b'1' } else { b'9' };
        if let Ok(t) = Trace::read_from(&*changed, &Limits::default()) {
            let _ = (replay(&t, None, None), show::summary(&t));
        }
    }
}

#[test]
fn the_documented_trace_is_one() {
    let doc = include_str!("../../docs/trace.md");
    let (_, rest) = doc.split_once("```json\n").unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    let trace = Trace::read_from(text.as_bytes(), &Limits::default()).unwrap();
    assert_eq!(replay(&trace, None, None).unwrap().derived, 1);
    assert_eq!(String::from_utf8(bytes_of(&trace)).unwrap(), text);
}

#[test]
fn pages_and_drawings_escape_names() {
    let (mut trace, _) = optimise(&repvgg());
    let evil = "</script><script>alert(\"1\")</script>\u{1b}[31m";
    trace.nodes.iter_mut().for_each(|n| n.name = evil.into());
    trace.header.rules.iter_mut().for_each(|r| r.equation = evil.into());
    trace.outputs[0].name = evil.into();
    let page = html(&trace, evil);
    assert!(!page.contains("<script") && !page.contains('\u{1b}') && page.contains("&lt;script&gt;"), "{page}");
    let drawing = dot(&trace);
    assert!(!drawing.contains('\u{1b}'));
    // Every quotation mark that is not escaped opens or closes a label.
    for line in drawing.lines() {
        let marks = line.replace("\\\"", "").matches('"').count();
        assert_eq!(marks % 2, 0, "{line}");
    }
}
