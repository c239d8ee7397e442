//! Softmax and its relatives: <https://onnx.ai/onnx/operators/onnx__Softmax.html>,
//! <https://onnx.ai/onnx/operators/onnx__LogSoftmax.html>, <https://onnx.ai/onnx/operators/onnx__Hardmax.html>.

use half::{bf16, f16};

use crate::{
    DType, Data, Fact, OpError, Tensor, attribute_enum, attributes,
    ops::{
        InferCx, Operator, RunCx,
        helpers::{expect_float, fold, normalize_axis, required},
        reduce::Accumulate,
        widened,
    },
    scalar::{Field, Scalar},
};

attribute_enum! {
    /// Which.
    pub enum SoftmaxKind {
        /// `exp(x) / sum exp(x)`.
        Softmax = "Softmax",
        /// `x - ln(sum exp(x))`.
        LogSoftmax = "LogSoftmax",
        /// 1 at the first largest element, 0 elsewhere.
        Hardmax = "Hardmax",
    }
}

attributes! {
    /// A function along one axis; same type and shape. The largest element is subtracted first. f32 is computed in f64, summed in
    /// ascending order, and rounded once. For f16 and bf16 the exponentials of Softmax and their sum are elements of that type, as in
    /// the function that ONNX defines it by.
    pub struct Softmax {
        /// The function.
        pub kind: SoftmaxKind,
        /// The axis; negative ones count from the back.
        pub axis: i64,
        /// Whether the function runs along all axes from `axis` on, as one: the meaning before opset 13.
        pub flatten: bool,
    }
}

/// Rounds to the elements' type.
type Round = fn(f64) -> f64;

/// For elements of the type `dtype`, which f32 stands for if it is narrower.
fn rounding(dtype: DType) -> Round {
    match dtype {
        DType::F16 => |x| f16::from_f64(x).to_f64(),
        DType::BF16 => |x| bf16::from_f64(x).to_f64(),
        _ => |x| x,
    }
}

trait Row: Accumulate {
    /// Applies the function to the elements of one row.
    fn row(kind: SoftmaxKind, row: &mut [Self::Acc], round: Round);
}

fn native_row(kind: SoftmaxKind, row: &mut [f64], round: Round) {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, Scalar::max);
    match kind {
        SoftmaxKind::Softmax => {
            row.iter_mut().for_each(|x| *x = round(libm::exp(*x - max)));
            let exact = row.iter().fold(0.0, |a, x| a + x);
            // A long row sums to more than f16 holds.
            let sum = Some(round(exact)).filter(|s| s.is_finite()).unwrap_or(exact);
            row.iter_mut().for_each(|x| *x /= sum);
        }
        SoftmaxKind::LogSoftmax => {
            let sum = row.iter().fold(0.0, |a, x| a + libm::exp(x - max));
            let log = libm::log(sum);
            row.iter_mut().for_each(|x| *x = *x - max - log);
        }
        SoftmaxKind::Hardmax => {
            let first = row.iter().position(|x| *x == max || x.is_nan());
            row.fill(0.0);
            if let Some(x) = first.and_then(|i| row.get_mut(i)) {
                *x = 1.0;
            }
        }
    }
}

impl Row for f32 {
    fn row(kind: SoftmaxKind, row: &mut [f64], round: Round) {
        native_row(kind, row, round);
    }
}

impl Row for f64 {
    fn row(kind: SoftmaxKind, row: &mut [f64], round: Round) {
        native_row(kind, row, round);
    }
}

impl Row for Field {
    fn row(kind: SoftmaxKind, row: &mut [Field], _: Round) {
        let exp = |x: &Field| x.apply("Exp", libm::exp);
        let sum = row.iter().fold(Field::ZERO, |a, x| Scalar::add(a, exp(x)));
        match kind {
            SoftmaxKind::Softmax => row.iter_mut().for_each(|x| *x = exp(x).div(sum)),
            SoftmaxKind::LogSoftmax => {
                let log = sum.apply("Log", libm::log);
                row.iter_mut().for_each(|x| *x = Scalar::sub(*x, log));
            }
            SoftmaxKind::Hardmax => {
                let best = row.iter().max_by_key(|x| x.apply("order", |x| x).get()).copied();
                let first = row.iter().position(|x| Some(*x) == best);
                row.fill(Field::ZERO);
                if let Some(x) = first.and_then(|i| row.get_mut(i)) {
                    *x = Field::ONE;
                }
            }
        }
    }
}

/// Blocks of about this many elements are one thread's work.
const PIECE: usize = 1 << 13;

impl Softmax {
    /// Number of elements of a row, and of rows that lie interleaved.
    fn geometry(&self, shape: &[usize]) -> Result<(usize, usize), OpError> {
        if self.flatten {
            let rank = shape.len();
            // The axis may be the rank itself: rows of one element.
            let at = if self.axis == rank as i64 { rank } else { normalize_axis(self.axis, rank, "axis")? };
            return Ok((shape[at..].iter().product(), 1));
        }
        if shape.is_empty() && matches!(self.axis, -1 | 0) {
            return Ok((1, 1));
        }
        let axis = normalize_axis(self.axis, shape.len(), "axis")?;
        Ok((shape[axis], shape[axis + 1..].iter().product()))
    }

