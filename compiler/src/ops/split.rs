//! Split. The sizes are an attribute before opset 13; `num_outputs`, and a smaller last part, exist since opset 18.

use convc_runtime::{AttrValue, Dim, Tensor, ops::Split};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    concat::axis_attr,
    properties::{Movement, Operands, Properties},
    reshape::first_name,
};
use crate::ir::Value;

impl OnnxOperator for Split {
    const READS: &'static [&'static str] = &["Split"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Split", 2, types![F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Str]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "input")?;
        let axis = node.axis("axis", 0)?;
        let n = node.outputs() as i64;
        let split = match node.opset() {
            13.. => node.operand(1),
            _ => match node.ints("split")? {
                Some(s) => Some(node.add_ints(&s)?),
                None => None,
            },
        };
        if let Some(stated) = node.int("num_outputs")?
            && stated != n
        {
            return Err(ImportError::Invalid(format!("attribute num_outputs is {stated}, but there are {n} outputs")));
        }
        if split.is_none() && node.opset() < 18 {
            let size = node.fact(0).and_then(|f| {
                let rank = f.rank() as i64;
                let at = usize::try_from(if axis < 0 { axis.checked_add(rank)? } else { axis }).ok()?;
                f.shape.get(at).cloned()
            });
            if let Some(d) = size.filter(|d| d.divisible_by(n) == Some(false)) {
                return Err(ImportError::Invalid(format!("{d} does not divide into {n} equal parts")));
            }
        }
        node.emit(Split { axis, num_outputs: n }, vec![Some(x), split])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let mut attrs = axis_attr(node, self.axis, 11, 0)?;
        if node.operand(1).is_some() {
            if node.opset() >= 13 {
                return node.emit("Split", attrs);
            }
            let split = node.constant_ints(1, "split")?.unwrap_or_default();
            attrs.push(("split", AttrValue::Ints(split)));
            node.node("Split", first_name(node), node.output_names(), attrs);
            return Ok(());
        }
        if node.opset() >= 18 {
            attrs.push(("num_outputs", AttrValue::Int(self.num_outputs)));
            return node.emit("Split", attrs);
        }
        let size = node.operand(0).and_then(|o| o.fact).and_then(|f| {
            let rank = f.rank() as i64;
            f.shape.get(usize::try_from(if self.axis < 0 { self.axis + rank } else { self.axis }).ok()?).cloned()
        });
        match size {
            // These opsets ask for a size that divides: where it is open, the model that was read did.
            Some(d) if !(d.is_fixed() && d.divisible_by(self.num_outputs) == Some(false)) => node.emit("Split", attrs),
            Some(Dim::Fixed(d)) => {
                let part = d.div_euclid(self.num_outputs) + 1;
                let mut parts = vec![part; node.output_names().len()];
                if let Some(last) = parts.last_mut() {
                    *last = d - part * (self.num_outputs - 1);
                }
                if node.opset() < 13 {
                    attrs.push(("split", AttrValue::Ints(parts)));
                    return node.emit("Split", attrs);
                }
                let split = node.constant("split", Tensor::vector(parts));
                let mut inputs = first_name(node);
                inputs.push(split);
                node.node("Split", inputs, node.output_names(), attrs);
                Ok(())
            }
            _ => Err(node.refuse("parts of a size that may not divide evenly")),
        }
    }

    fn properties(&self) -> Properties {
        Properties::moves(Movement::Picks, Operands::FIRST)
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact, Tensor};

    use crate::ops::testing::{int, ints, read, write, write_all};

    #[test]
    fn sizes_are_attribute_operand_or_number() {
        let x = |n| [Fact::fixed(DType::F32, &[n, 2])];
        let (graph, y) = read("Split", 2, &x(5), vec![ints("split", &[2, 3])], 2).unwrap();
        assert_eq!(graph.fact(y[1]).and_then(Fact::fixed_shape), Some(vec![3, 2]));
        assert_eq!(write(&graph, y[0], 11).unwrap()[0].attrs, [ints("split", &[2, 3])]);
        assert_eq!(write(&graph, y[0], 18).unwrap()[0].inputs.len(), 2);
        // An even split says nothing before opset 18, an uneven one its sizes.
        let (graph, y) = read("Split", 13, &x(4), vec![], 2).unwrap();
        assert!(write(&graph, y[0], 11).unwrap()[0].attrs.is_empty());
        assert_eq!(write(&graph, y[0], 18).unwrap()[0].attrs, [int("num_outputs", 2)]);
        let (graph, y) = read("Split", 18, &x(5), vec![int("num_outputs", 3)], 3).unwrap();
        assert_eq!(write(&graph, y[0], 11).unwrap()[0].attrs, [ints("split", &[2, 2, 1])]);
        assert_eq!(write_all(&graph, y[0].node, 13).unwrap().1[0].1, Tensor::vector(vec![2i64, 2, 1]));
        // A size that is open has to divide wherever it is written like this, as it had to where it was read.
        let symbol = [Fact::new(DType::F32, [convc_runtime::Dim::symbol("N")])];
        let (graph, y) = read("Split", 13, &symbol, vec![], 2).unwrap();
        assert!(write(&graph, y[0], 13).unwrap()[0].attrs.is_empty());
    }

    #[test]
    fn refuses_contradictions() {
        let x = [Fact::fixed(DType::F32, &[5])];
        assert!(read("Split", 13, &x, vec![], 2).is_err());
        assert!(read("Split", 18, &x, vec![int("num_outputs", 3)], 2).is_err());
        assert!(read("Split", 11, &x, vec![ints("split", &[2, 2])], 2).is_err());
        assert!(read("Split", 18, &x, vec![int("axis", i64::MIN)], 2).is_err());
    }
}
