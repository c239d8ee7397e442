//! Shape and Size. Shape takes part of the sizes since opset 15.

use convc_runtime::{
    AttrValue,
    ops::{Shape, Size},
};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{Effort, Nonnegative, Properties},
};
use crate::ir::Value;

impl OnnxOperator for Shape {
    const READS: &'static [&'static str] = &["Shape"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Shape", 1, types![I64]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "data")?;
        let (start, end) = (node.int("start")?.unwrap_or(0), node.int("end")?);
        node.emit(Shape { start, end }, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let mut attrs = Vec::new();
        if self.start != 0 {
            attrs.push(("start", AttrValue::Int(self.start)));
        }
        attrs.extend(self.end.map(|e| ("end", AttrValue::Int(e))));
        if node.opset() >= 15 || attrs.is_empty() {
            return node.emit("Shape", attrs);
        }
        let Some(rank) = node.operand(0).and_then(|o| o.fact).map(convc_runtime::Fact::rank) else {
            return Err(node.refuse("some of the sizes of a tensor of unknown rank"));
        };
        // All sizes, then a slice of them.
        let range = self.range(rank);
        let all = node.fresh("shape");
        let inputs = node.operand_names();
        node.node("Shape", inputs, vec![all.clone()], Vec::new());
        let (start, end) = (range.start as i64, range.end as i64);
        if node.opset() < 10 {
            let attrs = vec![("starts", AttrValue::Ints(vec![start])), ("ends", AttrValue::Ints(vec![end]))];
            node.node("Slice", vec![all], node.output_names(), attrs);
        } else {
            let start = node.constant("starts", convc_runtime::Tensor::vector(vec![start]));
            let end = node.constant("ends", convc_runtime::Tensor::vector(vec![end]));
            node.node("Slice", vec![all, start, end], node.output_names(), Vec::new());
        }
        Ok(())
    }

    fn properties(&self) -> Properties {
        Properties { nonnegative: Nonnegative::Always, effort: Effort::NONE, ..Properties::continuous() }
    }
}

impl OnnxOperator for Size {
    const READS: &'static [&'static str] = &["Size"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Size", 1, types![I64]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "data")?;
        node.emit(Size {}, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.emit("Size", Vec::new())
    }

    fn properties(&self) -> Properties {
        Properties { nonnegative: Nonnegative::Always, effort: Effort::NONE, ..Properties::continuous() }
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact};

    use crate::ops::testing::{int, ints, read, write, write_all};

    #[test]
    fn part_of_the_sizes_is_sliced_before_opset_15() {
        let x = [Fact::fixed(DType::F32, &[2, 3, 4])];
        let attrs = vec![int("start", -2), int("end", 2)];
        let (graph, y) = read("Shape", 15, &x, attrs.clone(), 1).unwrap();
        assert_eq!(graph.fact(y[0]).and_then(Fact::i64s), Some(vec![3]));
        assert_eq!(write(&graph, y[0], 15).unwrap()[0].attrs, attrs);
        let (nodes, constants) = write_all(&graph, y[0].node, 13).unwrap();
        assert_eq!(nodes.iter().map(|n| n.op_type.as_str()).collect::<Vec<_>>(), ["Shape", "Slice"]);
        assert_eq!(constants.len(), 2);
        let old = write(&graph, y[0], 7).unwrap();
        assert_eq!(old[1].attrs, [ints("starts", &[1]), ints("ends", &[2])]);
        assert_eq!(old[1].outputs, ["y0"]);
    }
}
