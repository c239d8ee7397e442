//! TopK. K is an attribute before opset 10; `largest` and `sorted` exist since opset 11.

use convc_runtime::{AttrValue, ops::TopK};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator, concat::is_last, properties::Properties,
    reshape::first_name,
};
use crate::ir::Value;

impl OnnxOperator for TopK {
    const READS: &'static [&'static str] = &["TopK"];
    const EXECUTED: &'static [super::Executed] = &[
        ("TopK", 1, types![F32, F64, F16]),
        ("TopK", 11, types![I8, I16, I32, I64, U8]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "X")?;
        let axis = node.axis("axis", -1)?;
        let k = if node.opset() >= 10 {
            node.required(1, "K")?
        } else {
            let k = node.int("k")?.ok_or_else(|| ImportError::Invalid("attribute k is missing".into()))?;
            node.add_ints(&[k])?
        };
        let largest = node.int("largest")?.unwrap_or(1) != 0;
        let sorted = node.int("sorted")?.unwrap_or(1) != 0;
        node.emit(TopK { axis, largest, sorted }, vec![Some(x), Some(k)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let mut attrs = Vec::new();
        if !is_last(node, self.axis) {
            attrs.push(("axis", AttrValue::Int(self.axis)));
        }
        if !self.largest {
            if node.opset() < 11 {
                return Err(node.refuse("the smallest elements"));
            }
            attrs.push(("largest", AttrValue::Int(0)));
        }
        // A sorted result is one of those that an unsorted one may be.
        if !self.sorted && node.opset() >= 11 {
            attrs.push(("sorted", AttrValue::Int(0)));
        }
        if node.opset() >= 10 {
            return node.emit("TopK", attrs);
        }
        let k = node.constant_ints(1, "K")?.unwrap_or_default();
        let &[k] = k.as_slice() else { return Err(node.refuse("other than one K")) };
        attrs.push(("k", AttrValue::Int(k)));
        node.node("TopK", first_name(node), node.output_names(), attrs);
        Ok(())
    }

    fn properties(&self) -> Properties {
        Properties::unknown()
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact, Tensor};

    use crate::ops::testing::{Arg, int, read, read_args, write};

    #[test]
    fn k_is_an_attribute_before_opset_10() {
        let x = Fact::fixed(DType::F32, &[2, 5]);
        let attrs = vec![int("axis", 0), int("k", 1)];
        let (graph, y) = read("TopK", 7, std::slice::from_ref(&x), attrs.clone(), 2).unwrap();
        assert_eq!(graph.fact(y[1]).and_then(Fact::fixed_shape), Some(vec![1, 5]));
        assert_eq!(write(&graph, y[0], 9).unwrap()[0].attrs, attrs);
        assert_eq!(write(&graph, y[0], 10).unwrap()[0].inputs.len(), 2);
        let args = [Arg::Input(x), Arg::Constant(Tensor::vector(vec![3i64]))];
        let (graph, y) = read_args("TopK", 11, &args, vec![int("largest", 0), int("sorted", 0)], 2).unwrap();
        assert_eq!(write(&graph, y[0], 11).unwrap()[0].attrs, [int("largest", 0), int("sorted", 0)]);
        assert!(write(&graph, y[0], 10).is_err());
        assert!(read_args("TopK", 11, &args, vec![int("axis", 0)], 2).is_err());
    }
}
