use convc_runtime::{Blob, Data, Tensor};
use onnx_protobuf::{AttributeProto, GraphProto, TensorProto, attribute_proto::AttributeType};

use super::*;
use crate::{
    ir::{Kind, verify},
    onnx::{
        Limits, import, import_bytes,
        testing::{model, node, read, value},
    },
};

fn written(m: &Model, options: &ExportOptions) -> ModelProto {
    let bytes = export(m, options).unwrap().model.to_vec();
    assert_eq!(bytes, export(m, options).unwrap().model.to_vec());
    let again = import_bytes(Blob::from(bytes.clone()), None, &Limits::default()).unwrap();
    verify(&again.graph).unwrap();
    ModelProto::parse_from_bytes(&bytes).unwrap()
}

fn graph_attribute(name: &str, nodes: Vec<NodeProto>, output: &str) -> AttributeProto {
    let mut a = AttributeProto { name: name.into(), ..Default::default() };
    a.type_ = AttributeType::GRAPH.into();
    let output = vec![ValueInfoProto { name: output.into(), ..Default::default() }];
    a.g = MessageField::some(GraphProto { name: name.into(), node: nodes, output, ..Default::default() });
    a
}

fn initializer(name: &str, values: &[f32]) -> TensorProto {
    let dims = vec![i64::try_from(values.len()).unwrap()];
    TensorProto { name: name.into(), data_type: 1, dims, float_data: values.to_vec(), ..Default::default() }
}

