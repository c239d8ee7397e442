use convc_runtime::Blob;
use onnx_protobuf::{
    AttributeProto, FunctionProto, Message, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    attribute_proto::AttributeType,
};
use protobuf::MessageField;

use super::*;
use crate::{
    ir::{Kind, verify},
    onnx::testing::{model, node, read, value},
};

fn refusal(m: &ModelProto) -> String {
    let bytes = Blob::from(m.write_to_bytes().unwrap());
    let listed = check_bytes(bytes, None, &Limits::default());
    let e = read(m).unwrap_err().to_string();
    assert!(listed.iter().any(|p| p.to_string() == e), "{listed:?} lacks {e}");
    e
}

#[test]
fn a_chain_is_read() {
    let m = read(&model(vec![node("Relu", &["x"], &["a"]), node("Sigmoid", &["a"], &["y"])])).unwrap();
    verify(&m.graph).unwrap();
    assert_eq!(m.graph.len(), 3);
    assert_eq!(m.graph.fact(m.graph.outputs()[0].value).unwrap().to_string(), "f32[N, x_1]");
    assert_eq!(&*m.graph.node(m.graph.outputs()[0].value.node).origins[0], "#1 (Sigmoid)");
}

#[test]
fn nodes_in_any_order_are_read_and_cycles_are_not() {
    let m = read(&model(vec![node("Sigmoid", &["a"], &["y"]), node("Relu", &["x"], &["a"])])).unwrap();
    assert_eq!(m.notes.len(), 1);
    let cycle = model(vec![node("Add", &["x", "y"], &["a"]), node("Relu", &["a"], &["y"])]);
    assert!(refusal(&cycle).contains("node \"#0 (Add)\" (Add, opset 17): lies on or behind a cycle, as 2 nodes do"));
}

#[test]
fn contradictions_name_their_node() {
    let twice = model(vec![node("Relu", &["x"], &["y"]), node("Relu", &["x"], &["y"])]);
    assert!(refusal(&twice).contains("node \"#1 (Relu)\" (Relu, opset 17): defines value \"y\""));
    let missing = model(vec![node("Relu", &["q\n"], &["y"])]);
    assert!(refusal(&missing).contains("uses value \"q\\n\", which nothing defines"));
    let nothing = model(vec![node("Relu", &["x"], &["z"])]);
    assert!(refusal(&nothing).contains("output \"y\": is computed by no node"));
    let mut old = model(vec![node("Relu", &["x"], &["y"])]);
    old.opset_import[0].version = 6;
    assert!(refusal(&old).contains("uses opset 6"));
}

#[test]
fn unknown_operators_are_carried() {
    let mut n = node("Fancy", &["x"], &["y"]);
    n.domain = "com.example".into();
    let m = read(&model(vec![n])).unwrap();
    let out = m.graph.outputs()[0].value;
    assert!(matches!(&m.graph.node(out.node).kind, Kind::Opaque(o) if o.domain == "com.example"));
    assert_eq!(m.notes[0].severity, Severity::Unsupported);
}

#[test]
fn functions_are_inlined_with_their_attributes() {
    let mut inner = node("Fancy", &["p"], &["q"]);
    inner.domain = "com.example".into();
    let mut alpha = AttributeProto { name: "alpha".into(), ref_attr_name: "slope".into(), ..Default::default() };
    alpha.type_ = AttributeType::FLOAT.into();
    inner.attribute.push(alpha);
    let f = FunctionProto {
        name: "F".into(),
        domain: "local".into(),
        input: vec!["p".into()],
        output: vec!["q".into()],
        attribute: vec!["slope".into()],
        node: vec![inner],
        opset_import: vec![OperatorSetIdProto { version: 16, ..Default::default() }],
        ..Default::default()
    };
    let mut call = node("F", &["x"], &["y"]);
    call.domain = "local".into();
    call.name = "c".into();
    let mut slope = AttributeProto { name: "slope".into(), f: 0.5, ..Default::default() };
    slope.type_ = AttributeType::FLOAT.into();
    call.attribute.push(slope);
    let mut m = model(vec![call]);
    m.functions.push(f);
    let read_back = read(&m).unwrap();
    let out = read_back.graph.outputs()[0].value;
    let origin = &*read_back.graph.node(out.node).origins[0];
    assert_eq!((origin, read_back.graph.value_name(out)), ("c/#0 (Fancy)", Some("y")));
    let Kind::Opaque(o) = &read_back.graph.node(out.node).kind else { panic!("not carried") };
    let carried = NodeProto::parse_from_bytes(&o.proto).unwrap();
    assert_eq!((carried.attribute[0].f, carried.attribute[0].ref_attr_name.as_str()), (0.5, ""));

    m.functions[0].node = vec![{
        let mut n = node("F", &["p"], &["q"]);
        n.domain = "local".into();
        n
    }];
    assert!(refusal(&m).contains("calls a function that calls itself"));
}

