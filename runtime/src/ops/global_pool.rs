//! Pooling over all spatial axes: <https://onnx.ai/onnx/operators/onnx__GlobalAveragePool.html>,
//! <https://onnx.ai/onnx/operators/onnx__GlobalMaxPool.html>, <https://onnx.ai/onnx/operators/onnx__GlobalLpPool.html>.

use crate::{
    Dim, Element, Fact, OpError, Tensor, attribute_enum,
    attrs::{self, Attrs},
    ops::{
        InferCx, Operator, RunCx,
        helpers::required,
        lp_pool::{check_exponent, power, root},
        planes::{accumulating, expect_float, expect_rank, for_each_plane, number, output_shapes, sum_of},
        widened,
    },
    scalar::Scalar,
};

attribute_enum! {
    /// What is made of a plane.
    pub enum GlobalPoolKind {
        /// Its mean.
        Average = "GlobalAveragePool",
        /// Its maximum.
        Max = "GlobalMaxPool",
        /// Its norm.
        Lp = "GlobalLpPool",
    }
}

/// `y[n,c] = f(x[n,c,..])`: x `[N, C, D1..Dn]`, y `[N, C, 1..1]`.
///
/// `f` is the mean (NaN of no elements), the maximum (the lowest value of no elements), or `(sum of |x|^p)^(1/p)`.
#[derive(Debug, Clone, PartialEq)]
pub struct GlobalPool {
    /// Which `f`.
    pub kind: GlobalPoolKind,
    /// The exponent of the norm, 2 if not given; of [`GlobalPoolKind::Lp`] only.
    pub p: Option<i64>,
}

impl GlobalPool {
    fn exponent(&self) -> i64 {
        self.p.unwrap_or(2)
    }

    fn pool<S: Scalar>(&self, x: &[S]) -> S {
        match self.kind {
            GlobalPoolKind::Average => sum_of(x, |v| v).div(number(x.len())),
            GlobalPoolKind::Max => maximum(x),
            GlobalPoolKind::Lp => root(sum_of(x, |v| power(v, self.exponent())), self.exponent()),
        }
    }
}

/// The maximum in row-major order, whose first two arguments are elements.
fn maximum<S: Scalar>(x: &[S]) -> S {
    let mut rest = x.iter();
    match rest.next() {
        Some(&first) => rest.fold(first, |m, &v| m.max(v)),
        None => S::from_f64(f64::NEG_INFINITY),
    }
}

impl Operator for GlobalPool {
    const NAMES: &'static [&'static str] = GlobalPoolKind::TEXTS;

    fn name(&self) -> &'static str {
        self.kind.text()
    }

    fn to_attrs(&self) -> Attrs {
        self.p.map(|p| ("p".to_owned(), attrs::AttrValue::Int(p))).into_iter().collect()
    }

    fn from_attrs(name: &str, attrs: &mut Attrs) -> Result<Self, OpError> {
        let kind = GlobalPoolKind::from_text(name).ok_or_else(|| OpError::Unsupported(format!("operator {name}")))?;
        let p = if kind == GlobalPoolKind::Lp { attrs::take(attrs, "p")? } else { None };
        Ok(GlobalPool { kind, p })
    }

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "X")?;
        expect_float(x, 0, "X")?;
        expect_rank(x, 2, 0, "X")?;
        check_exponent(self.exponent())?;
        let mut shape = x.shape[..2].to_vec();
        shape.resize(x.rank(), Dim::from(1));
        Ok(vec![Fact::new(x.dtype, shape)])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        fn all<S: Scalar + Element>(op: &GlobalPool, cx: &RunCx<'_>, x: &[S], plane: usize, planes: usize) -> Vec<S> {
            let mut y = vec![S::ZERO; planes];
            for_each_plane(cx, &mut y, 1, plane, |i, y| y[0] = op.pool(&x[i * plane..][..plane]));
            y
        }
        widened(inputs, |inputs| {
            let x = required(inputs, 0, "X")?;
            let shape = output_shapes(self, &[Some(x)])?.swap_remove(0);
            let plane: usize = x.shape()[2..].iter().product();
            let planes = cx.count(&shape)?;
            accumulating!(x, "X", S, v => Ok(vec![Tensor::new(shape, all::<S>(self, cx, v, plane, planes))?]))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{self, close, check_symbolic, random_f64};

    #[test]
    fn each_plane_by_itself() {
        for shape in [vec![3, 2, 5, 7], vec![1, 4, 9], vec![2, 3, 2, 3, 40], vec![2, 3]] {
            let x = random_f64(&shape, 5);
            let plane = shape[2..].iter().product();
            let planes = x.as_slice::<f64>().unwrap().chunks(plane);
            type Pool = fn(&[f64]) -> f64;
            let pools: [(GlobalPoolKind, Option<i64>, Pool); 4] = [
                (GlobalPoolKind::Average, None, |p| p.iter().sum::<f64>() / p.len() as f64),
                (GlobalPoolKind::Max, None, |p| p.iter().copied().fold(-2.0, f64::max)),
                (GlobalPoolKind::Lp, None, |p| p.iter().map(|v| v * v).sum::<f64>().sqrt()),
                (GlobalPoolKind::Lp, Some(3), |p| libm::cbrt(p.iter().map(|v| v.abs() * v * v).sum::<f64>())),
            ];
            for (kind, p, f) in pools {
                let op = GlobalPool { kind, p };
                let y = testing::run_threads(&op, &[Some(&x)]).unwrap().swap_remove(0);
                let expected = Tensor::new(y.shape(), planes.clone().map(f).collect::<Vec<_>>()).unwrap();
                close(&y, &expected, 1e-13);
                check_symbolic(&op, &[Some(&x)]);
            }
        }
    }

    #[test]
    fn nothing_to_pool() {
        let x = Tensor::new([1, 2, 0], Vec::<f32>::new()).unwrap();
        let run = |kind| testing::run_threads(&GlobalPool { kind, p: None }, &[Some(&x)]).unwrap().swap_remove(0);
        assert!(run(GlobalPoolKind::Average).to_f64s().unwrap().iter().all(|v| v.is_nan()));
        assert_eq!(run(GlobalPoolKind::Max).to_f64s().unwrap(), [f64::NEG_INFINITY; 2]);
    }
}
