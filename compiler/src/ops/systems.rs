//! The seven systems of `docs/domain.md`, domain `ai.convc`. Their attributes are named as in the runtime's structs; windows
//! default as those of Conv do.

use convc_runtime::{
    AttrValue, OpError,
    attrs::Attribute,
    ops::{
        DOConv, GhostModule, Involution, MixedConv, Operator, SCConv, SplitAttention, ghost_module::Activation,
        mixed_conv::MixedConvKind,
    },
};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{Operands, Properties},
};
use crate::ir::Value;

/// The domain of the operators.
pub(super) const DOMAIN: &str = "ai.convc";

/// Number of spatial axes: those of X, or as many as a list attribute that is given has entries.
fn spatial(node: &NodeReader<'_>) -> Option<usize> {
    node.fact(0)?.rank().checked_sub(2)
}

/// Takes a list with one entry (`per_axis` entries) for each spatial axis out, filled with `default` if it is not given.
fn list(node: &mut NodeReader<'_>, name: &str, per_axis: usize, default: i64) -> Result<Vec<i64>, ImportError> {
    match (node.ints(name)?, spatial(node)) {
        (Some(v), _) => Ok(v),
        (None, Some(n)) => Ok(vec![default; per_axis * n]),
        (None, None) => Err(ImportError::Unsupported(format!("an input of unknown rank without the attribute {name}"))),
    }
}

struct Windows {
    strides: Vec<i64>,
    pads: Vec<i64>,
    dilations: Vec<i64>,
    group: i64,
}

fn windows(node: &mut NodeReader<'_>) -> Result<Windows, ImportError> {
    Ok(Windows {
        strides: list(node, "strides", 1, 1)?,
        pads: list(node, "pads", 2, 0)?,
        dilations: list(node, "dilations", 1, 1)?,
        group: node.int("group")?.unwrap_or(1),
    })
}

fn needed<T>(node: &NodeReader<'_>, value: Option<T>, name: &str) -> Result<T, ImportError> {
    value.ok_or_else(|| ImportError::Invalid(format!("attribute {name} of {} is missing", node.op_type())))
}

fn activation(node: &mut NodeReader<'_>) -> Result<Activation, ImportError> {
    match node.take("activation") {
        None => Ok(Activation::Relu),
        v => Activation::from_value(v).map_err(|e| ImportError::Invalid(format!("attribute activation: {e}"))),
    }
}

/// Adds `op` with the node's operands as they are.
fn emit(node: &mut NodeReader<'_>, op: impl Into<convc_runtime::Op>) -> Result<Vec<Value>, ImportError> {
    let operands = node.operands().to_vec();
    node.emit(op, operands)
}

/// Writes the node with all its attributes, which are few and better stated.
fn write(op: &impl Operator, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
    let attrs = op.to_attrs();
    let attrs = attrs.iter().map(|(name, value)| (name.as_str(), value.clone())).collect::<Vec<(&str, AttrValue)>>();
    node.emit_in(DOMAIN, op.name(), attrs)
}

impl OnnxOperator for DOConv {
    const DOMAIN: &'static str = DOMAIN;
    const READS: &'static [&'static str] = &["DOConv"];
    const EXECUTED: &'static [super::Executed] = &[];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let kernel_shape = node.ints("kernel_shape")?;
        let kernel_shape = needed(node, kernel_shape, "kernel_shape")?;
        let Windows { strides, pads, dilations, group } = windows(node)?;
        emit(node, DOConv { kernel_shape, strides, pads, dilations, group })
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        write(self, node)
    }

    fn properties(&self) -> Properties {
        Properties::continuous()
    }
}

impl OnnxOperator for MixedConv {
    const DOMAIN: &'static str = DOMAIN;
    const READS: &'static [&'static str] = MixedConvKind::TEXTS;
    const EXECUTED: &'static [super::Executed] = &[];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let kind =
            MixedConvKind::from_text(node.op_type()).ok_or_else(|| OpError::Unsupported(node.op_type().to_owned()))?;
        let Windows { strides, pads, dilations, group } = windows(node)?;
        emit(node, MixedConv { kind, strides, pads, dilations, group })
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        write(self, node)
    }

    fn properties(&self) -> Properties {
        Properties::continuous()
    }
}

impl OnnxOperator for GhostModule {
    const DOMAIN: &'static str = DOMAIN;
    const READS: &'static [&'static str] = &["GhostModule"];
    const EXECUTED: &'static [super::Executed] = &[];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let out_channels = node.int("out_channels")?;
        let out_channels = needed(node, out_channels, "out_channels")?;
        let activation = activation(node)?;
        let Windows { strides, pads, dilations, group } = windows(node)?;
        let cheap_pads = list(node, "cheap_pads", 2, 0)?;
        let cheap_dilations = list(node, "cheap_dilations", 1, 1)?;
        let op = GhostModule { out_channels, activation, strides, pads, dilations, group, cheap_pads, cheap_dilations };
        emit(node, op)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        write(self, node)
    }

    fn properties(&self) -> Properties {
        Properties::continuous()
    }
}

