//! Mutations of a model's messages: names, types, shapes, attributes, nesting, functions, external data.

use onnx_protobuf::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, SparseTensorProto,
    StringStringEntryProto, TensorProto, ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataLocation,
    tensor_shape_proto::Dimension,
};
use protobuf::{EnumOrUnknown, MessageField};

use super::Random;

/// Changes one thing of the model.
pub fn mutate_message(m: &mut ModelProto, r: &mut Random) {
    match r.below(24) {
        0 => m.ir_version = r.integer() % 16,
        1 => {
            let version = if r.one_in(4) { r.integer() } else { 1 + r.integer().rem_euclid(30) };
            match m.opset_import.first_mut() {
                Some(o) if !r.one_in(4) => o.version = version,
                _ => m.opset_import.push(OperatorSetIdProto { version, ..Default::default() }),
            }
        }
        2 => make_function(m, r),
        3 => drop(m.opset_import.pop()),
        4 => m.metadata_props.push(StringStringEntryProto { key: text(r), value: text(r), ..Default::default() }),
        _ => {
            if let Some(g) = m.graph.as_mut() {
                mutate_graph(g, r);
            }
        }
    }
}

fn text(r: &mut Random) -> String {
    const ODD: &[&str] = &[
        "",
        "x",
        "\0",
        "\u{1b}[2J",
        "../../etc/passwd",
        "C:\\x",
        "\u{202e}",
        "a/b",
        "?",
        "(s0//4)",
        "💥",
        "NOTSET",
        "SAME_UPPER",
        "bilinear",
    ];
    if r.one_in(20) { "n".repeat(r.below(100_000)) } else { (*r.pick(ODD).unwrap_or(&"")).to_owned() }
}

/// A name of a value of the graph, mostly.
fn value_name(g: &GraphProto, r: &mut Random) -> String {
    let known = match r.below(4) {
        0 => r.pick(&g.input).map(|v| v.name.clone()),
        1 => r.pick(&g.initializer).map(|t| t.name.clone()),
        _ => r.pick(&g.node).and_then(|n| n.output.first().cloned()),
    };
    known.filter(|_| !r.one_in(12)).unwrap_or_else(|| text(r))
}

fn mutate_graph(g: &mut GraphProto, r: &mut Random) {
    let (nodes, tensors, inputs) = (g.node.len(), g.initializer.len(), g.input.len());
    match r.below(16) {
        0 if nodes > 0 => drop(g.node.remove(r.below(nodes))),
        1 if nodes > 0 => {
            let copy = g.node[r.below(nodes)].clone();
            g.node.insert(r.below(nodes + 1), copy);
        }
        2 if nodes > 1 => g.node.swap(r.below(nodes), r.below(nodes)),
        3 if nodes > 0 => {
            let name = value_name(g, r);
            let (i, node) = (r.below(8), r.below(nodes));
            let n = &mut g.node[node];
            match n.input.get_mut(i) {
                Some(slot) => *slot = name,
                None => n.input.push(name),
            }
        }
        4 if nodes > 0 => {
            let name = value_name(g, r);
            let node = r.below(nodes);
            let n = &mut g.node[node];
            match r.below(3) {
                0 => drop(n.input.pop()),
                1 => n.output.push(name),
                _ => n.output.iter_mut().take(1).for_each(|o| o.clone_from(&name)),
            }
        }
        5 if nodes > 0 => {
            let names = convc::ops::readable();
            let op = r.pick(&names).map_or_else(|| text(r), |s| (*s).to_owned());
            let i = r.below(nodes);
            match r.below(8) {
                0 => g.node[i].op_type = text(r),
                1 => g.node[i].domain = ["ai.onnx", "ai.convc", "com.microsoft", "local"][r.below(4)].into(),
                2 => g.node[i].name = text(r),
                _ => g.node[i].op_type = op,
            }
        }
        6 if tensors > 0 => {
            let i = r.below(tensors);
            mutate_tensor(&mut g.initializer[i], r);
        }
        7 if tensors > 0 => match r.below(4) {
            0 => drop(g.initializer.remove(r.below(tensors))),
            1 => {
                let copy = g.initializer[r.below(tensors)].clone();
                g.initializer.push(copy);
            }
            2 => {
                let name = g.initializer[r.below(tensors)].name.clone();
                g.input.push(ValueInfoProto { name, ..Default::default() });
            }
            _ => make_sparse(g, r),
        },
        8 if inputs > 0 => {
            let i = r.below(inputs);
            mutate_declaration(&mut g.input[i], r);
        }
        9 => {
            let n = g.output.len();
            let name = value_name(g, r);
            match r.below(4) {
                0 if n > 0 => drop(g.output.pop()),
                1 if n > 0 => mutate_declaration(&mut g.output[r.below(n)], r),
                2 if n > 0 => g.output[0].name = name,
                _ => g.output.push(ValueInfoProto { name, ..Default::default() }),
            }
        }
        10 if nodes > 0 => nest(g, r),
        _ if nodes > 0 => {
            let i = r.below(nodes);
            mutate_attributes(&mut g.node[i], r);
        }
        _ => {}
    }
}

