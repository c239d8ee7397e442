//! Attributes and nodes between protobuf and the operators.

use convc_runtime::{AttrValue, Constant, Data};
use onnx_protobuf::{AttributeProto, NodeProto, TensorProto, attribute_proto::AttributeType};

use crate::ops::{ImportError, WrittenNode, dtype_to_onnx};

/// A node that an operator wrote.
pub(super) fn node_proto(written: WrittenNode) -> NodeProto {
    let WrittenNode { domain, op_type, inputs, outputs, attrs } = written;
    NodeProto {
        domain,
        op_type,
        input: inputs,
        output: outputs,
        attribute: attrs.into_iter().map(|(name, value)| attribute_proto(&name, value)).collect(),
        ..Default::default()
    }
}

/// A typed attribute as ONNX writes it.
#[must_use]
pub fn attribute_proto(name: &str, value: AttrValue) -> AttributeProto {
    let mut a = AttributeProto::new();
    a.name = name.to_owned();
    let kind = match value {
        AttrValue::Int(v) => {
            a.i = v;
            AttributeType::INT
        }
        AttrValue::Float(v) => {
            a.f = v;
            AttributeType::FLOAT
        }
        AttrValue::Str(v) => {
            a.s = v.into_bytes();
            AttributeType::STRING
        }
        AttrValue::Ints(v) => {
            a.ints = v;
            AttributeType::INTS
        }
        AttrValue::Floats(v) => {
            a.floats = v;
            AttributeType::FLOATS
        }
        AttrValue::Strs(v) => {
            a.strings = v.into_iter().map(String::into_bytes).collect();
            AttributeType::STRINGS
        }
        AttrValue::Tensor(t) => {
            let mut proto = TensorProto::new();
            proto.dims = t.shape().iter().map(|&d| i64::try_from(d).unwrap_or(i64::MAX)).collect();
            proto.data_type = dtype_to_onnx(t.dtype());
            match (t.data(), Constant::from_tensor(&t)) {
                (Data::Str(v), _) => proto.string_data = v.iter().map(|s| s.clone().into_bytes()).collect(),
                (_, Ok(c)) => proto.raw_data = c.bytes().as_bytes().to_vec(),
                (_, Err(_)) => {}
            }
            a.t = Some(proto).into();
            AttributeType::TENSOR
        }
    };
    a.type_ = kind.into();
    a
}

/// An ONNX attribute as a typed value. Tensors are handed in by the caller, who knows where their data lies.
///
/// # Errors
/// [`ImportError::Unsupported`] for graphs, sparse tensors and types; [`ImportError::Invalid`] for text that is not UTF-8.
pub fn attribute_value(
    a: &AttributeProto,
    tensor: &mut dyn FnMut(&TensorProto) -> Result<Constant, ImportError>,
) -> Result<AttrValue, ImportError> {
    let text = |bytes: &[u8]| {
        String::from_utf8(bytes.to_vec())
            .map_err(|_| ImportError::Invalid(format!("attribute {} is not UTF-8", a.name)))
    };
    let kind = a.type_.enum_value().unwrap_or(AttributeType::UNDEFINED);
    Ok(match kind {
        AttributeType::INT => AttrValue::Int(a.i),
        AttributeType::FLOAT => AttrValue::Float(a.f),
        AttributeType::STRING => AttrValue::Str(text(&a.s)?),
        AttributeType::INTS => AttrValue::Ints(a.ints.clone()),
        AttributeType::FLOATS => AttrValue::Floats(a.floats.clone()),
        AttributeType::STRINGS => AttrValue::Strs(a.strings.iter().map(|s| text(s)).collect::<Result<_, _>>()?),
        AttributeType::TENSOR => AttrValue::Tensor(tensor(&a.t)?.to_tensor()?),
        other => return Err(ImportError::Unsupported(format!("attribute {} of kind {other:?}", a.name))),
    })
}
