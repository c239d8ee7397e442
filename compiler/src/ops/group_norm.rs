//! Normalisation of groups of planes. Opset 18 has one scale and bias for each group; from 21 on there is one for each
//! channel, which is the form of the IR. Where an opset lacks that form, it is written by means of InstanceNormalization.

use convc_runtime::{AttrValue, Constant, Tensor, match_any, ops::GroupNormalization};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    batch_norm::{EPSILON, write_epsilon},
    layer_norm::{read_stash_type, write_stash_type},
    properties::{Operands, Properties},
};
use crate::ir::Value;

/// A constant `[G]` as `[C]`, each element `channels / G` times.
fn spread(t: &Tensor, channels: usize) -> Option<Tensor> {
    let groups = t.len();
    if groups == 0 || !channels.is_multiple_of(groups) {
        return None;
    }
    match_any!(t.data(), v => {
        let runs = v.chunks(1).flat_map(|x| std::iter::repeat_n(x, channels / groups));
        let spread = runs.flatten().cloned().collect::<Vec<_>>();
        Tensor::new(vec![channels], spread).ok()
    })
}

/// The inverse of [`spread`], if the constant is the same over each group.
fn gathered(c: &Constant, groups: usize) -> Option<Tensor> {
    let t = c.to_tensor().ok()?;
    if groups == 0 || !t.len().is_multiple_of(groups) {
        return None;
    }
    let per_group = (t.len() / groups).max(1);
    match_any!(t.data(), v => {
        let same = v.chunks(per_group).all(|g| g.iter().all(|x| *x == g[0]));
        let first = v.iter().step_by(per_group).cloned().collect::<Vec<_>>();
        if same { Tensor::new(vec![groups], first).ok() } else { None }
    })
}

