//! The operators of domain `ai.convc` written as ONNX's own.

use convc_runtime::{Constant, Fact, Op, OpError, Tensor, ops::compose::Composer};

use super::newer_operators;
use crate::ir::{Graph, NodeId, Value};

/// Writes definitions into a graph.
struct Writer<'a> {
    graph: &'a mut Graph,
    added: Vec<NodeId>,
}

impl Composer for Writer<'_> {
    type Value = Value;
    type Error = OpError;

    fn apply(&mut self, op: Op, operands: Vec<Option<Value>>, outputs: usize) -> Result<Vec<Value>, OpError> {
        let node = self.graph.add_op(op, operands, outputs)?;
        self.added.push(node);
        let outputs = self.graph.node(node).outputs();
        Ok((0..outputs).filter_map(|p| Some(Value { node, port: u32::try_from(p).ok()? })).collect())
    }

    fn constant(&mut self, tensor: Tensor) -> Result<Value, OpError> {
        let v = self.graph.add_constant(Constant::from_tensor(&tensor)?);
        self.added.push(v.node);
        Ok(v)
    }

    fn fact(&self, value: &Value) -> Option<Fact> {
        self.graph.fact(*value).cloned()
    }
}

/// Whether `op` is one of domain `ai.convc`, which other programs do not know.
#[must_use]
pub fn is_system(op: &Op) -> bool {
    use Op::{DOConv, GhostModule, Involution, MixedConv, SCConv, SplitAttention};
    matches!(op, DOConv(_) | MixedConv(_) | GhostModule(_) | SCConv(_) | SplitAttention(_) | Involution(_))
}

/// The definition of an operator of domain `ai.convc`, or of one that came late to ONNX, on these operands; `None` for any other
/// operator.
pub fn compose<C: Composer>(op: &Op, c: &mut C, operands: &[Option<C::Value>]) -> Option<Result<C::Value, C::Error>> {
    Some(match op {
        Op::DOConv(op) => op.compose(c, operands),
        Op::MixedConv(op) => op.compose(c, operands),
        Op::GhostModule(op) => op.compose(c, operands),
        Op::SCConv(op) => op.compose(c, operands),
        Op::SplitAttention(op) => op.compose(c, operands),
        Op::Involution(op) => op.compose(c, operands),
        op => return newer_operators::compose(op, c, operands),
    })
}

/// Replaces the node by ONNX's own operators, which inherit its name and origins; the new nodes, constants included. Nothing
/// happens to a node that is not of domain `ai.convc`.
///
/// # Errors
/// If sizes that the definition needs are not known. The graph is then as before.
pub fn expand(graph: &mut Graph, id: NodeId) -> Result<Vec<NodeId>, OpError> {
    let node = graph.node(id);
    let Some(op) = node.op().filter(|op| is_system(op)).cloned() else { return Ok(Vec::new()) };
    let (operands, name, origins) = (node.operands().to_vec(), node.name.clone(), node.origins.clone());
    let mut writer = Writer { graph, added: Vec::new() };
    let Some(result) = compose(&op, &mut writer, &operands) else { return Ok(Vec::new()) };
    let added = writer.added;
    match result {
        Ok(y) => {
            for &n in &added {
                graph.annotate(n, name.clone(), origins.clone());
            }
            let old = Value { node: id, port: 0 };
            if let Some(name) = graph.value_name(old).map(str::to_owned) {
                graph.set_value_name(y, name);
            }
            graph.replace(old, y);
            graph.remove(id);
            Ok(added)
        }
        Err(e) => {
            for n in added.into_iter().rev() {
                graph.remove(n);
            }
            Err(e)
        }
    }
}

