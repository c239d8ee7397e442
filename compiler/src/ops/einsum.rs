//! Einsum, new in opset 12.

use convc_runtime::{AttrValue, Dim, Fact, ops::Einsum};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{MultiplyAdds, Operands, Properties},
};
use crate::ir::Value;

impl OnnxOperator for Einsum {
    const READS: &'static [&'static str] = &["Einsum"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Einsum", 12, types![F32, F64, F16, I32, I64]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let equation =
            node.string("equation")?.ok_or_else(|| ImportError::Invalid("attribute equation is missing".into()))?;
        let operands = node.operands().to_vec();
        node.emit(Einsum { equation }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(12)?;
        node.emit("Einsum", vec![("equation", AttrValue::Str(self.equation.clone()))])
    }

    fn properties(&self) -> Properties {
        Properties {
            multiply_adds: MultiplyAdds::Equation(self.equation.clone()),
            ..Properties::linear(Operands::Each)
        }
    }
}

/// The product of all sizes that the equation names: the work of one nested loop, which is one product for each operand
/// behind the first.
pub(super) fn multiply_adds(equation: &str, inputs: &[Option<&Fact>]) -> Option<Dim> {
    let left = equation.split("->").next()?;
    let mut sizes = std::collections::BTreeMap::new();
    let mut ellipsis: &[Dim] = &[];
    for (term, fact) in left.split(',').zip(inputs) {
        let shape = fact.as_ref()?.shape.as_slice();
        let labels = |s: &str| s.chars().filter(|c| c.is_alphabetic()).collect::<Vec<char>>();
        let (before, after) = term.split_once("...").unwrap_or((term, ""));
        let (before, after) = (labels(before), labels(after));
        let tail = shape.len().checked_sub(after.len())?;
        let middle = shape.get(before.len()..tail)?;
        if middle.len() > ellipsis.len() {
            ellipsis = middle;
        }
        sizes.extend(before.into_iter().zip(shape));
        sizes.extend(after.into_iter().zip(shape.get(tail..)?));
    }
    let products = i64::try_from(inputs.len().checked_sub(1)?).ok()?;
    Some(Dim::product(sizes.values().copied().chain(ellipsis).cloned().chain([Dim::from(products)])))
}

#[cfg(test)]
mod tests {
    use convc_runtime::DType;

    use super::*;

    fn fact(shape: &[&str]) -> Fact {
        Fact::new(DType::F32, shape.iter().map(|d| Dim::parse(d).unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn an_equation_counts_each_label_once() {
        let (a, b) = (fact(&["2", "N", "3", "4"]), fact(&["N", "4", "5"]));
        let work = |e: &str| multiply_adds(e, &[Some(&a), Some(&b)]);
        assert_eq!(work("bnij, njk -> bnik"), Dim::parse("120*N").ok());
        assert_eq!(work("...ij,...jk->...ik"), Dim::parse("120*N").ok());
        assert_eq!(work("abcdefg,...jk"), None);
    }
}