impl OnnxOperator for SCConv {
    const DOMAIN: &'static str = DOMAIN;
    const READS: &'static [&'static str] = &["SCConv"];
    const EXECUTED: &'static [super::Executed] = &[];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let pool_size = node.int("pool_size")?.unwrap_or(4);
        let Windows { strides, pads, dilations, group } = windows(node)?;
        emit(node, SCConv { pool_size, strides, pads, dilations, group })
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        write(self, node)
    }

    fn properties(&self) -> Properties {
        Properties::continuous()
    }
}

impl OnnxOperator for SplitAttention {
    const DOMAIN: &'static str = DOMAIN;
    const READS: &'static [&'static str] = &["SplitAttention"];
    const EXECUTED: &'static [super::Executed] = &[];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let radix = node.int("radix")?.unwrap_or(2);
        let cardinality = node.int("cardinality")?.unwrap_or(1);
        let activation = activation(node)?;
        let Windows { strides, pads, dilations, group } = windows(node)?;
        emit(node, SplitAttention { radix, cardinality, activation, strides, pads, dilations, group })
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        write(self, node)
    }

    fn properties(&self) -> Properties {
        Properties::continuous()
    }
}

impl OnnxOperator for Involution {
    const DOMAIN: &'static str = DOMAIN;
    const READS: &'static [&'static str] = &["Involution"];
    const EXECUTED: &'static [super::Executed] = &[];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let kernel_shape = node.ints("kernel_shape")?;
        let kernel_shape = needed(node, kernel_shape, "kernel_shape")?;
        let Windows { strides, pads, dilations, group } = windows(node)?;
        emit(node, Involution { kernel_shape, strides, pads, dilations, group })
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        write(self, node)
    }

    fn properties(&self) -> Properties {
        Properties::linear(Operands::Sets(&[&[0], &[1]]))
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Dim, Fact};

    use super::*;
    use crate::ops::testing::{Arg, int, ints, read, read_args, string, write as write_node};

    fn fact(shape: &[usize]) -> Fact {
        Fact::fixed(DType::F32, shape)
    }

    #[test]
    fn there_and_back() {
        type Case = (&'static str, Vec<Fact>, Vec<(String, AttrValue)>, &'static str);
        let cases: Vec<Case> = vec![
            (
                "DOConv",
                vec![fact(&[3, 4, 9, 9]), fact(&[4, 9, 9]), fact(&[6, 2, 9])],
                vec![ints("kernel_shape", &[3, 3]), ints("pads", &[1; 4]), int("group", 2)],
                "f32[3, 6, 9, 9]",
            ),
            (
                "DynamicConv",
                vec![fact(&[3, 4, 9, 9]), fact(&[3, 5]), fact(&[5, 6, 4, 3, 3]), fact(&[5, 6])],
                vec![ints("strides", &[2, 2])],
                "f32[3, 6, 4, 4]",
            ),
            (
                "GhostModule",
                vec![fact(&[3, 4, 9, 9]), fact(&[5, 4, 1, 1]), fact(&[5]), fact(&[5, 1, 3, 3])],
                vec![int("out_channels", 9), ints("cheap_pads", &[1; 4]), string("activation", "Identity")],
                "f32[3, 9, 9, 9]",
            ),
            (
                "SplitAttention",
                vec![
                    fact(&[1, 4, 9, 9]),
                    fact(&[8, 2, 1, 1]),
                    fact(&[8]),
                    fact(&[5, 4, 1, 1]),
                    fact(&[5]),
                    fact(&[8, 5, 1, 1]),
                ],
                vec![int("group", 2)],
                "f32[1, 4, 9, 9]",
            ),
            (
                "Involution",
                vec![fact(&[1, 4, 9, 9]), fact(&[1, 18, 5, 5])],
                vec![ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2]), ints("pads", &[1; 4]), int("group", 2)],
                "f32[1, 4, 5, 5]",
            ),
        ];
        for (name, inputs, attrs, expected) in cases {
            let (graph, y) = read(name, 1, &inputs, attrs.clone(), 1).unwrap();
            assert_eq!(graph.fact(y[0]).unwrap().to_string(), expected, "{name}");
            let written = write_node(&graph, y[0], 7).unwrap().swap_remove(0);
            assert_eq!((written.domain.as_str(), written.op_type.as_str()), (DOMAIN, name));
            assert!(attrs.iter().all(|a| written.attrs.contains(a)), "{name}: {:?}", written.attrs);
            let (again, z) = read(name, 1, &inputs, written.attrs, 1).unwrap();
            assert_eq!(again.node(z[0].node).op(), graph.node(y[0].node).op());
        }
    }

    #[test]
    fn holes_and_symbols() {
        let input = |shape: &[Dim]| Arg::Input(Fact::new(DType::F32, shape));
        let (n, h) = (Dim::symbol("N"), Dim::symbol("H"));
        let w = || Arg::Input(fact(&[4, 4, 3, 3]));
        let args = [input(&[n, Dim::from(4), h.clone(), h]), w(), Arg::Hole, w(), Arg::Hole, w()];
        let (graph, y) =
            read_args("SCConv", 1, &args, vec![ints("pads", &[1; 4]), ints("strides", &[2, 2])], 1).unwrap();
        assert_eq!(graph.fact(y[0]).unwrap().to_string(), "f32[N, 4, floor((H + 1)/2), floor((H + 1)/2)]");
        let written = write_node(&graph, y[0], 13).unwrap().swap_remove(0);
        assert_eq!(written.inputs, ["x0", "x1", "", "x3", "", "x5"]);
    }
}
