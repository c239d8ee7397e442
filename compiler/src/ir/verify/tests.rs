//! Each invariant, broken.

use convc_runtime::{
    Constant, DType, Op, Tensor,
    ops::{Binary, Conv, Identity, Unary, binary::BinaryKind, unary::UnaryKind},
    window::AutoPad,
};

use super::*;
use crate::ir::Branch;

fn relu() -> Op {
    Unary::new(UnaryKind::Relu).into()
}

fn vector(n: usize) -> Fact {
    Fact::fixed(DType::F32, &[n])
}

/// x, y = Relu(x), z = x + y; z is the output.
fn graph() -> (Graph, Value, Value, Value) {
    let mut g = Graph::new();
    let x = g.add_input("x", Some(vector(4)), None);
    let y = Value { node: g.add_op(relu(), vec![Some(x)], 1).unwrap(), port: 0 };
    let add = Binary { kind: BinaryKind::Add };
    let z = Value { node: g.add_op(add, vec![Some(x), Some(y)], 1).unwrap(), port: 0 };
    g.add_output("z", z, None);
    verify(&g).unwrap();
    (g, x, y, z)
}

#[test]
fn invariant_1_operands_and_outputs_exist() {
    let (mut g, x, y, _) = graph();
    g.set_operands(y.node, vec![Some(Value { port: 1, ..x })]);
    assert!(matches!(verify(&g), Err(IrError::Dangling { operand: 0, .. })));
    let (mut g, _, _, z) = graph();
    g.add_output("w", Value { port: 3, ..z }, None);
    assert!(matches!(verify(&g), Err(IrError::DanglingOutput { .. })));
}

#[test]
fn invariant_2_edges_are_those_of_the_operands() {
    let (mut g, _, y, _) = graph();
    g.unlink(y.node);
    assert!(matches!(verify(&g), Err(IrError::Edges { .. })));
}

#[test]
fn invariant_3_there_is_no_cycle() {
    let (mut g, _, y, z) = graph();
    g.set_operands(y.node, vec![Some(z)]);
    assert!(matches!(verify(&g), Err(IrError::Cycle { nodes: 2, .. })));
}

#[test]
fn invariant_4_facts_do_not_contradict() {
    let (mut g, _, y, _) = graph();
    g.set_fact(y, Some(vector(5)));
    assert!(matches!(verify(&g), Err(IrError::Fact { port: 0, .. })));
    let (mut g, _, _, z) = graph();
    g.set_fact(z, Some(Fact::fixed(DType::I32, &[4])));
    assert!(matches!(verify(&g), Err(IrError::Fact { .. })));
    let (mut g, ..) = graph();
    let c = g.add_constant(Constant::from_tensor(&Tensor::vector(vec![1.0f32, 2.0])).unwrap());
    verify(&g).unwrap();
    g.set_fact(c, Some(vector(3)));
    assert!(matches!(verify(&g), Err(IrError::Fact { .. })));
    let (mut g, x, _, z) = graph();
    g.set_fact(x, Some(Fact::fixed(DType::Str, &[4])));
    g.set_fact(z, None);
    assert!(verify(&g).is_err(), "the operator refuses its operand");
}

#[test]
fn invariant_5_inputs_and_constants_are_leaves() {
    for kind in [Kind::Input, Kind::Constant(Constant::from_tensor(&Tensor::vector(vec![1.0f32])).unwrap())] {
        let (mut g, x, ..) = graph();
        g.add_node(kind.clone(), vec![Some(x)], vec![Some(vector(1))]);
        assert!(matches!(verify(&g), Err(IrError::Leaf { .. })));
        let (mut g, ..) = graph();
        g.add_node(kind, Vec::new(), Vec::new());
        assert!(matches!(verify(&g), Err(IrError::Leaf { .. })));
    }
    let (mut g, ..) = graph();
    g.add_node(Kind::Input, Vec::new(), vec![Some(vector(1))]);
    assert!(matches!(verify(&g), Err(IrError::Leaf { problem: "the input has no name", .. })));
}

#[test]
fn invariant_6_output_names_are_unique() {
    let (mut g, _, y, _) = graph();
    g.add_output("z", y, None);
    assert!(matches!(verify(&g), Err(IrError::OutputName { .. })));
}

#[test]
fn invariant_7_attributes_go_together() {
    let conv = |strides: Vec<i64>, pads: Vec<i64>| Conv {
        dilations: vec![1; strides.len()],
        strides,
        pads,
        group: 1,
        auto_pad: AutoPad::NotSet,
    };
    for (op, fits) in [
        (conv(vec![1, 1], vec![0; 4]), true),
        (conv(vec![1, 1], Vec::new()), false),
        (conv(vec![1], vec![0; 2]), false),
        (conv(vec![0, 1], vec![0; 4]), false),
    ] {
        let mut g = Graph::new();
        // Nothing is known of x, so nothing can be inferred.
        let x = g.add_input("x", None, None);
        let w = g.add_input("w", Some(Fact::fixed(DType::F32, &[1, 1, 3, 3])), None);
        g.add_node(Kind::Op(op.into()), vec![Some(x), Some(w)], vec![None]);
        assert_eq!(verify(&g).is_ok(), fits, "{:?}", verify(&g));
    }
}

#[test]
fn invariant_8_results_are_those_of_the_operator() {
    for outputs in [0, 2] {
        let (mut g, x, ..) = graph();
        g.add_node(Kind::Op(relu()), vec![Some(x)], vec![Some(vector(4)); outputs]);
        assert!(matches!(verify(&g), Err(IrError::Results { .. })), "{outputs}");
    }
}

#[test]
fn invariant_9_branches_fit_their_node() {
    let branch = |inputs: usize, outputs: usize, broken: bool| {
        let mut g = Graph::new();
        let captured: Vec<Value> = (0..inputs).map(|i| g.add_input(format!("c{i}"), Some(vector(4)), None)).collect();
        for i in 0..outputs {
            let id = g.add_op(Identity {}, vec![captured.first().copied()], 1).unwrap();
            let v = Value { node: id, port: 0 };
            if broken {
                g.set_fact(v, Some(vector(9)));
            }
            g.add_output(format!("o{i}"), v, None);
        }
        Branch { graph: Box::new(g) }
    };
    let with = |then_branch: Branch, else_branch: Branch| {
        let (mut g, x, ..) = graph();
        let c = g.add_input("c", Some(Fact::fixed(DType::Bool, &[])), None);
        let kind = Kind::If { then_branch, else_branch };
        g.add_node(kind, vec![Some(c), Some(x)], vec![Some(vector(4))]);
        verify(&g)
    };
    with(branch(1, 1, false), branch(1, 1, false)).unwrap();
    for (a, b) in [
        (branch(2, 1, false), branch(1, 1, false)),
        (branch(1, 1, false), branch(1, 2, false)),
        (branch(1, 1, true), branch(1, 1, false)),
    ] {
        assert!(matches!(with(a, b), Err(IrError::Branch { .. })));
    }
}