#[test]
fn initializers_become_constants_or_defaults() {
    let t =
        TensorProto { name: "w".into(), data_type: 1, dims: vec![2], float_data: vec![1., 2.], ..Default::default() };
    let mut m = model(vec![node("Relu", &["w"], &["y"])]);
    m.graph.mut_or_insert_default().initializer.push(t);
    m.graph.mut_or_insert_default().output[0] = value("y", &["2"]);
    assert_eq!(read(&m).unwrap().graph.inputs().len(), 1);
    m.graph.mut_or_insert_default().input.push(value("w", &["2"]));
    let with_default = read(&m).unwrap();
    assert_eq!(with_default.graph.inputs().len(), 2);
    assert!(with_default.graph.default_of(with_default.graph.inputs()[1]).is_some());
    m.ir_version = 3;
    assert_eq!(read(&m).unwrap().graph.inputs().len(), 1);
    m.graph.mut_or_insert_default().initializer[0].dims = vec![3];
    assert!(refusal(&m).contains("initializer \"w\": holds 2 numbers in float_data"));
    m.graph.mut_or_insert_default().initializer[0].dims = vec![1 << 40, 1 << 40];
    assert!(refusal(&m).contains("more elements than can be counted"));
}

#[test]
fn constant_nodes_of_every_form_are_constants() {
    use convc_runtime::Tensor;
    let attribute = |name: &str, kind: AttributeType, fill: &dyn Fn(&mut AttributeProto)| {
        let mut a = AttributeProto { name: name.into(), ..Default::default() };
        a.type_ = kind.into();
        fill(&mut a);
        a
    };
    let t = TensorProto { data_type: 1, dims: vec![1], float_data: vec![3.0], ..Default::default() };
    let cases = [
        (attribute("value", AttributeType::TENSOR, &|a| a.t = Some(t.clone()).into()), Tensor::vector(vec![3.0_f32])),
        (attribute("value_float", AttributeType::FLOAT, &|a| a.f = 2.0), Tensor::scalar(2.0_f32)),
        (attribute("value_floats", AttributeType::FLOATS, &|a| a.floats = vec![2.0]), Tensor::vector(vec![2.0_f32])),
        (attribute("value_int", AttributeType::INT, &|a| a.i = 4), Tensor::scalar(4_i64)),
        (attribute("value_ints", AttributeType::INTS, &|a| a.ints = vec![4, 5]), Tensor::vector(vec![4_i64, 5])),
        (attribute("value_string", AttributeType::STRING, &|a| a.s = b"s".to_vec()), Tensor::scalar("s".to_owned())),
        (
            attribute("value_strings", AttributeType::STRINGS, &|a| a.strings = vec![b"s".to_vec()]),
            Tensor::vector(vec!["s".to_owned()]),
        ),
    ];
    for (a, expected) in cases {
        let mut n = node("Constant", &[], &["k"]);
        n.attribute.push(a);
        let mut m = model(vec![n, node("Relu", &["x"], &["y"])]);
        m.graph.mut_or_insert_default().output.push(ValueInfoProto { name: "k".into(), ..Default::default() });
        let m = read(&m).unwrap();
        let k = m.graph.constant(m.graph.outputs()[1].value).unwrap();
        assert_eq!(k.to_tensor().unwrap(), expected);
    }
    let mut n = node("Constant", &[], &["y"]);
    n.attribute.push(attribute("value_int", AttributeType::FLOAT, &|_| {}));
    assert!(refusal(&model(vec![n])).contains("attribute value_int of kind"));
}

#[test]
fn an_input_without_a_shape_makes_its_users_carried() {
    let mut m = model(vec![node("Relu", &["x"], &["y"])]);
    m.graph.mut_or_insert_default().input[0].type_.mut_or_insert_default().mut_tensor_type().shape =
        MessageField::none();
    let m = read(&m).unwrap();
    assert!(m.notes.iter().any(|p| p.problem.contains("declares no shape")));
    verify(&m.graph).unwrap();
}

/// A constant of integers named `name`; of rank 0 if `scalar`.
fn integers(name: &str, values: &[i64], scalar: bool) -> NodeProto {
    let mut a = AttributeProto { name: "value".into(), ..Default::default() };
    a.type_ = AttributeType::TENSOR.into();
    let dims = if scalar { vec![] } else { vec![values.len() as i64] };
    a.t = MessageField::some(TensorProto { data_type: 7, int64_data: values.to_vec(), dims, ..Default::default() });
    NodeProto { attribute: vec![a], ..node("Constant", &[], &[name]) }
}

