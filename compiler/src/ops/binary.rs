//! Add, Sub, Mul, Div, PRelu. From opset 7 on, opsets differ in element types only.

use convc_runtime::{
    OpError,
    ops::{Binary, Operator, binary::BinaryKind},
};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{Nonnegative, Operands, Properties},
};
use crate::ir::Value;

impl OnnxOperator for Binary {
    const READS: &'static [&'static str] = BinaryKind::TEXTS;
    const EXECUTED: &'static [super::Executed] = &[
        ("Add", 7, types![F32, F64, F16, I32, I64, U32, U64]),
        ("Add", 14, types![I8, I16, U8, U16]),
        ("Sub", 7, types![F32, F64, F16, I32, I64, U32, U64]),
        ("Sub", 14, types![I8, I16, U8, U16]),
        ("Mul", 7, types![F32, F64, F16, I32, I64, U32, U64]),
        ("Mul", 14, types![I8, I16, U8, U16]),
        ("Div", 7, types![F32, F64, F16, I32, I64, U32, U64]),
        ("Div", 14, types![I8, I16, U8, U16]),
        ("PRelu", 7, types![F32, F16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let kind =
            BinaryKind::from_text(node.op_type()).ok_or_else(|| OpError::Unsupported(node.op_type().to_owned()))?;
        let operands = node.operands().to_vec();
        node.emit(Binary { kind }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.emit(self.name(), vec![])
    }

    fn properties(&self) -> Properties {
        const BOTH: Operands = Operands::Sets(&[&[0, 1]]);
        let linear = |sets| Properties { elementwise: true, ..Properties::linear(sets) };
        let nonnegative = Nonnegative::Where(BOTH);
        match self.kind {
            BinaryKind::Add => Properties { commutative: true, nonnegative, monotone: true, ..linear(BOTH) },
            BinaryKind::Sub => Properties { monotone: true, ..linear(BOTH) },
            BinaryKind::Mul => Properties { commutative: true, nonnegative, ..linear(Operands::Each) },
            // 0 divided by 0 is no number.
            BinaryKind::Div => Properties { zeros: Operands::None, ..linear(Operands::FIRST) },
            BinaryKind::PRelu => Properties {
                zeros: Operands::FIRST,
                nonnegative: Nonnegative::Where(Operands::FIRST),
                ..Properties::elementwise()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{Fact, Tensor};

    use crate::ops::testing::{Arg, int, rewritten, string};

    #[test]
    fn operators_of_two_operands_come_back() {
        let f = [Tensor::vector(vec![1f32, -2.5]), Tensor::scalar(2f32)];
        let i = [Tensor::vector(vec![5u8, 200]), Tensor::scalar(2u8)];
        let s = [Tensor::vector(vec![5i32, -7]), Tensor::scalar(2i32)];
        let b = [Tensor::vector(vec![true, false]), Tensor::scalar(true)];
        let m = [Tensor::new([2, 2], vec![1f32, 2.0, 3.0, 4.0]).unwrap(), Tensor::vector(vec![1f32, -1.0])];
        let mixed = [f[0].clone(), Tensor::scalar(2i64)];
        let cases: &[(&str, &[Tensor; 2], Vec<_>, i64)] = &[
            ("Add", &f, vec![], 7),
            ("Sub", &f, vec![], 7),
            ("Mul", &f, vec![], 7),
            ("Div", &f, vec![], 7),
            ("PRelu", &f, vec![], 7),
            ("Pow", &f, vec![], 7),
            ("Pow", &mixed, vec![], 12),
            ("Mod", &i, vec![], 10),
            ("Mod", &f, vec![int("fmod", 1)], 10),
            ("Mod", &f, vec![], 28),
            ("BitShift", &i, vec![string("direction", "LEFT")], 11),
            ("BitShift", &s, vec![string("direction", "RIGHT")], 28),
            ("And", &b, vec![], 7),
            ("Or", &b, vec![], 7),
            ("Xor", &b, vec![], 7),
            ("BitwiseAnd", &i, vec![], 18),
            ("BitwiseOr", &i, vec![], 18),
            ("BitwiseXor", &i, vec![], 18),
            ("MatMul", &m, vec![], 7),
            ("MatMulInteger", &[i[0].clone(), i[0].clone()], vec![], 10),
            ("Einsum", &m, vec![string("equation", "ij,j->i")], 12),
            ("CumSum", &[f[0].clone(), Tensor::scalar(0i64)], vec![int("reverse", 1)], 11),
            ("CumProd", &[f[0].clone(), Tensor::scalar(0i64)], vec![int("exclusive", 1)], 26),
        ];
        for (name, tensors, attrs, first) in cases {
            let args = tensors.each_ref().map(|t| Arg::Input(Fact::of(t)));
            let at = |opset| rewritten(name, (28, opset), &args, attrs.clone(), &tensors[..]);
            assert_eq!((7..=28).find(|&opset| at(opset).is_ok()), Some(*first), "{name}");
            assert_eq!(&at(28).unwrap()[0].attrs, attrs, "{name}");
        }
    }
}
