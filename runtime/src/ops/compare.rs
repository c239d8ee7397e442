//! Comparisons: <https://onnx.ai/onnx/operators/onnx__Equal.html> and its like.

use crate::{
    DType, Data, Dim, Element, Fact, Known, OpError, Tensor, attribute_enum, attributes,
    match_integer, match_real,
    ops::{
        InferCx, Operator, RunCx,
        elementwise::{Operand, broadcast_pair, same_type, zip, zip_dims},
        helpers::{broadcast, expect_dtype, fold, required},
    },
    scalar::{Field, Scalar},
};

attribute_enum! {
    /// Which relation.
    pub enum CompareKind {
        /// `a = b`; booleans and strings too.
        Equal = "Equal",
        /// `a > b`.
        Greater = "Greater",
        /// `a < b`.
        Less = "Less",
        /// `a >= b`.
        GreaterOrEqual = "GreaterOrEqual",
        /// `a <= b`.
        LessOrEqual = "LessOrEqual",
    }
}

attributes! {
    /// `y` (bool) says where the relation holds, elementwise, with NumPy's broadcasting; both operands of one type.
    ///
    /// The field has no order; one by a hash stands for it, so that two sides agree if they compare the same values.
    pub struct Compare {
        /// The relation.
        pub kind: CompareKind,
    }
}

/// A number type with an order.
trait Ordered: Element + Copy {
    /// Whether `self < o`; false if either is NaN.
    fn less(self, o: Self) -> bool;
}

macro_rules! ordered {
    ($($t:ty)*) => { $(
        impl Ordered for $t {
            #[inline(always)]
            fn less(self, o: Self) -> bool {
                self < o
            }
        }
    )* };
}
ordered!(f32 f64 half::f16 half::bf16 i8 i16 i32 i64 u8 u16 u32 u64);

impl Ordered for Field {
    fn less(self, o: Self) -> bool {
        let key = |x: Field| x.apply("order", |x| x).get();
        key(self) < key(o)
    }
}

impl Compare {
    fn takes(&self, dtype: DType) -> bool {
        let equal = self.kind == CompareKind::Equal && matches!(dtype, DType::Bool | DType::Str);
        dtype.is_float() || dtype.is_integer() || equal
    }

    fn compare<T: Ordered>(&self, a: Operand<'_, T>, b: Operand<'_, T>, out: &[usize], cx: &RunCx<'_>) -> Vec<bool> {
        match self.kind {
            CompareKind::Equal => zip(cx.pool, a, b, out, |x, y| x == y),
            CompareKind::Greater => zip(cx.pool, a, b, out, |x, y| y.less(*x)),
            CompareKind::Less => zip(cx.pool, a, b, out, |x, y| x.less(*y)),
            CompareKind::GreaterOrEqual => zip(cx.pool, a, b, out, |x, y| y.less(*x) || x == y),
            CompareKind::LessOrEqual => zip(cx.pool, a, b, out, |x, y| x.less(*y) || x == y),
        }
    }

    /// Whether the relation holds, where it does or does not for all values of the symbols.
    fn decide(&self, a: &Dim, b: &Dim) -> Option<bool> {
        match self.kind {
            CompareKind::Equal => a.equals(b),
            CompareKind::Greater => (a - b).at_least(1),
            CompareKind::Less => (b - a).at_least(1),
            CompareKind::GreaterOrEqual => (a - b).at_least(0),
            CompareKind::LessOrEqual => (b - a).at_least(0),
        }
    }
}

impl Operator for Compare {
    family!(Compare, CompareKind);

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (a, b) = (required(inputs, 0, "A")?, required(inputs, 1, "B")?);
        expect_dtype(a, 0, "A", "a type that the relation is defined on", |d| self.takes(d))?;
        same_type(a.dtype, b.dtype, 1, "B")?;
        let shape = broadcast(&[&a.shape, &b.shape])?;
        if let Some(folded) = fold(self, inputs) {
            return Ok(folded);
        }
        let decided = zip_dims(a, b, &shape, |x, y| self.decide(x, y));
        let mut y = Fact::new(DType::Bool, shape);
        if let (Some(v), Some(shape)) = (decided, y.fixed_shape()) {
            y.known = Some(Known::Constant(Tensor::new(shape, v)?));
        }
        Ok(vec![y])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (required(inputs, 0, "A")?, required(inputs, 1, "B")?);
        let out = broadcast_pair(a.shape(), b.shape(), 1)?;
        cx.count(&out)?;
        macro_rules! compare {
            ($v:ident) => {
                self.compare(Operand { elements: $v, shape: a.shape() }, Operand::of(b, 1, "B")?, &out, cx)
            };
        }
        let y = match_real!(a.data(), v => compare!(v), else match_integer!(a.data(), v => compare!(v), else {
            let wrong = OpError::InputType { index: 0, name: "A", dtype: a.dtype(), expected: "a type with this relation" };
            if self.kind != CompareKind::Equal {
                return Err(wrong);
            }
            match a.data() {
                Data::Bool(v) => {
                    let (a, b) = (Operand { elements: v, shape: a.shape() }, Operand::of(b, 1, "B")?);
                    zip(cx.pool, a, b, &out, |x, y: &bool| x == y)
                }
                Data::Str(v) => {
                    let (a, b) = (Operand { elements: v, shape: a.shape() }, Operand::of(b, 1, "B")?);
                    zip(cx.pool, a, b, &out, |x, y: &String| x == y)
                }
                _ => return Err(wrong),
            }
        }));
        Ok(vec![Tensor::new(out, y)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run;

    #[test]
    fn relations() {
        let (a, b) = (Tensor::vector(vec![1f32, 2.0, 3.0, f32::NAN]), Tensor::vector(vec![2f32, 2.0, 2.0, f32::NAN]));
        let of = |kind| run(&Compare { kind }, &[&a, &b]).unwrap()[0].to_i64s().unwrap();
        assert_eq!(of(CompareKind::Equal), [0, 1, 0, 0]);
        assert_eq!(of(CompareKind::Greater), [0, 0, 1, 0]);
        assert_eq!(of(CompareKind::Less), [1, 0, 0, 0]);
        assert_eq!(of(CompareKind::GreaterOrEqual), [0, 1, 1, 0]);
        assert_eq!(of(CompareKind::LessOrEqual), [1, 1, 0, 0]);
        let (s, t) = (Tensor::vector(vec!["a".to_owned(), "b".to_owned()]), Tensor::scalar("b".to_owned()));
        assert_eq!(run(&Compare { kind: CompareKind::Equal }, &[&s, &t]).unwrap()[0].to_i64s().unwrap(), [0, 1]);
        assert!(run(&Compare { kind: CompareKind::Less }, &[&s, &t]).is_err());
    }

    #[test]
    fn symbols_decide_where_they_can() {
        let n = Dim::symbol("N");
        let x = Fact::new(DType::I64, vec![Dim::from(1)]).with_dims(vec![&n + 3]);
        let mut fresh = || Dim::from(0);
        let mut cx = InferCx::new(&mut fresh);
        let minus = Fact::of(&Tensor::vector(vec![-1i64]));
        let y = Compare { kind: CompareKind::Equal }.infer(&[Some(&x), Some(&minus)], &mut cx).unwrap();
        assert_eq!(y[0].known, Some(Known::Constant(Tensor::vector(vec![false]))));
        let five = Fact::of(&Tensor::vector(vec![5i64]));
        let y = Compare { kind: CompareKind::Greater }.infer(&[Some(&x), Some(&five)], &mut cx).unwrap();
        assert_eq!(y[0].known, None);
    }
}