fn with_ints(mut n: NodeProto, attributes: &[(&str, i64)]) -> NodeProto {
    for (name, i) in attributes {
        let mut a = AttributeProto { name: (*name).into(), i: *i, ..Default::default() };
        a.type_ = AttributeType::INT.into();
        n.attribute.push(a);
    }
    n
}

/// What a model makes of `x = [[0, 1, 2], [3, 4, 5]]`, and the shape of that; or why it is not run.
fn of_two_rows(nodes: Vec<NodeProto>) -> Result<(Vec<usize>, Vec<f32>), String> {
    let mut m = model(nodes);
    m.graph.as_mut().unwrap().input[0] = value("x", &["2", "3"]);
    m.graph.as_mut().unwrap().output[0].type_ = MessageField::none();
    let m = read(&m).map_err(|e| e.to_string())?;
    verify(&m.graph).unwrap();
    if !m.notes.is_empty() {
        return Err(m.notes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    }
    let plan = crate::lower::lower(&m.graph).map_err(|e| e.to_string())?;
    let session = convc_runtime::session::Session::new(plan.into(), Default::default()).unwrap();
    let x = convc_runtime::Tensor::new(vec![2, 3], (0..6u8).map(f32::from).collect::<Vec<_>>()).unwrap();
    let y = session.run(&[("x".to_owned(), x)].into()).map_err(|e| e.to_string())?.remove(0);
    Ok((y.shape().to_vec(), y.as_slice::<f32>().unwrap().to_vec()))
}

#[test]
fn tensors_of_known_sequences_are_read() {
    let split = |sizes: &[i64], scalar, axis, at: i64| {
        of_two_rows(vec![
            integers("split", sizes, scalar),
            with_ints(node("SplitToSequence", &["x", "split"], &["s"]), &[("axis", axis)]),
            integers("i", &[at], true),
            node("SequenceAt", &["s", "i"], &["y"]),
        ])
    };
    assert_eq!(split(&[1, 2], false, 1, 1), Ok((vec![2, 2], vec![1.0, 2.0, 4.0, 5.0])));
    assert_eq!(split(&[1, 2], false, -1, -2), Ok((vec![2, 1], vec![0.0, 3.0])));
    assert_eq!(split(&[2], true, 1, -1), Ok((vec![2, 1], vec![2.0, 5.0])));
    assert_eq!(split(&[1], true, 0, -1), Ok((vec![1, 3], vec![3.0, 4.0, 5.0])));
    assert!(split(&[2], true, 1, 2).unwrap_err().contains("position 2 of a sequence of 2 tensors"));
    assert!(split(&[1, 3], false, 1, 0).unwrap_err().contains("the pieces are 4 together, not 3"));
    assert!(split(&[i64::MAX, i64::MAX], false, 1, 1).unwrap_err().contains("pieces of"));
    assert!(split(&[4, -1], false, 1, 1).unwrap_err().contains("pieces of"));
    let unbind = |at: i64, keep: &[(&str, i64)]| {
        of_two_rows(vec![
            with_ints(node("SplitToSequence", &["x"], &["s"]), keep),
            integers("i", &[at], true),
            node("SequenceAt", &["s", "i"], &["y"]),
        ])
    };
    assert_eq!(unbind(1, &[("keepdims", 0)]), Ok((vec![3], vec![3.0, 4.0, 5.0])));
    assert_eq!(unbind(-2, &[]), Ok((vec![1, 3], vec![0.0, 1.0, 2.0])));
    let stack = |attributes: &[(&str, i64)]| {
        of_two_rows(vec![
            node("SequenceConstruct", &["x", "x"], &["s"]),
            with_ints(node("ConcatFromSequence", &["s"], &["y"]), attributes),
        ])
    };
    assert_eq!(stack(&[("axis", -1), ("new_axis", 1)]).unwrap().0, [2, 3, 2]);
    assert_eq!(stack(&[("axis", 0)]).unwrap().0, [4, 3]);
    // A sequence that is used as one stays, and says so.
    let position = of_two_rows(vec![
        node("SequenceConstruct", &["x", "x"], &["s"]),
        node("SequenceLength", &["s"], &["i"]),
        node("SequenceAt", &["s", "i"], &["y"]),
    ]);
    assert!(position.unwrap_err().contains("SequenceConstruct"));
}
