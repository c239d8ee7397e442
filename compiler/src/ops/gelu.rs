//! Gelu, new in opset 20; before, the composition that it is defined as.

use convc_runtime::{
    AttrValue,
    ops::{Gelu, gelu::Approximate},
};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{Nonnegative, Operands, Properties},
};
use crate::ir::Value;

impl OnnxOperator for Gelu {
    const READS: &'static [&'static str] = &["Gelu"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Gelu", 20, types![F32, F64, F16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "X")?;
        let text = node.string("approximate")?.unwrap_or_else(|| "none".into());
        let approximate = Approximate::from_text(&text).ok_or_else(|| {
            ImportError::Invalid(format!("attribute approximate is {text:?}, which is neither none nor tanh"))
        })?;
        node.emit(Gelu { approximate }, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        if node.opset() >= 20 {
            let attrs = match self.approximate {
                Approximate::None => vec![],
                Approximate::Tanh => vec![("approximate", AttrValue::Str("tanh".into()))],
            };
            return node.emit("Gelu", attrs);
        }
        let x = node.operand_names().first().cloned().unwrap_or_default();
        let y = node.output_names();
        let half = node.float_like(0, "half", 0.5);
        let one = node.float_like(0, "one", 1.0);
        let step = |node: &mut NodeWriter<'_>, op: &str, inputs: &[&String]| {
            let out = node.fresh("gelu");
            node.node(op, inputs.iter().map(|s| (*s).clone()).collect(), vec![out.clone()], vec![]);
            out
        };
        match self.approximate {
            Approximate::None => {
                node.since(9)?;
                let root = node.float_like(0, "sqrt2", std::f64::consts::SQRT_2);
                let scaled = step(node, "Div", &[&x, &root]);
                let erf = step(node, "Erf", &[&scaled]);
                let gate = step(node, "Add", &[&erf, &one]);
                let twice = step(node, "Mul", &[&x, &gate]);
                node.node("Mul", vec![twice, half], y, vec![]);
            }
            Approximate::Tanh => {
                let cubic = node.float_like(0, "cubic", 0.044_715);
                let scale = node.float_like(0, "scale", (2.0 / std::f64::consts::PI).sqrt());
                let three = node.float_like(0, "three", 3.0);
                let cube = step(node, "Pow", &[&x, &three]);
                let term = step(node, "Mul", &[&cubic, &cube]);
                let sum = step(node, "Add", &[&x, &term]);
                let inner = step(node, "Mul", &[&scale, &sum]);
                let tanh = step(node, "Tanh", &[&inner]);
                let gate = step(node, "Add", &[&one, &tanh]);
                let halved = step(node, "Mul", &[&half, &x]);
                node.node("Mul", vec![halved, gate], y, vec![]);
            }
        }
        Ok(())
    }

    fn properties(&self) -> Properties {
        Properties {
            zeros: Operands::FIRST,
            nonnegative: Nonnegative::Where(Operands::FIRST),
            ..Properties::elementwise()
        }
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{Fact, Tensor};

    use crate::ops::testing::{Arg, rewritten, string};

    #[test]
    fn a_composition_before_opset_20() {
        let x = Tensor::vector(vec![-3.7f32, -0.5, 0.0, 0.3, 0.9, 5.5]);
        let args = [Arg::Input(Fact::of(&x))];
        for (text, nodes) in [("none", 5), ("tanh", 8)] {
            let attrs = vec![string("approximate", text)];
            let count =
                |opset| rewritten("Gelu", (20, opset), &args, attrs.clone(), std::slice::from_ref(&x)).map(|n| n.len());
            assert_eq!(count(20), Ok(1));
            assert_eq!(count(19), Ok(nodes));
            assert_eq!(count(7).is_ok(), text == "tanh");
        }
    }
}