impl OnnxOperator for GroupNormalization {
    const READS: &'static [&'static str] = &["GroupNormalization"];
    const EXECUTED: &'static [super::Executed] = &[
        ("GroupNormalization", 18, types![F32, F64, F16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let mut operands =
            vec![Some(node.required(0, "X")?), Some(node.required(1, "scale")?), Some(node.required(2, "bias")?)];
        let epsilon = node.float("epsilon")?.unwrap_or(EPSILON);
        let num_groups = node
            .int("num_groups")?
            .ok_or_else(|| ImportError::Invalid("attribute num_groups of GroupNormalization is missing".into()))?;
        let stash_type = read_stash_type(node)?;
        let channels = node.fact(0).and_then(|x| x.shape.get(1)?.as_fixed());
        if node.opset() < 21 && channels != Some(num_groups) {
            for i in [1, 2] {
                let channels = channels.and_then(|c| usize::try_from(c).ok());
                let given = node.constant(i).filter(|t| i64::try_from(t.len()) == Ok(num_groups));
                let spread = channels.zip(given).and_then(|(c, t)| spread(&t, c));
                let spread = spread.ok_or_else(|| {
                    ImportError::Unsupported("a scale or bias for each group that is not constant".into())
                })?;
                operands[i] = Some(node.add_constant(&spread)?);
            }
        }
        node.emit(GroupNormalization { epsilon, num_groups, stash_type }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let mut attrs = write_epsilon(self.epsilon);
        if node.opset() >= 21 {
            attrs.push(("num_groups", AttrValue::Int(self.num_groups)));
            write_stash_type(self.stash_type, &mut attrs);
            return node.emit("GroupNormalization", attrs);
        }
        let (Some(x), Some(scale), Some(bias)) = (node.operand(0), node.operand(1), node.operand(2)) else {
            return Err(node.refuse("an operand is missing"));
        };
        let groups = usize::try_from(self.num_groups).unwrap_or(0);
        let outputs = node.output_names();
        if node.opset() >= 18 {
            let gathered = |c: Option<&Constant>| gathered(c?, groups);
            if let (Some(s), Some(b)) = (gathered(scale.constant), gathered(bias.constant)) {
                attrs.push(("num_groups", AttrValue::Int(self.num_groups)));
                let inputs = vec![x.name.to_owned(), node.constant("scale", s), node.constant("bias", b)];
                node.node("GroupNormalization", inputs, outputs, attrs);
                return Ok(());
            }
        }
        let (Some(x_fact), Some(c)) = (x.fact, x.fact.and_then(|f| f.shape.get(1)?.as_fixed())) else {
            return Err(node.refuse("the number of channels must be known there"));
        };
        let (x, scale, bias) = (x.name.to_owned(), scale.name.to_owned(), bias.name.to_owned());
        let (dtype, spatial) = (x_fact.dtype, x_fact.rank().saturating_sub(2));
        let ones = |v: f64| Tensor::vector(vec![v; groups]).rounded_to(dtype);
        let (one, zero) = (node.constant("one", ones(1.0)), node.constant("zero", ones(0.0)));
        let grouped = node.constant("shape", Tensor::vector(vec![0i64, self.num_groups, -1]));
        let mut per_channel = vec![c];
        per_channel.resize(spatial + 1, 1);
        let per_channel = node.constant("shape", Tensor::vector(per_channel));
        let mut step = |op: &str, inputs: &[&String], attrs: Vec<(&str, AttrValue)>, last: bool| {
            let out = if last { outputs[0].clone() } else { node.fresh(&outputs[0]) };
            node.node(op, inputs.iter().map(|s| (*s).clone()).collect(), vec![out.clone()], attrs);
            out
        };
        let shape = step("Shape", &[&x], vec![], false);
        let planes = step("Reshape", &[&x, &grouped], vec![], false);
        let normal = step("InstanceNormalization", &[&planes, &one, &zero], attrs, false);
        let normal = step("Reshape", &[&normal, &shape], vec![], false);
        let scale = step("Reshape", &[&scale, &per_channel], vec![], false);
        let bias = step("Reshape", &[&bias, &per_channel], vec![], false);
        let scaled = step("Mul", &[&normal, &scale], vec![], false);
        step("Add", &[&scaled, &bias], vec![], true);
        Ok(())
    }

    fn properties(&self) -> Properties {
        Properties::linear(Operands::Sets(&[&[1, 2]]))
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact};

    use super::*;
    use crate::ops::testing::{Arg, int, read, read_args, write, write_all};

    #[test]
    fn a_scale_for_each_group_becomes_one_for_each_channel() {
        let x = Arg::Input(Fact::fixed(DType::F32, &[3, 4, 9]));
        let p = Arg::Constant(Tensor::vector(vec![2.0f32, 3.0]));
        let (graph, y) =
            read_args("GroupNormalization", 18, &[x, p.clone(), p], vec![int("num_groups", 2)], 1).unwrap();
        let scale = graph.node(y[0].node).operands()[1].unwrap();
        let scale = graph.constant(scale).unwrap().to_tensor().unwrap();
        assert_eq!(scale.as_slice::<f32>().unwrap(), [2.0, 2.0, 3.0, 3.0]);
        let (nodes, constants) = write_all(&graph, y[0].node, 20).unwrap();
        assert_eq!((nodes.len(), &nodes[0].attrs), (1, &vec![int("num_groups", 2)]));
        assert_eq!(constants[0].1.as_slice::<f32>().unwrap(), [2.0, 3.0]);
        let newest = write(&graph, y[0], 21).unwrap();
        assert_eq!((newest.len(), newest[0].op_type.as_str()), (1, "GroupNormalization"));
    }

    #[test]
    fn older_opsets_say_it_by_instance_normalization() {
        let inputs = [&[3, 4, 9][..], &[4], &[4]].map(|s| Fact::fixed(DType::F32, s));
        let (graph, y) = read("GroupNormalization", 21, &inputs, vec![int("num_groups", 2)], 1).unwrap();
        let ops: Vec<String> = write(&graph, y[0], 17).unwrap().into_iter().map(|n| n.op_type).collect();
        assert!(ops.contains(&"InstanceNormalization".to_owned()) && !ops.contains(&"GroupNormalization".to_owned()));
    }
}