fn mutate_tensor(t: &mut TensorProto, r: &mut Random) {
    match r.below(9) {
        0 => t.data_type = i32::try_from(r.below(30)).unwrap_or(0),
        1 => match r.below(t.dims.len() + 1) {
            i if i < t.dims.len() => t.dims[i] = r.integer(),
            _ => t.dims.push(r.integer()),
        },
        2 => drop(t.dims.pop()),
        3 => t.raw_data.truncate(r.below(t.raw_data.len() + 1)),
        4 => {
            let value = r.integer().to_le_bytes();
            let at = r.below(t.raw_data.len() / 8 + 1) * 8;
            if let Some(slot) = t.raw_data.get_mut(at..at + 8) {
                slot.copy_from_slice(&value);
            }
        }
        5 => t.int64_data.push(r.integer()),
        6 => t.name = text(r),
        7 => {
            t.data_location = DataLocation::EXTERNAL.into();
            t.raw_data.clear();
            let entry =
                |key: &str, value: String| StringStringEntryProto { key: key.into(), value, ..Default::default() };
            t.external_data = vec![
                entry("location", text(r)),
                entry("offset", r.integer().to_string()),
                entry("length", r.integer().to_string()),
            ];
        }
        _ => t.segment.mut_or_insert_default().begin = r.integer(),
    }
}

fn mutate_declaration(v: &mut ValueInfoProto, r: &mut Random) {
    if r.one_in(10) {
        v.name = text(r);
        return;
    }
    let Some(ty) = v.type_.as_mut().filter(|t| t.has_tensor_type()) else { return };
    let t = ty.mut_tensor_type();
    match r.below(6) {
        0 => t.elem_type = i32::try_from(r.below(30)).unwrap_or(0),
        1 => t.shape = MessageField::none(),
        2 => drop(t.shape.mut_or_insert_default().dim.pop()),
        _ => {
            let mut d = Dimension::new();
            match r.below(3) {
                0 => d.set_dim_param(text(r)),
                1 => d.set_dim_value(r.integer()),
                _ => d.set_dim_param("N".into()),
            }
            let dims = &mut t.shape.mut_or_insert_default().dim;
            match r.below(dims.len() + 1) {
                i if i < dims.len() => dims[i] = d,
                _ => dims.push(d),
            }
        }
    }
}

fn mutate_attributes(n: &mut NodeProto, r: &mut Random) {
    const NAMES: &[&str] = &[
        "axis",
        "axes",
        "pads",
        "strides",
        "dilations",
        "group",
        "kernel_shape",
        "auto_pad",
        "perm",
        "to",
        "value",
        "alpha",
        "epsilon",
        "mode",
        "ceil_mode",
        "keepdims",
        "output_shape",
        "output_padding",
        "num_outputs",
        "equation",
        "allowzero",
    ];
    let count = n.attribute.len();
    if count == 0 || r.one_in(4) {
        let mut a = AttributeProto { name: (*r.pick(NAMES).unwrap_or(&"axis")).into(), ..Default::default() };
        fill(&mut a, r);
        n.attribute.push(a);
        return;
    }
    let i = r.below(count);
    match r.below(8) {
        0 => drop(n.attribute.remove(i)),
        1 => n.attribute.push(n.attribute[i].clone()),
        2 => n.attribute[i].type_ = EnumOrUnknown::from_i32(i32::try_from(r.below(16)).unwrap_or(0)),
        3 => n.attribute[i].ref_attr_name = text(r),
        4 => fill(&mut n.attribute[i], r),
        _ => {
            let a = &mut n.attribute[i];
            if a.type_.enum_value() == Ok(AttributeType::TENSOR) {
                mutate_tensor(a.t.mut_or_insert_default(), r);
            } else if a.ints.is_empty() || r.one_in(8) {
                a.i = r.integer();
                a.ints.push(a.i);
                a.f = f32::from_bits(0x7f80_0000 ^ u32::try_from(r.below(3)).unwrap_or(0));
                a.s = text(r).into_bytes();
            } else {
                let k = r.below(a.ints.len());
                a.ints[k] = r.integer();
            }
        }
    }
}