/// [`expand`]s every node of the graph and of the branches in it; those that could not be, with the reason.
pub fn expand_all(graph: &mut Graph) -> Vec<(NodeId, OpError)> {
    let mut kept = Vec::new();
    for id in graph.nodes() {
        if let Err(e) = expand(graph, id) {
            kept.push((id, e));
        }
        for branch in graph.branches_mut(id) {
            kept.extend(expand_all(branch));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use convc_runtime::{
        DType, Dim, Real,
        ops::{
            DOConv, GhostModule, Involution, MixedConv, RunCx, SCConv, SplitAttention, ghost_module::Activation,
            mixed_conv::MixedConvKind,
        },
        session::{Session, SessionOptions},
        sys::Pool,
    };

    use super::*;

    /// Multiples of 1/64 that look random.
    fn random(shape: &[usize], seed: u64) -> Tensor {
        let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let v = (0..shape.iter().product())
            .map(|_| {
                z = z.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((z >> 57) as f32 - 64.0) / 64.0
            })
            .collect::<Vec<f32>>();
        Tensor::new(shape, v).unwrap()
    }

    /// Expands `op` over inputs of fixed sizes, and of symbolic ones for `symbolic` (operand, axis), and runs both in f64 (within
    /// 1e-12 of the operator's own run) and, for polynomials, in the field (exactly).
    fn check(op: impl Into<Op>, shapes: &[&[usize]], symbolic: &[(usize, usize, &str)], polynomial: bool) {
        let op = op.into();
        // An empty shape stands for a hole.
        let tensors: Vec<Option<Tensor>> =
            shapes.iter().enumerate().map(|(i, s)| (!s.is_empty()).then(|| random(s, i as u64 + 1))).collect();
        for symbols in [false, true] {
            let mut graph = Graph::new();
            let operands: Vec<Option<Value>> = tensors
                .iter()
                .enumerate()
                .map(|(i, t)| {
                    let t = t.as_ref()?;
                    let mut fact = Fact::fixed(t.dtype(), t.shape());
                    for (_, axis, name) in symbolic.iter().filter(|s| symbols && s.0 == i) {
                        fact.shape[*axis] = Dim::symbol(*name);
                    }
                    Some(graph.add_input(format!("x{i}"), Some(fact), None))
                })
                .collect();
            let id = graph.add_op(op.clone(), operands, 1).unwrap();
            graph.annotate(id, "system", vec!["system".into()]);
            graph.add_output("y", Value { node: id, port: 0 }, None);
            let before = graph.fact(Value { node: id, port: 0 }).unwrap().to_string();
            assert_eq!(expand_all(&mut graph), []);
            assert!(crate::ir::verify(&graph).is_ok());
            assert!(!graph.contains(id));
            let y = graph.outputs()[0].value;
            let after = graph.fact(y).unwrap();
            assert!(symbols || after.to_string() == before, "{after} instead of {before}");
            assert!(graph.node(y.node).origins.iter().any(|o| &**o == "system"));
            let plan = Arc::new(crate::lower::lower(&graph).unwrap());
            for real in [Real::F64, Real::Field].into_iter().take(1 + usize::from(polynomial)) {
                let session =
                    Session::new(Arc::clone(&plan), SessionOptions { real, ..SessionOptions::default() }).unwrap();
                let inputs: BTreeMap<String, Tensor> =
                    tensors.iter().enumerate().filter_map(|(i, t)| Some((format!("x{i}"), t.clone()?))).collect();
                let got = session.run(&inputs).unwrap().swap_remove(0);
                let pool = Pool::new(1);
                let given: Vec<Option<Tensor>> = tensors.iter().map(|t| Some(t.as_ref()?.to_real(real))).collect();
                let given: Vec<Option<&Tensor>> = given.iter().map(Option::as_ref).collect();
                let want = op.run(&given, &RunCx::new(real, &pool)).unwrap().swap_remove(0);
                assert_eq!(got.shape(), want.shape());
                if real == Real::Field {
                    assert_eq!(got, want, "{op:?}");
                } else {
                    let (g, w) = (got.to_f64s().unwrap(), want.to_f64s().unwrap());
                    for (g, w) in g.iter().zip(&w) {
                        assert!((g - w).abs() <= 1e-12 * (1.0 + w.abs()), "{g} instead of {w}: {op:?}");
                    }
                }
            }
        }
    }

    const NHW: &[(usize, usize, &str)] = &[(0, 0, "N"), (0, 2, "H"), (0, 3, "W")];

    #[test]
    fn do_conv() {
        for (group, strides) in [(1, vec![1, 1]), (2, vec![2, 1]), (4, vec![1, 3])] {
            let op = DOConv {
                kernel_shape: vec![3, 2],
                strides,
                pads: vec![1, 0, 2, 1],
                dilations: vec![1, 2],
                group: group as i64,
            };
            check(op, &[&[2, 4, 6, 7], &[4, 6, 7], &[8, 4 / group, 7], &[8]], NHW, true);
        }
    }

    #[test]
    fn mixed_conv() {
        for (n, group, bias) in [(1, 1, &[][..]), (3, 2, &[3, 4]), (2, 1, &[4]), (1, 4, &[3, 4])] {
            let op = MixedConv {
                kind: MixedConvKind::DynamicConv,
                strides: vec![2, 1],
                pads: vec![1, 0, 0, 1],
                dilations: vec![1, 1],
                group: group as i64,
            };
            let symbols = [NHW, &[(1, 0, "N")]].concat();
            check(op, &[&[n, 4, 6, 5], &[n, 3], &[3, 4, 4 / group, 3, 2], bias], &symbols, true);
        }
        // Maps of one position: products of matrices.
        for (n, bias) in [(1, &[][..]), (3, &[3, 5]), (2, &[5])] {
            let op = MixedConv {
                kind: MixedConvKind::CondConv,
                strides: vec![1, 1],
                pads: vec![0; 4],
                dilations: vec![1, 1],
                group: 1,
            };
            check(op, &[&[n, 4, 1, 1], &[n, 3], &[3, 5, 4, 1, 1], bias], &[(0, 0, "N"), (1, 0, "N")], true);
        }
    }

    #[test]
    fn ghost_module() {
        for (out_channels, activation) in [(6, Activation::Relu), (5, Activation::Identity)] {
            let op = GhostModule {
                out_channels,
                activation,
                strides: vec![1, 2],
                pads: vec![1; 4],
                dilations: vec![1, 1],
                group: 1,
                cheap_pads: vec![1; 4],
                cheap_dilations: vec![1, 1],
            };
            let shapes: [&[usize]; 5] = [&[2, 4, 6, 5], &[3, 4, 3, 3], &[3], &[3, 1, 3, 3], &[]];
            check(op, &shapes, NHW, activation == Activation::Identity);
        }
    }

    #[test]
    fn sc_conv() {
        let op = SCConv { pool_size: 3, strides: vec![2, 1], pads: vec![1; 4], dilations: vec![1, 1], group: 2 };
        let w: &[usize] = &[4, 2, 3, 3];
        check(op, &[&[2, 4, 7, 8], w, &[4], w, &[], &[6, 2, 3, 3], &[6]], NHW, false);
    }

    #[test]
    fn split_attention() {
        for (radix, cardinality) in [(2, 1), (1, 2), (3, 2)] {
            let op = SplitAttention {
                radix: radix as i64,
                cardinality: cardinality as i64,
                activation: Activation::Relu,
                strides: vec![1, 1],
                pads: vec![1; 4],
                dilations: vec![1, 1],
                group: 2,
            };
            let (all, c) = (4 * radix, 4 / cardinality);
            let shapes: [&[usize]; 7] =
                [&[3, 4, 5, 4], &[all, 2, 3, 3], &[all], &[6, c, 1, 1], &[6], &[all, 6 / cardinality, 1, 1], &[]];
            if all % 2 == 0 {
                check(op, &shapes, NHW, false);
            }
        }
    }

    #[test]
    fn involution() {
        for (strides, out, symbols) in [
            (vec![1, 1], [6, 5], [NHW, &[(1, 0, "N"), (1, 2, "H"), (1, 3, "W")]].concat()),
            (vec![2, 3], [3, 2], [NHW, &[(1, 0, "N"), (1, 2, "A"), (1, 3, "B")]].concat()),
        ] {
            let op =
                Involution { kernel_shape: vec![3, 3], strides, pads: vec![1; 4], dilations: vec![1, 1], group: 2 };
            check(op, &[&[2, 4, 6, 5], &[2, 18, out[0], out[1]]], &symbols, true);
        }
    }

    #[test]
    fn unknown_sizes_leave_the_graph_as_it_was() {
        let mut graph = Graph::new();
        let fact = |shape: &[Dim]| Some(Fact::new(DType::F32, shape));
        let x =
            graph.add_input("x", fact(&[1, 1, 6, 6].map(|n| if n == 1 { Dim::symbol("C") } else { n.into() })), None);
        let ker = graph.add_input("k", fact(&[Dim::symbol("C"), 9.into(), 6.into(), 6.into()]), None);
        let op = Involution {
            kernel_shape: vec![3, 3],
            strides: vec![1, 1],
            pads: vec![1; 4],
            dilations: vec![1, 1],
            group: 1,
        };
        let id = graph.add_op(op, vec![Some(x), Some(ker)], 1).unwrap();
        graph.add_output("y", Value { node: id, port: 0 }, None);
        assert_eq!(expand_all(&mut graph).len(), 1);
        assert_eq!((graph.len(), graph.contains(id)), (3, true));
    }
}
