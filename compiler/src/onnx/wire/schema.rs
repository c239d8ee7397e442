//! ONNX's messages: which fields they have, and what each holds.

pub(super) const VARINT: u32 = 0;
pub(super) const FIXED64: u32 = 1;
pub(super) const LENGTH: u32 = 2;
pub(super) const START_GROUP: u32 = 3;
pub(super) const END_GROUP: u32 = 4;
pub(super) const FIXED32: u32 = 5;

/// Most fields in any message of the schema.
pub(super) const SLOTS: usize = 18;

pub(super) struct Schema {
    pub(super) fields: &'static [Field],
}

pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: &'static str,
    pub(super) label: Label,
    pub(super) data: Data,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    One,
    Many,
    /// One of the alternatives of a `oneof` of messages.
    Choice,
}

#[derive(Clone, Copy)]
pub(super) enum Data {
    Message(&'static Schema),
    String,
    Bytes,
    /// Bytes that may be elided.
    Raw,
    /// `int32` and enumerations.
    Int32,
    /// `int64` and `uint64`.
    Int64,
    Fixed32,
    Fixed64,
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl Data {
    pub(super) fn describe(self) -> &'static str {
        match self {
            Data::Message(_) => "a message",
            Data::String => "a string",
            Data::Bytes | Data::Raw => "bytes",
            Data::Int32 | Data::Int64 => "an integer",
            Data::Fixed32 => "a float",
            Data::Fixed64 => "a double",
        }
    }
}

pub(super) const fn schema(fields: &'static [Field]) -> Schema {
    assert!(fields.len() <= SLOTS);
    Schema { fields }
}

pub(super) const fn one(number: u32, name: &'static str, data: Data) -> Field {
    Field { number, name, label: Label::One, data }
}

pub(super) const fn many(number: u32, name: &'static str, data: Data) -> Field {
    Field { number, name, label: Label::Many, data }
}

pub(super) const fn choice(number: u32, name: &'static str, data: Data) -> Field {
    Field { number, name, label: Label::Choice, data }
}

pub(super) static MODEL: Schema = schema(&[
    one(1, "ir_version", Data::Int64),
    one(2, "producer_name", Data::String),
    one(3, "producer_version", Data::String),
    one(4, "domain", Data::String),
    one(5, "model_version", Data::Int64),
    one(6, "doc_string", Data::String),
    one(7, "graph", Data::Message(&GRAPH)),
    many(8, "opset_import", Data::Message(&OPERATOR_SET)),
    many(14, "metadata_props", Data::Message(&STRING_ENTRY)),
    many(20, "training_info", Data::Message(&TRAINING_INFO)),
    many(25, "functions", Data::Message(&FUNCTION)),
]);

pub(super) static ATTRIBUTE: Schema = schema(&[
    one(1, "name", Data::String),
    one(2, "f", Data::Fixed32),
    one(3, "i", Data::Int64),
    one(4, "s", Data::Bytes),
    one(5, "t", Data::Message(&TENSOR)),
    one(6, "g", Data::Message(&GRAPH)),
    many(7, "floats", Data::Fixed32),
    many(8, "ints", Data::Int64),
    many(9, "strings", Data::Bytes),
    many(10, "tensors", Data::Message(&TENSOR)),
    many(11, "graphs", Data::Message(&GRAPH)),
    one(13, "doc_string", Data::String),
    one(14, "tp", Data::Message(&TYPE)),
    many(15, "type_protos", Data::Message(&TYPE)),
    one(20, "type", Data::Int32),
    one(21, "ref_attr_name", Data::String),
    one(22, "sparse_tensor", Data::Message(&SPARSE_TENSOR)),
    many(23, "sparse_tensors", Data::Message(&SPARSE_TENSOR)),
]);

pub(super) static VALUE_INFO: Schema = schema(&[
    one(1, "name", Data::String),
    one(2, "type", Data::Message(&TYPE)),
    one(3, "doc_string", Data::String),
    many(4, "metadata_props", Data::Message(&STRING_ENTRY)),
]);

pub(super) static NODE: Schema = schema(&[
    many(1, "input", Data::String),
    many(2, "output", Data::String),
    one(3, "name", Data::String),
    one(4, "op_type", Data::String),
    many(5, "attribute", Data::Message(&ATTRIBUTE)),
    one(6, "doc_string", Data::String),
    one(7, "domain", Data::String),
    one(8, "overload", Data::String),
    many(9, "metadata_props", Data::Message(&STRING_ENTRY)),
]);

pub(super) static TRAINING_INFO: Schema = schema(&[
    one(1, "initialization", Data::Message(&GRAPH)),
    one(2, "algorithm", Data::Message(&GRAPH)),
    many(3, "initialization_binding", Data::Message(&STRING_ENTRY)),
    many(4, "update_binding", Data::Message(&STRING_ENTRY)),
]);

pub(super) static STRING_ENTRY: Schema = schema(&[one(1, "key", Data::String), one(2, "value", Data::String)]);

pub(super) static TENSOR_ANNOTATION: Schema = schema(&[
    one(1, "tensor_name", Data::String),
    many(2, "quant_parameter_tensor_names", Data::Message(&STRING_ENTRY)),
]);

pub(super) static GRAPH: Schema = schema(&[
    many(1, "node", Data::Message(&NODE)),
    one(2, "name", Data::String),
    many(5, "initializer", Data::Message(&TENSOR)),
    one(10, "doc_string", Data::String),
    many(11, "input", Data::Message(&VALUE_INFO)),
    many(12, "output", Data::Message(&VALUE_INFO)),
    many(13, "value_info", Data::Message(&VALUE_INFO)),
    many(14, "quantization_annotation", Data::Message(&TENSOR_ANNOTATION)),
    many(15, "sparse_initializer", Data::Message(&SPARSE_TENSOR)),
    many(16, "metadata_props", Data::Message(&STRING_ENTRY)),
]);

pub(super) static TENSOR_SEGMENT: Schema = schema(&[one(1, "begin", Data::Int64), one(2, "end", Data::Int64)]);

pub(super) static TENSOR: Schema = schema(&[
    many(1, "dims", Data::Int64),
    one(2, "data_type", Data::Int32),
    one(3, "segment", Data::Message(&TENSOR_SEGMENT)),
    many(4, "float_data", Data::Fixed32),
    many(5, "int32_data", Data::Int32),
    many(6, "string_data", Data::Bytes),
    many(7, "int64_data", Data::Int64),
    one(8, "name", Data::String),
    one(9, "raw_data", Data::Raw),
    many(10, "double_data", Data::Fixed64),
    many(11, "uint64_data", Data::Int64),
    one(12, "doc_string", Data::String),
    many(13, "external_data", Data::Message(&STRING_ENTRY)),
    one(14, "data_location", Data::Int32),
    many(16, "metadata_props", Data::Message(&STRING_ENTRY)),
]);

pub(super) static SPARSE_TENSOR: Schema = schema(&[
    one(1, "values", Data::Message(&TENSOR)),
    one(2, "indices", Data::Message(&TENSOR)),
    many(3, "dims", Data::Int64),
]);

pub(super) static TENSOR_SHAPE_DIMENSION: Schema =
    schema(&[one(1, "dim_value", Data::Int64), one(2, "dim_param", Data::String), one(3, "denotation", Data::String)]);

pub(super) static TENSOR_SHAPE: Schema = schema(&[many(1, "dim", Data::Message(&TENSOR_SHAPE_DIMENSION))]);

pub(super) static TYPE_TENSOR: Schema =
    schema(&[one(1, "elem_type", Data::Int32), one(2, "shape", Data::Message(&TENSOR_SHAPE))]);

pub(super) static TYPE_SEQUENCE: Schema = schema(&[one(1, "elem_type", Data::Message(&TYPE))]);

pub(super) static TYPE_MAP: Schema =
    schema(&[one(1, "key_type", Data::Int32), one(2, "value_type", Data::Message(&TYPE))]);

pub(super) static TYPE_OPTIONAL: Schema = schema(&[one(1, "elem_type", Data::Message(&TYPE))]);

pub(super) static TYPE_SPARSE_TENSOR: Schema =
    schema(&[one(1, "elem_type", Data::Int32), one(2, "shape", Data::Message(&TENSOR_SHAPE))]);

pub(super) static TYPE: Schema = schema(&[
    choice(1, "tensor_type", Data::Message(&TYPE_TENSOR)),
    choice(4, "sequence_type", Data::Message(&TYPE_SEQUENCE)),
    choice(5, "map_type", Data::Message(&TYPE_MAP)),
    one(6, "denotation", Data::String),
    choice(8, "sparse_tensor_type", Data::Message(&TYPE_SPARSE_TENSOR)),
    choice(9, "optional_type", Data::Message(&TYPE_OPTIONAL)),
]);

pub(super) static OPERATOR_SET: Schema = schema(&[one(1, "domain", Data::String), one(2, "version", Data::Int64)]);

pub(super) static FUNCTION: Schema = schema(&[
    one(1, "name", Data::String),
    many(4, "input", Data::String),
    many(5, "output", Data::String),
    many(6, "attribute", Data::String),
    many(7, "node", Data::Message(&NODE)),
    one(8, "doc_string", Data::String),
    many(9, "opset_import", Data::Message(&OPERATOR_SET)),
    one(10, "domain", Data::String),
    many(11, "attribute_proto", Data::Message(&ATTRIBUTE)),
    many(12, "value_info", Data::Message(&VALUE_INFO)),
    one(13, "overload", Data::String),
    many(14, "metadata_props", Data::Message(&STRING_ENTRY)),
]);

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::PathBuf, process::Command};

    use super::*;

    /// A message of `onnx.proto`: for each number the name, the label and the type of the field, and of which message it is.
    type Message = BTreeMap<u32, (String, Label, &'static str, String)>;

    /// The messages that the crate onnx-protobuf was generated from, by their full names. It ships the file.
    fn shipped() -> BTreeMap<String, Message> {
        let cargo = |arguments: &[&str]| {
            let run = Command::new(env!("CARGO")).args(arguments).output().unwrap();
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
            String::from_utf8(run.stdout).unwrap()
        };
        // Only the packages of this platform are sure to have been fetched.
        let version = cargo(&["-vV"]);
        let host = version.lines().find_map(|l| l.strip_prefix("host: ")).unwrap();
        let text = cargo(&["metadata", "--format-version", "1", "--offline", "--filter-platform", host]);
        let metadata: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut packages = metadata["packages"].as_array().unwrap().iter();
        let package = packages.find(|p| p["name"] == "onnx-protobuf").unwrap();
        let folder = PathBuf::from(package["manifest_path"].as_str().unwrap()).with_file_name("protos");
        let set = protox::compile([folder.join("onnx.proto")], [folder]).unwrap();

        let mut out = BTreeMap::new();
        for file in set.file {
            let package = format!(".{}", file.package());
            let mut todo: Vec<_> = file.message_type.into_iter().map(|m| (package.clone(), m)).collect();
            while let Some((outer, message)) = todo.pop() {
                let name = format!("{outer}.{}", message.name());
                let fields = message.field.iter().map(|f| {
                    let ty = f.r#type().as_str_name();
                    let label = match f.label().as_str_name() {
                        "LABEL_REPEATED" => Label::Many,
                        _ if f.oneof_index.is_some() && ty == "TYPE_MESSAGE" => Label::Choice,
                        _ => Label::One,
                    };
                    let number = u32::try_from(f.number()).unwrap();
                    (number, (f.name().to_owned(), label, ty, f.type_name().to_owned()))
                });
                out.insert(name.clone(), fields.collect());
                todo.extend(message.nested_type.into_iter().map(|m| (name.clone(), m)));
            }
        }
        out
    }

    /// Whether the schema reads a field as its type is encoded.
    fn fits(data: Data, ty: &str) -> bool {
        match data {
            Data::Message(_) => ty == "TYPE_MESSAGE",
            Data::String => ty == "TYPE_STRING",
            Data::Bytes | Data::Raw => ty == "TYPE_BYTES",
            Data::Int32 => ["TYPE_INT32", "TYPE_ENUM"].contains(&ty),
            Data::Int64 => ["TYPE_INT64", "TYPE_UINT64"].contains(&ty),
            Data::Fixed32 => ty == "TYPE_FLOAT",
            Data::Fixed64 => ty == "TYPE_DOUBLE",
        }
    }

    #[test]
    fn agrees_with_what_the_parser_was_generated_from() {
        let messages = shipped();
        let mut wrong = Vec::new();
        let mut seen: BTreeMap<String, *const Schema> = BTreeMap::new();
        let mut todo: Vec<(String, &'static Schema)> = vec![(".onnx.ModelProto".to_owned(), &MODEL)];
        while let Some((name, schema)) = todo.pop() {
            if let Some(before) = seen.insert(name.clone(), std::ptr::from_ref(schema)) {
                assert!(std::ptr::eq(before, schema), "{name} has two schemas");
                continue;
            }
            let message = &messages[&name];
            let missing = message.iter().filter(|(number, _)| !schema.fields.iter().any(|f| f.number == **number));
            wrong.extend(missing.map(|(number, field)| format!("{name}: {number} {field:?} is not in the schema")));
            for f in schema.fields {
                let Some((field, label, ty, of)) = message.get(&f.number) else {
                    wrong.push(format!("{name} has no field {} {}", f.number, f.name));
                    continue;
                };
                if f.name != field || f.label != *label || !fits(f.data, ty) {
                    wrong.push(format!("{name}: {} {} is {:?}", f.number, f.name, message[&f.number]));
                } else if let Data::Message(inner) = f.data {
                    todo.push((of.clone(), inner));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        let unread: Vec<&String> = messages.keys().filter(|m| !seen.contains_key(*m)).collect();
        assert!(unread.is_empty(), "no field of a model is one of these, or the schema does not know it: {unread:?}");
    }
}
