//! Small models for tests.

use convc_runtime::Blob;
use onnx_protobuf::{
    GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto, tensor_shape_proto::Dimension,
    type_proto,
};
use protobuf::MessageField;

use super::{Limits, Model, OnnxError, import_bytes};

pub(super) fn value(name: &str, dims: &[&str]) -> ValueInfoProto {
    let mut shape = onnx_protobuf::TensorShapeProto::new();
    for d in dims {
        let mut dim = Dimension::new();
        match d.parse() {
            Ok(n) => dim.set_dim_value(n),
            Err(_) => dim.set_dim_param((*d).into()),
        }
        shape.dim.push(dim);
    }
    let mut t = type_proto::Tensor::new();
    t.elem_type = 1;
    t.shape = MessageField::some(shape);
    let mut v = ValueInfoProto::new();
    v.name = name.into();
    v.type_.mut_or_insert_default().set_tensor_type(t);
    v
}

pub(super) fn node(op_type: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: op_type.into(),
        input: inputs.iter().map(|s| (*s).into()).collect(),
        output: outputs.iter().map(|s| (*s).into()).collect(),
        ..Default::default()
    }
}

pub(super) fn model(nodes: Vec<NodeProto>) -> ModelProto {
    let graph = GraphProto {
        name: "g".into(),
        node: nodes,
        input: vec![value("x", &["N", "?"])],
        output: vec![value("y", &["N", "?"])],
        ..Default::default()
    };
    let opset = OperatorSetIdProto { version: 17, ..Default::default() };
    ModelProto { ir_version: 8, graph: MessageField::some(graph), opset_import: vec![opset], ..Default::default() }
}

pub(super) fn read(m: &ModelProto) -> Result<Model, OnnxError> {
    import_bytes(Blob::from(m.write_to_bytes().unwrap()), None, &Limits::default())
}