#[test]
fn what_the_graph_does_not_change_is_written_as_read() {
    let mut m = model(vec![node("Relu", &["x"], &["a"]), node("Sigmoid", &["a"], &["y"])]);
    m.producer_name = "p".into();
    m.opset_import.push(OperatorSetIdProto { domain: "unused".into(), version: 3, ..Default::default() });
    m.metadata_props = entries(&[("k".into(), "v".into())]);
    let mut back = written(&read(&m).unwrap(), &ExportOptions::default());
    m.opset_import.pop();
    assert_eq!(back, m);
    let with = ExportOptions { origins: true, ..ExportOptions::default() };
    back = written(&read(&m).unwrap(), &with);
    assert_eq!(back.metadata_props[1].value, r##"{"relu":["#0 (Relu)"],"sigmoid":["#1 (Sigmoid)"]}"##);
    m.ir_version = 10;
    back = written(&read(&m).unwrap(), &with);
    assert_eq!(back.graph.node[1].metadata_props[0].value, r##"["#1 (Sigmoid)"]"##);
}

#[test]
fn outputs_that_no_node_computes_alone_are_copied() {
    let mut m = model(vec![node("Relu", &["x"], &["y"])]);
    let g = m.graph.mut_or_insert_default();
    g.initializer.push(initializer("w", &[1., 2.]));
    g.output.push(value("x", &["N", "?"]));
    g.output.push(value("w", &["2"]));
    let mut read_back = read(&m).unwrap();
    let v = read_back.graph.outputs()[0].value;
    read_back.graph.add_output("z", v, None);
    let input = read_back.graph.inputs()[0];
    read_back.graph.add_output("x2", input, None);
    let g = written(&read_back, &ExportOptions::default()).graph.unwrap();
    let nodes: Vec<String> = g.node.iter().map(|n| format!("{} {:?} {:?}", n.op_type, n.input, n.output)).collect();
    assert_eq!(
        nodes,
        [r#"Relu ["x"] ["y"]"#, r#"Identity ["w_1"] ["w"]"#, r#"Identity ["y"] ["z"]"#, r#"Identity ["x"] ["x2"]"#]
    );
}

#[test]
fn before_ir_4_initializers_are_inputs() {
    let mut m = model(vec![node("Add", &["x", "w"], &["y"])]);
    m.ir_version = 3;
    let g = m.graph.mut_or_insert_default();
    g.initializer.push(initializer("w", &[1.]));
    g.input.push(value("w", &["1"]));
    let back = written(&read(&m).unwrap(), &ExportOptions::default());
    assert_eq!(back.graph.input, m.graph.input);
}

#[test]
fn branches_capture_by_name_through_levels() {
    let inner = node("Relu", &["x"], &["i"]);
    let mut nested = node("If", &["c"], &["n"]);
    nested.attribute.push(graph_attribute("then_branch", vec![node("Add", &["x", "a"], &["i2"])], "i2"));
    nested.attribute.push(graph_attribute("else_branch", vec![inner.clone()], "i"));
    let mut outer = node("If", &["c"], &["y"]);
    outer.attribute.push(graph_attribute("else_branch", vec![inner], "i"));
    outer.attribute.push(graph_attribute("then_branch", vec![nested], "n"));
    let mut m = model(vec![node("Sigmoid", &["x"], &["a"]), outer]);
    let mut c = value("c", &[]);
    c.type_.mut_or_insert_default().mut_tensor_type().elem_type = 9;
    m.graph.mut_or_insert_default().input.push(c);
    let mut read_back = read(&m).unwrap();
    verify(&read_back.graph).unwrap();
    let out = read_back.graph.outputs()[0].value;
    assert!(matches!(read_back.graph.node(out.node).kind, Kind::If { .. }));
    assert_eq!(read_back.graph.fact(out).unwrap().rank(), 2);
    let a = read_back.graph.node(out.node).operands().iter().flatten().copied();
    let a = a.into_iter().find(|v| read_back.graph.value_name(*v) == Some("a")).unwrap();
    read_back.graph.set_value_name(a, "renamed");
    let back = written(&read_back, &ExportOptions::default());
    let text = format!("{:?}", back.graph.node[1]);
    assert!(text.contains("renamed") && !text.contains("\"a\""), "{text}");
}

#[test]
fn carried_nodes_follow_renamed_captures_and_keep_their_data() {
    let mut add = node("Add", &["a", "big"], &["y0"]);
    add.name = "inside".into();
    let mut body = graph_attribute("body", vec![add], "y0");
    let mut big = initializer("big", &[]);
    big.dims = vec![1000];
    big.raw_data = vec![7; 4000];
    body.g.mut_or_insert_default().initializer.push(big.clone());
    let mut n = node("Fancy", &["x"], &["y"]);
    n.domain = "com.example".into();
    n.attribute.push(body);
    let mut m = model(vec![node("Relu", &["x"], &["a"]), n]);
    m.opset_import.push(OperatorSetIdProto { domain: "com.example".into(), version: 2, ..Default::default() });
    let mut read_back = read(&m).unwrap();
    assert_eq!(written(&read_back, &ExportOptions::default()), m);
    let a = read_back.graph.nodes().into_iter().find(|&id| read_back.graph.node(id).op().is_some()).unwrap();
    // The new name is one that the nested graph defines.
    read_back.graph.set_value_name(crate::ir::Value { node: a, port: 0 }, "y0");
    let back = written(&read_back, &ExportOptions::default());
    let g = &back.graph.node[1].attribute[0].g;
    assert_eq!((g.node[0].input[0].as_str(), g.node[0].output[0].as_str()), ("y0", "y0_1"));
    assert_eq!((g.output[0].name.as_str(), &g.initializer[0]), ("y0_1", &big));
}

#[test]
fn files_are_written_whole_and_none_is_overwritten_by_weights() {
    let dir = tempfile::tempdir().unwrap();
    let mut m = model(vec![node("Add", &["x", "w"], &["y"])]);
    let values: Vec<f32> = (0..1000_u16).map(f32::from).collect();
    m.graph.mut_or_insert_default().initializer.push(initializer("w", &values));
    let read_back = read(&m).unwrap();
    let path = dir.path().join("m.onnx");
    let options = ExportOptions { largest_file: 3000, ..ExportOptions::default() };
    assert_eq!(save(&read_back, &path, &options).unwrap().files, [dir.path().join("m.onnx.data"), path.clone()]);
    let again = import(&path, &Limits::default()).unwrap();
    let w = again.graph.nodes().into_iter().find_map(|id| match &again.graph.node(id).kind {
        Kind::Constant(c) => Some(c.to_tensor().unwrap()),
        _ => None,
    });
    assert_eq!(w.as_ref().map(Tensor::data), Some(&Data::F32(std::sync::Arc::new(values))));
    // The same content is not written again; other content goes elsewhere.
    assert_eq!(save(&read_back, &path, &options).unwrap().files, std::slice::from_ref(&path));
    std::fs::write(dir.path().join("m.onnx.data"), b"theirs").unwrap();
    let files = save(&read_back, &path, &options).unwrap().files;
    assert!(files[0].to_str().unwrap().ends_with(".data") && files.len() == 2);
    assert_eq!(std::fs::read(dir.path().join("m.onnx.data")).unwrap(), b"theirs");
    import(&path, &Limits::default()).unwrap();
    let tiny = ExportOptions { largest_file: 10, ..ExportOptions::default() };
    assert!(matches!(save(&read_back, &path, &tiny), Err(WriteError::TooLarge { .. })));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
}
