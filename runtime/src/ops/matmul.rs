//! Matrix products with NumPy's rules: <https://onnx.ai/onnx/operators/onnx__MatMul.html>.

use crate::{
    Data, Dim, Element, Fact, OpError, Tensor, attributes,
    kernels,
    ops::{
        InferCx, Operator, RunCx,
        elementwise::{broadcast_pair, same_type, shape_error},
        helpers::{broadcast, broadcast_strides, elements, expect_dtype, required},
        integer::Integer,
        widened,
    },
    scalar::{Field, Scalar},
};

attributes! {
    /// `y[.., i, j] = sum over l of a[.., i, l] * b[.., l, j]`, leading axes broadcast. An operand of rank 1 is a row (first) or
    /// a column (second) whose added axis disappears from the result. Sums ascend in l.
    pub struct MatMul {}
}

/// A type that products of matrices are computed in.
pub(crate) trait Product: Element + Copy {
    /// `c = a * b` for row-major a `[m, k]`, b `[k, n]`, c `[m, n]`, summed in ascending order from 0.
    fn product(cx: &RunCx<'_>, sizes: [usize; 3], a: &[Self], b: &[Self], c: &mut [Self]);
}

fn plain<T: Copy>(
    [_, k, n]: [usize; 3],
    a: &[T],
    b: &[T],
    c: &mut [T],
    zero: T,
    multiply_add: impl Fn(T, T, T) -> T,
) {
    for (i, row) in c.chunks_exact_mut(n.max(1)).enumerate() {
        row.fill(zero);
        for l in 0..k {
            let x = a[i * k + l];
            for (y, &w) in row.iter_mut().zip(&b[l * n..(l + 1) * n]) {
                *y = multiply_add(*y, x, w);
            }
        }
    }
}

/// Products of fewer multiplications than this are not worth the kernel's preparations.
const SMALL: usize = 512;

macro_rules! real_product {
    ($($t:ty)*) => { $(
        impl Product for $t {
            fn product(cx: &RunCx<'_>, [m, k, n]: [usize; 3], a: &[Self], b: &[Self], c: &mut [Self]) {
                if m * k * n < SMALL {
                    plain([m, k, n], a, b, c, 0.0, |y, x, w| y + x * w);
                } else {
                    kernels::gemm(cx, m, k, n, a, b, c);
                }
            }
        }
    )* };
}
real_product!(f32 f64);

impl Product for Field {
    fn product(_: &RunCx<'_>, sizes: [usize; 3], a: &[Self], b: &[Self], c: &mut [Self]) {
        plain(sizes, a, b, c, Field::ZERO, |y, x, w| Scalar::add(y, Scalar::mul(x, w)));
    }
}

macro_rules! integer_product {
    ($($t:ty)*) => { $(
        impl Product for $t {
            fn product(_: &RunCx<'_>, sizes: [usize; 3], a: &[Self], b: &[Self], c: &mut [Self]) {
                plain(sizes, a, b, c, 0, |y, x, w| Integer::add(y, Integer::mul(x, w)));
            }
        }
    )* };
}
integer_product!(i8 i16 i32 i64 u8 u16 u32 u64);

/// The matrices and leading axes of two operands, as `infer` and `run` both read them.
struct Sizes<D> {
    m: Option<D>,
    k: (D, D),
    n: Option<D>,
    batch_a: Vec<D>,
    batch_b: Vec<D>,
}

fn sizes<D: Clone>(a: &[D], b: &[D]) -> Option<Sizes<D>> {
    let (batch_a, m, ka) = match a {
        [] => return None,
        [k] => (&[][..], None, k),
        [batch @ .., m, k] => (batch, Some(m.clone()), k),
    };
    let (batch_b, kb, n) = match b {
        [] => return None,
        [k] => (&[][..], k, None),
        [batch @ .., k, n] => (batch, k, Some(n.clone())),
    };
    Some(Sizes { m, k: (ka.clone(), kb.clone()), n, batch_a: batch_a.to_vec(), batch_b: batch_b.to_vec() })
}

/// The product of two tensors of `T` with NumPy's rules.
///
/// # Errors
/// If the sizes do not fit.
pub(crate) fn matmul<T: Product>(cx: &RunCx<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
    let (va, vb) = (elements::<T>(a, 0, "A")?, elements::<T>(b, 1, "B")?);
    let misfit = || shape_error(1, "B", &Fact::fixed(b.dtype(), b.shape()), format!("which {:?} cannot be multiplied by", a.shape()));
    let s = sizes(a.shape(), b.shape()).filter(|s| s.k.0 == s.k.1).ok_or_else(misfit)?;
    let (m, k, n) = (s.m.unwrap_or(1), s.k.0, s.n.unwrap_or(1));
    let batch = broadcast_pair(&s.batch_a, &s.batch_b, 1)?;
    let mut shape = batch.clone();
    shape.extend(s.m);
    shape.extend(s.n);
    let mut y = vec![T::default(); cx.count(&shape)?];
    if s.batch_b.iter().all(|&d| d == 1) && s.batch_a == batch {
        // One matrix on the right: the left ones are one tall matrix.
        let rows = batch.iter().product::<usize>() * m;
        T::product(cx, [rows, k, n], va, vb, &mut y);
        return Ok(Tensor::new(shape, y)?);
    }
    let (sa, sb) = (broadcast_strides(&s.batch_a, &batch), broadcast_strides(&s.batch_b, &batch));
    for (i, c) in y.chunks_exact_mut((m * n).max(1)).enumerate() {
        let (mut rest, mut at_a, mut at_b) = (i, 0, 0);
        for ((&size, a), b) in batch.iter().zip(&sa).zip(&sb).rev() {
            at_a += rest % size * a;
            at_b += rest % size * b;
            rest /= size;
        }
        T::product(cx, [m, k, n], &va[at_a * m * k..][..m * k], &vb[at_b * k * n..][..k * n], c);
    }
    Ok(Tensor::new(shape, y)?)
}

impl Operator for MatMul {
    single!(MatMul, "MatMul");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (a, b) = (required(inputs, 0, "A")?, required(inputs, 1, "B")?);
        expect_dtype(a, 0, "A", "a number type", |d| d.is_float() || d.is_integer())?;
        same_type(a.dtype, b.dtype, 1, "B")?;
        let s = sizes(&a.shape, &b.shape)
            .filter(|s| s.k.0.equals(&s.k.1) != Some(false))
            .ok_or_else(|| shape_error(1, "B", b, format!("which {} cannot be multiplied by", crate::fact::Shape(&a.shape))))?;
        let mut shape: Vec<Dim> = broadcast(&[&s.batch_a, &s.batch_b])?;
        shape.extend(s.m);
        shape.extend(s.n);
        Ok(vec![Fact::new(a.dtype, shape)])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        widened(inputs, |inputs| {
            let (a, b) = (required(inputs, 0, "A")?, required(inputs, 1, "B")?);
            let y = match a.data() {
                Data::F32(_) => matmul::<f32>(cx, a, b)?,
                Data::F64(_) => matmul::<f64>(cx, a, b)?,
                Data::Field(_) => matmul::<Field>(cx, a, b)?,
                Data::I8(_) => matmul::<i8>(cx, a, b)?,
                Data::I16(_) => matmul::<i16>(cx, a, b)?,
                Data::I32(_) => matmul::<i32>(cx, a, b)?,
                Data::I64(_) => matmul::<i64>(cx, a, b)?,
                Data::U8(_) => matmul::<u8>(cx, a, b)?,
                Data::U16(_) => matmul::<u16>(cx, a, b)?,
                Data::U32(_) => matmul::<u32>(cx, a, b)?,
                Data::U64(_) => matmul::<u64>(cx, a, b)?,
                _ => return Err(OpError::InputType { index: 0, name: "A", dtype: a.dtype(), expected: "a number type" }),
            };
            Ok(vec![y])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{close, indices, numbers, position, run};

    #[test]
    fn every_rank_and_batch() {
        let cases: &[(&[usize], &[usize])] = &[
            (&[3], &[3]),
            (&[3], &[3, 2]),
            (&[2, 3], &[3]),
            (&[2, 3], &[3, 4]),
            (&[5, 2, 3], &[3, 4]),
            (&[5, 2, 3], &[1, 3, 4]),
            (&[2, 3], &[5, 3, 4]),
            (&[2, 1, 2, 3], &[4, 3, 2]),
            (&[2, 0], &[0, 3]),
            (&[0, 2, 3], &[3, 4]),
            (&[3], &[2, 3, 4]),
            (&[9, 20], &[20, 11]),
        ];
        for &(sa, sb) in cases {
            let (a, b) = (numbers(sa, 1), numbers(sb, 2));
            let y = run(&MatMul {}, &[&a, &b]).unwrap().remove(0);
            let (va, vb) = (a.to_f64s().unwrap(), b.to_f64s().unwrap());
            let wide = |s: &[usize], front: bool| match (s.len(), front) {
                (1, true) => vec![1, s[0]],
                (1, false) => vec![s[0], 1],
                _ => s.to_vec(),
            };
            let (wa, wb) = (wide(sa, true), wide(sb, false));
            let k = wa[wa.len() - 1];
            let mut full = y.shape().to_vec();
            if sb.len() == 1 {
                full.push(1);
            }
            if sa.len() == 1 {
                full.insert(full.len() - 1, 1);
            }
            let want: Vec<f32> = indices(&full)
                .iter()
                .map(|o| {
                    let (batch, ij) = o.split_at(o.len() - 2);
                    (0..k)
                        .map(|l| {
                            va[position(&wa, &[batch, &[ij[0], l]].concat())]
                                * vb[position(&wb, &[batch, &[l, ij[1]]].concat())]
                        })
                        .sum::<f64>() as f32
                })
                .collect();
            close(&y, &Tensor::new(y.shape(), want).unwrap(), 1e-5);
        }
        assert!(run(&MatMul {}, &[&numbers(&[2, 3], 1), &numbers(&[2, 3], 1)]).is_err());
        assert!(run(&MatMul {}, &[&numbers(&[], 1), &numbers(&[1], 1)]).is_err());
        let i = Tensor::new([1, 2], vec![3i32, -4]).unwrap();
        assert_eq!(run(&MatMul {}, &[&i, &Tensor::vector(vec![2i32, 5])]).unwrap()[0], Tensor::vector(vec![-14i32]));
    }
}