    fn apply<S: Row>(&self, x: &Tensor, v: &[S], round: Round, cx: &RunCx<'_>) -> Result<Data, OpError> {
        let (size, inner) = self.geometry(x.shape())?;
        let mut y = v.to_vec();
        let block = (size * inner).max(1);
        let piece = block * (PIECE / block).max(1);
        cx.pool.for_each_chunk(&mut y, piece, &|_, piece| {
            let mut row = vec![S::Acc::ZERO; size];
            for block in piece.chunks_exact_mut(block) {
                for j in 0..inner {
                    let at = || (0..size).map(|i| i * inner + j);
                    row.iter_mut().zip(at()).for_each(|(r, i)| *r = block[i].widen());
                    S::row(self.kind, &mut row, round);
                    row.iter().zip(at()).for_each(|(r, i)| block[i] = S::narrow(*r));
                }
            }
        });
        Ok(S::wrap(y))
    }
}

impl Operator for Softmax {
    family!(Softmax, SoftmaxKind);

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "input")?;
        expect_float(x, 0, "input")?;
        self.geometry(&vec![1; x.rank()])?;
        Ok(fold(self, inputs).unwrap_or_else(|| vec![Fact::new(x.dtype, x.shape.clone())]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let round = rounding(required(inputs, 0, "input")?.dtype());
        widened(inputs, |inputs| {
            let x = required(inputs, 0, "input")?;
            cx.count(x.shape())?;
            let data = match x.data() {
                Data::F32(v) => self.apply(x, v, round, cx)?,
                Data::F64(v) => self.apply(x, v, round, cx)?,
                Data::Field(v) => self.apply(x, v, round, cx)?,
                _ => {
                    let expected = "a floating-point type";
                    return Err(OpError::InputType { index: 0, name: "input", dtype: x.dtype(), expected });
                }
            };
            Ok(vec![Tensor::from_data(x.shape(), data)?])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{close, indices, numbers, run};

    #[test]
    fn along_each_axis() {
        let shape = [2, 3, 4];
        let x = numbers(&shape, 7);
        let v = x.to_f64s().unwrap();
        let all = indices(&shape);
        for axis in 0..3 {
            for flatten in [false, true] {
                let same = |a: &[usize], b: &[usize]| {
                    (0..3).all(|k| a[k] == b[k] || if flatten { k >= axis } else { k == axis })
                };
                for &kind in SoftmaxKind::ALL {
                    let want = all.iter().zip(&v).map(|(i, &xi)| {
                        let row = || all.iter().zip(&v).filter(|(o, _)| same(i, o)).map(|(_, &x)| x);
                        let sum: f64 = row().map(f64::exp).sum();
                        (match kind {
                            SoftmaxKind::Softmax => xi.exp() / sum,
                            SoftmaxKind::LogSoftmax => xi - sum.ln(),
                            SoftmaxKind::Hardmax => f64::from(xi >= row().fold(f64::MIN, f64::max)),
                        }) as f32
                    });
                    let want = Tensor::new(shape, want.collect()).unwrap();
                    let op = Softmax { kind, axis: axis as i64 - if flatten { 0 } else { 3 }, flatten };
                    close(&run(&op, &[&x]).unwrap()[0], &want, 1e-6);
                }
            }
        }
    }

    #[test]
    fn half_precision_steps_are_those_of_the_defining_function() {
        let op = Softmax { kind: SoftmaxKind::Softmax, axis: -1, flatten: false };
        let v = [0.11f32, 0.73, 0.4, 0.92].map(f16::from_f32);
        let e = v.map(|x| f16::from_f64((x.to_f64() - v[3].to_f64()).exp()));
        let sum = f16::from_f64(e.iter().map(|x| x.to_f64()).sum());
        let want: Vec<f16> = e.iter().map(|x| f16::from_f32(x.to_f32() / sum.to_f32())).collect();
        assert_eq!(run(&op, &[&Tensor::vector(v.to_vec())]).unwrap()[0], Tensor::vector(want));
        let long = Tensor::vector(vec![f16::ONE; 1 << 17]);
        assert_eq!(run(&op, &[&long]).unwrap()[0].as_slice::<f16>().unwrap()[0], f16::from_f64(1.0 / f64::from(1 << 17)));
    }

    #[test]
    fn large_values_and_no_values() {
        let op = Softmax { kind: SoftmaxKind::Softmax, axis: -1, flatten: false };
        let x = Tensor::vector(vec![1e4f32, 1e4, -1e4]);
        assert_eq!(run(&op, &[&x]).unwrap()[0], Tensor::vector(vec![0.5f32, 0.5, 0.0]));
        let none = Tensor::new([3, 0], Vec::<f32>::new()).unwrap();
        assert_eq!(run(&op, &[&none]).unwrap()[0], none);
        assert_eq!(run(&op, &[&Tensor::scalar(3f32)]).unwrap()[0], Tensor::scalar(1f32));
        assert!(run(&Softmax { axis: 2, ..op }, &[&none]).is_err());
    }
}
