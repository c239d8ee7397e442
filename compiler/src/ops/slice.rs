//! Slice. Before opset 10 starts, ends and axes are attributes and all steps are 1.

use convc_runtime::{AttrValue, ops::Slice};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{Movement, Operands, Properties},
    reshape::first_name,
};
use crate::ir::Value;

impl OnnxOperator for Slice {
    const READS: &'static [&'static str] = &["Slice"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Slice", 1, types![F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Str]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "data")?;
        if node.opset() >= 10 {
            let operands = vec![Some(x), node.operand(1), node.operand(2), node.operand(3), node.operand(4)];
            return node.emit(Slice {}, operands);
        }
        let mut operands = vec![Some(x)];
        for (name, required) in [("starts", true), ("ends", true), ("axes", false)] {
            operands.push(match node.ints(name)? {
                Some(v) => Some(node.add_ints(&v)?),
                None if required => return Err(ImportError::Invalid(format!("attribute {name} is missing"))),
                None => None,
            });
        }
        node.emit(Slice {}, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        if node.opset() >= 10 {
            return node.emit("Slice", Vec::new());
        }
        if node.constant_ints(4, "steps")?.is_some_and(|s| s.iter().any(|&s| s != 1)) {
            return Err(node.refuse("steps other than 1"));
        }
        let mut attrs = Vec::new();
        for (i, name) in [(1, "starts"), (2, "ends"), (3, "axes")] {
            if let Some(v) = node.constant_ints(i, name)? {
                attrs.push((name, AttrValue::Ints(v)));
            }
        }
        node.node("Slice", first_name(node), node.output_names(), attrs);
        Ok(())
    }

    fn properties(&self) -> Properties {
        Properties::moves(Movement::Picks, Operands::FIRST)
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact, Tensor};

    use crate::ops::testing::{Arg, ints, read, read_args, write};

    #[test]
    fn bounds_are_attributes_before_opset_10() {
        let x = Fact::fixed(DType::F32, &[4, 5]);
        let attrs = vec![ints("starts", &[1]), ints("ends", &[-1]), ints("axes", &[1])];
        let (graph, y) = read("Slice", 9, std::slice::from_ref(&x), attrs.clone(), 1).unwrap();
        assert_eq!(graph.fact(y[0]).and_then(Fact::fixed_shape), Some(vec![4, 3]));
        assert_eq!(write(&graph, y[0], 9).unwrap()[0].attrs, attrs);
        assert_eq!(write(&graph, y[0], 13).unwrap()[0].inputs.len(), 4);
        assert!(read("Slice", 9, std::slice::from_ref(&x), attrs[..1].to_vec(), 1).is_err());
        let list = |v: i64| Arg::Constant(Tensor::vector(vec![v]));
        for (step, old) in [(1, true), (2, false), (-1, false)] {
            let args = [Arg::Input(x.clone()), list(0), list(3), list(0), list(step)];
            let (graph, y) = read_args("Slice", 10, &args, vec![], 1).unwrap();
            assert_eq!(write(&graph, y[0], 9).is_ok(), old);
        }
    }
}