fn fill(a: &mut AttributeProto, r: &mut Random) {
    let kind = match r.below(4) {
        0 => {
            a.i = r.integer();
            AttributeType::INT
        }
        1 => {
            a.s = text(r).into_bytes();
            AttributeType::STRING
        }
        2 => {
            a.f = [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-40][r.below(5)];
            AttributeType::FLOAT
        }
        _ => {
            a.ints = (0..r.below(6)).map(|_| r.integer()).collect();
            AttributeType::INTS
        }
    };
    a.type_ = kind.into();
}

fn make_sparse(g: &mut GraphProto, r: &mut Random) {
    let Some(t) = g.initializer.pop() else { return };
    let ints =
        |dims: Vec<i64>, data: Vec<i64>| TensorProto { data_type: 7, dims, int64_data: data, ..Default::default() };
    let n = i64::try_from(r.below(4)).unwrap_or(0);
    let values = TensorProto {
        dims: vec![n],
        float_data: vec![1.0; r.below(4)],
        data_type: 1,
        name: t.name,
        ..Default::default()
    };
    let indices = ints(vec![n], (0..n).map(|_| r.integer()).collect());
    g.sparse_initializer.push(SparseTensorProto {
        values: MessageField::some(values),
        indices: MessageField::some(indices),
        dims: vec![r.integer(), r.integer()],
        ..Default::default()
    });
}

fn graph_attribute(name: &str, g: GraphProto) -> AttributeProto {
    let mut a = AttributeProto { name: name.into(), ..Default::default() };
    a.type_ = AttributeType::GRAPH.into();
    a.g = MessageField::some(g);
    a
}

/// Moves one node into the branches of an `If`, or the body of something else, up to many levels deep.
fn nest(g: &mut GraphProto, r: &mut Random) {
    let i = r.below(g.node.len());
    let condition = TensorProto { name: "cond".into(), data_type: 9, int32_data: vec![1], ..Default::default() };
    g.initializer.push(condition);
    let levels = if r.one_in(10) { 40 } else { 3 };
    let original = g.node[i].clone();
    for _ in 0..=r.below(levels) {
        let node = g.node[i].clone();
        let output: Vec<ValueInfoProto> =
            node.output.iter().map(|name| ValueInfoProto { name: name.clone(), ..Default::default() }).collect();
        let outer = node.output.clone();
        let body = GraphProto { name: "b".into(), node: vec![node], output, ..Default::default() };
        let flat = GraphProto { node: vec![original.clone()], ..body.clone() };
        let loops = r.one_in(4);
        g.node[i] = NodeProto {
            op_type: if loops { "Loop" } else { "If" }.into(),
            input: vec!["cond".into()],
            output: outer,
            attribute: if loops {
                vec![graph_attribute("body", body)]
            } else {
                vec![graph_attribute("then_branch", body.clone()), graph_attribute("else_branch", flat)]
            },
            ..Default::default()
        };
    }
}

/// Turns a node into a call of a local function: one that holds the node, one that calls itself, or the first of a chain
/// in which each calls the next twice.
fn make_function(m: &mut ModelProto, r: &mut Random) {
    let Some(g) = m.graph.as_mut() else { return };
    if g.node.is_empty() {
        return;
    }
    let i = r.below(g.node.len());
    let node = g.node[i].clone();
    let call = |name: String, input: &[String], output: &[String]| NodeProto {
        op_type: name,
        domain: "local".into(),
        input: input.to_vec(),
        output: output.to_vec(),
        ..Default::default()
    };
    let levels = [0, 1, 40][r.below(3)];
    g.node[i] = call("F0".into(), &node.input, &node.output);
    m.opset_import.push(OperatorSetIdProto { domain: "local".into(), version: 1, ..Default::default() });
    for level in 0..=levels {
        let mut f = FunctionProto {
            name: format!("F{level}"),
            domain: "local".into(),
            input: node.input.clone(),
            output: node.output.clone(),
            opset_import: m.opset_import.clone(),
            ..Default::default()
        };
        let next = if r.one_in(8) { 0 } else { level + 1 };
        f.node = if level == levels && !r.one_in(4) {
            vec![node.clone()]
        } else {
            let inner: Vec<String> = node.output.iter().map(|o| format!("{o}_")).collect();
            vec![call(format!("F{next}"), &node.input, &inner), call(format!("F{next}"), &node.input, &node.output)]
        };
        m.functions.push(f);
    }
}
