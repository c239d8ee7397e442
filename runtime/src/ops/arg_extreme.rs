//! Positions of extremes: <https://onnx.ai/onnx/operators/onnx__ArgMax.html>, <https://onnx.ai/onnx/operators/onnx__ArgMin.html>.

use crate::{
    DType, Data, Dim, Element, Fact, OpError, Tensor, attribute_enum, attributes, match_integer,
    ops::{
        InferCx, Operator, RunCx,
        elementwise::shape_error,
        helpers::{expect_dtype, fold, normalize_axis, required},
    },
    scalar::{Field, Scalar},
};

attribute_enum! {
    /// Of which extreme.
    pub enum ArgExtremeKind {
        /// The largest element.
        ArgMax = "ArgMax",
        /// The smallest element.
        ArgMin = "ArgMin",
    }
}

attributes! {
    /// The position (int64) of the largest or smallest element along one axis. NaN counts as more extreme than any number.
    pub struct ArgExtreme {
        /// Which extreme.
        pub kind: ArgExtremeKind,
        /// The axis; negative ones count from the back.
        pub axis: i64,
        /// Whether the axis stays with size 1.
        pub keepdims: bool,
        /// Whether the last of several extremes counts, not the first.
        pub select_last_index: bool,
    }
}

/// Whether `b` is more extreme than `a`, and whether they tie, for the maximum.
trait Rank: Copy {
    fn above(self, o: Self) -> bool;
    fn ties(self, o: Self) -> bool;
    fn reversed_above(self, o: Self) -> bool {
        o.above(self)
    }
}

macro_rules! rank {
    ($($t:ty)*) => { $(
        impl Rank for $t {
            fn above(self, o: Self) -> bool {
                self > o
            }
            fn ties(self, o: Self) -> bool {
                self == o
            }
        }
    )* };
}
rank!(i8 i16 i32 i64 u8 u16 u32 u64);

macro_rules! rank_float {
    ($($t:ty)*) => { $(
        impl Rank for $t {
            fn above(self, o: Self) -> bool {
                self > o || (self.is_nan() && !o.is_nan())
            }
            fn ties(self, o: Self) -> bool {
                self == o || (self.is_nan() && o.is_nan())
            }
            fn reversed_above(self, o: Self) -> bool {
                self < o || (self.is_nan() && !o.is_nan())
            }
        }
    )* };
}
rank_float!(f32 f64 half::f16 half::bf16);

impl Rank for Field {
    fn above(self, o: Self) -> bool {
        let key = |x: Field| x.apply("order", |x| x).get();
        key(self) > key(o)
    }
    fn ties(self, o: Self) -> bool {
        self == o
    }
}

impl ArgExtreme {
    fn shape<D: Clone>(&self, shape: &[D], one: D) -> Result<(usize, Vec<D>), OpError> {
        let axis = normalize_axis(self.axis, shape.len(), "axis")?;
        let mut out = shape.to_vec();
        if self.keepdims {
            out[axis] = one;
        } else {
            out.remove(axis);
        }
        Ok((axis, out))
    }

    fn search<T: Rank + Sync>(&self, x: &[T], size: usize, inner: usize) -> Vec<i64> {
        let outer = x.len().checked_div(size * inner).unwrap_or(0);
        let mut out = Vec::with_capacity(outer * inner);
        for block in x.chunks_exact((size * inner).max(1)) {
            for j in 0..inner {
                let mut best = 0;
                for i in 1..size {
                    let (v, b) = (block[i * inner + j], block[best * inner + j]);
                    let better = match self.kind {
                        ArgExtremeKind::ArgMax => v.above(b),
                        ArgExtremeKind::ArgMin => v.reversed_above(b),
                    };
                    if better || (self.select_last_index && v.ties(b)) {
                        best = i;
                    }
                }
                out.push(best as i64);
            }
        }
        out
    }
}

impl Operator for ArgExtreme {
    family!(ArgExtreme, ArgExtremeKind);

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "data")?;
        expect_dtype(x, 0, "data", "a number type", |d| d.is_float() || d.is_integer())?;
        let (axis, shape) = self.shape(&x.shape, Dim::from(1))?;
        if x.shape[axis].as_fixed() == Some(0) {
            return Err(shape_error(0, "data", x, format!("axis {axis} must not be empty")));
        }
        Ok(fold(self, inputs).unwrap_or_else(|| vec![Fact::new(DType::I64, shape)]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0, "data")?;
        let (axis, shape) = self.shape(x.shape(), 1)?;
        let (size, inner) = (x.shape()[axis], x.shape()[axis + 1..].iter().product());
        if size == 0 {
            let fact = Fact::fixed(x.dtype(), x.shape());
            return Err(shape_error(0, "data", &fact, format!("axis {axis} must not be empty")));
        }
        cx.count(&shape)?;
        let y = match x.data() {
            Data::F32(v) => self.search(v, size, inner),
            Data::F64(v) => self.search(v, size, inner),
            Data::F16(v) => self.search(v, size, inner),
            Data::BF16(v) => self.search(v, size, inner),
            Data::Field(v) => self.search(v, size, inner),
            other => match_integer!(other, v => self.search(v, size, inner), else {
                return Err(OpError::InputType { index: 0, name: "data", dtype: x.dtype(), expected: "a number type" });
            }),
        };
        Ok(vec![Tensor::from_data(shape, i64::wrap(y))?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run;

    #[test]
    fn ties_axes_and_nan() {
        let x = Tensor::new([2, 3], vec![2f32, 2.0, 1.0, 0.0, f32::NAN, 7.0]).unwrap();
        let of = |kind, axis, keepdims, select_last_index| {
            let y = run(&ArgExtreme { kind, axis, keepdims, select_last_index }, &[&x]).unwrap();
            (y[0].shape().to_vec(), y[0].to_i64s().unwrap())
        };
        assert_eq!(of(ArgExtremeKind::ArgMax, -1, false, false), (vec![2], vec![0, 1]));
        assert_eq!(of(ArgExtremeKind::ArgMax, 1, true, true), (vec![2, 1], vec![1, 1]));
        assert_eq!(of(ArgExtremeKind::ArgMin, 0, false, false), (vec![3], vec![1, 1, 0]));
        let none = Tensor::new([0, 3], Vec::<f32>::new()).unwrap();
        let op = |axis| ArgExtreme { kind: ArgExtremeKind::ArgMin, axis, keepdims: false, select_last_index: false };
        assert!(run(&op(0), &[&none]).is_err());
        assert_eq!(run(&op(1), &[&none]).unwrap()[0].shape(), [0]);
        assert!(run(&op(2), &[&none]).is_err());
    }
}
