//! Normalisation over the last axes: <https://onnx.ai/onnx/operators/onnx__LayerNormalization.html>,
//! <https://onnx.ai/onnx/operators/onnx__RMSNormalization.html>.

use crate::{
    DType, Dim, Element, Fact, OpError, Tensor, attributes,
    attrs::Attrs,
    ops::{
        InferCx, Operator, RunCx,
        helpers::{broadcast, broadcast_strides, normalize_axis, optional, required},
        planes::{
            accumulating, expect_float, for_each_plane, mean_and_variance, number, output_shapes, parameters, shape_error,
            sqrt, sum_of,
        },
    },
    scalar::Scalar,
};

attributes! {
    /// `y = scale * (x - mean) / sqrt(var + epsilon) + b`, the mean and (biased) variance being those over the axes from
    /// `axis` on.
    ///
    /// x, y `[D1..Dn]`; scale and b (optional) broadcast to x. Further results: the mean and `1 / sqrt(var + epsilon)`, in
    /// `stash_type`, with 1 for the sizes of the axes from `axis` on.
    pub struct LayerNormalization {
        /// The first axis that is normalised over; negative ones count from the back.
        pub axis: i64,
        /// Added to the variance.
        pub epsilon: f32,
        /// The type of the statistics: f32 or bf16.
        pub stash_type: DType,
    }
}

attributes! {
    /// `y = scale * x / sqrt(mean(x^2) + epsilon)`, the mean being that over the axes from `axis` on.
    ///
    /// x, y `[D1..Dn]`, y of the type of scale, which broadcasts to x.
    pub struct RMSNormalization {
        /// The first axis that is normalised over; negative ones count from the back.
        pub axis: i64,
        /// Added to the mean square.
        pub epsilon: f32,
        /// The type in which half precision is normalised.
        pub stash_type: DType,
    }
}

/// Requires that `fact` broadcasts to the shape of `x` without changing it.
fn expect_broadcast(x: &Fact, fact: &Fact, index: usize, name: &'static str) -> Result<(), OpError> {
    expect_float(fact, index, name)?;
    let refuse = || shape_error(fact, index, name, format!("it must broadcast to {}", crate::fact::Shape(&x.shape)));
    let joined = broadcast(&[&x.shape, &fact.shape]).map_err(|_| refuse())?;
    let same = joined.len() == x.rank() && joined.iter().zip(&x.shape).all(|(a, b)| a.equals(b) != Some(false));
    if same { Ok(()) } else { Err(refuse()) }
}

/// An operand that is broadcast to rows of elements.
struct Broadcast<S> {
    elements: Vec<S>,
    /// Sizes and strides of the axes before the normalised ones.
    outer: Vec<(usize, usize)>,
    /// Where each element of a row stands, from the row's first; `None` if they are consecutive.
    inner: Option<Vec<usize>>,
}

impl<S: Scalar + Element> Broadcast<S> {
    fn new(t: &Tensor, shape: &[usize], axis: usize, index: usize, name: &'static str) -> Result<Self, OpError> {
        let strides = broadcast_strides(t.shape(), shape);
        let mut inner = vec![0usize];
        for (&n, &s) in shape[axis..].iter().zip(&strides[axis..]) {
            inner = inner.iter().flat_map(|at| (0..n).map(move |i| at + i * s)).collect();
        }
        let consecutive = inner.iter().enumerate().all(|(i, &at)| i == at);
        Ok(Broadcast {
            elements: parameters(t, index, name)?,
            outer: shape[..axis].iter().copied().zip(strides[..axis].iter().copied()).collect(),
            inner: (!consecutive).then_some(inner),
        })
    }

    /// Calls `step(y, element)` for each `y` of row `row`.
    fn apply(&self, mut row: usize, y: &mut [S], step: impl Fn(&mut S, S)) {
        let mut first = 0;
        for &(n, stride) in self.outer.iter().rev() {
            first += row % n * stride;
            row /= n;
        }
        let elements = &self.elements[first..];
        match &self.inner {
            None => y.iter_mut().zip(elements).for_each(|(y, &e)| step(y, e)),
            Some(at) => y.iter_mut().zip(at).for_each(|(y, &i)| step(y, elements[i])),
        }
    }
}

/// x in the type that its statistics are computed in.
fn wide(x: &Tensor) -> Tensor {
    if matches!(x.dtype(), DType::F16 | DType::BF16) { x.rounded_to(DType::F32) } else { x.clone() }
}

impl Operator for LayerNormalization {
    const NAMES: &'static [&'static str] = &["LayerNormalization"];

    fn name(&self) -> &'static str {
        "LayerNormalization"
    }

    fn to_attrs(&self) -> Attrs {
        LayerNormalization::to_attrs(self)
    }

    fn from_attrs(_: &str, attrs: &mut Attrs) -> Result<Self, OpError> {
        LayerNormalization::from_attrs(attrs)
    }

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, scale) = (required(inputs, 0, "X")?, required(inputs, 1, "Scale")?);
        expect_float(x, 0, "X")?;
        let axis = normalize_axis(self.axis, x.rank(), "axis")?;
        if !matches!(self.stash_type, DType::F32 | DType::BF16) {
            let problem = format!("{} is neither f32 nor bf16", self.stash_type);
            return Err(OpError::Attribute { name: "stash_type", problem });
        }
        expect_broadcast(x, scale, 1, "Scale")?;
        if let Some(b) = optional(inputs, 2) {
            expect_broadcast(x, b, 2, "B")?;
        }
        let mut reduced = x.shape[..axis].to_vec();
        reduced.resize(x.rank(), Dim::from(1));
        let statistic = Fact::new(self.stash_type, reduced);
        Ok(vec![Fact::new(x.dtype, x.shape.clone()), statistic.clone(), statistic])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let shapes = output_shapes(self, inputs)?;
        let (x, scale, b) = (required(inputs, 0, "X")?, required(inputs, 1, "Scale")?, optional(inputs, 2));
        let axis = normalize_axis(self.axis, x.rank(), "axis")?;
        let wide = wide(x);
        accumulating!(wide, "X", S, v => {
            let scale = Broadcast::<S>::new(scale, x.shape(), axis, 1, "Scale")?;
            let b = b.map(|b| Broadcast::<S>::new(b, x.shape(), axis, 2, "B")).transpose()?;
            let row: usize = x.shape()[axis..].iter().product();
            let rows: usize = x.shape()[..axis].iter().product();
            let epsilon = S::from_f64(self.epsilon.into());
            let mut statistics = vec![(S::ZERO, S::ZERO); rows];
            for_each_plane(cx, &mut statistics, 1, 3 * row, |i, out| {
                let (mean, variance) = mean_and_variance(&v[i * row..][..row]);
                out[0] = (mean, S::ONE.div(sqrt(variance.add(epsilon))));
            });
            let mut y = v.to_vec();
            for_each_plane(cx, &mut y, row, 2 * row, |i, y| {
                let (mean, inverse) = statistics[i];
                scale.apply(i, y, |y, s| *y = y.sub(mean).mul(inverse).mul(s));
                if let Some(b) = &b {
                    b.apply(i, y, |y, b| *y = y.add(b));
                }
            });
            let (mean, inverse): (Vec<S>, Vec<S>) = statistics.into_iter().unzip();
            let stored = cx.stored(self.stash_type);
            Ok(vec![
                Tensor::new(x.shape(), y)?.rounded_to(x.dtype()),
                Tensor::new(shapes[1].clone(), mean)?.rounded_to(stored),
                Tensor::new(shapes[2].clone(), inverse)?.rounded_to(stored),
            ])
        })
    }
}

impl Operator for RMSNormalization {
    const NAMES: &'static [&'static str] = &["RMSNormalization"];

    fn name(&self) -> &'static str {
        "RMSNormalization"
    }

    fn to_attrs(&self) -> Attrs {
        RMSNormalization::to_attrs(self)
    }

    fn from_attrs(_: &str, attrs: &mut Attrs) -> Result<Self, OpError> {
        RMSNormalization::from_attrs(attrs)
    }

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, scale) = (required(inputs, 0, "X")?, required(inputs, 1, "scale")?);
        expect_float(x, 0, "X")?;
        normalize_axis(self.axis, x.rank(), "axis")?;
        expect_broadcast(x, scale, 1, "scale")?;
        Ok(vec![Fact::new(scale.dtype, x.shape.clone())])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        output_shapes(self, inputs)?;
        let (x, scale) = (required(inputs, 0, "X")?, required(inputs, 1, "scale")?);
        let axis = normalize_axis(self.axis, x.rank(), "axis")?;
        let (dtype, wide) = (scale.dtype(), wide(x));
        accumulating!(wide, "X", S, v => {
            let scale = Broadcast::<S>::new(scale, x.shape(), axis, 1, "scale")?;
            let row: usize = x.shape()[axis..].iter().product();
            let epsilon = S::from_f64(self.epsilon.into());
            let mut y = v.to_vec();
            for_each_plane(cx, &mut y, row, 3 * row, |i, y| {
                let square = sum_of(y, |v| v.mul(v)).div(number(row));
                let inverse = S::ONE.div(sqrt(square.add(epsilon)));
                scale.apply(i, y, |y, s| *y = y.mul(inverse).mul(s));
            });
            Ok(vec![Tensor::new(x.shape(), y)?.rounded_to(dtype)])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Real,
        ops::testing::{self, close, check_symbolic, random_f32, random_f64},
    };

    fn op(axis: i64) -> LayerNormalization {
        LayerNormalization { axis, epsilon: 1e-3, stash_type: DType::F32 }
    }

    fn rms(axis: i64) -> RMSNormalization {
        RMSNormalization { axis, epsilon: 1e-3, stash_type: DType::F32 }
    }

    /// The element of `t` that is broadcast to `index`.
    fn at(t: &Tensor, index: &[usize]) -> f64 {
        let skipped = index.len() - t.rank();
        let i = index[skipped..].iter().zip(t.shape()).fold(0, |at, (&i, &n)| at * n + if n == 1 { 0 } else { i });
        t.to_f64s().unwrap()[i]
    }

    #[test]
    fn agrees_with_the_formulas() {
        let cases: [(&[usize], i64, &[usize]); 6] = [
            (&[2, 3, 4, 5], -1, &[5]),
            (&[2, 3, 4, 5], 2, &[4, 5]),
            (&[2, 3, 4], 1, &[3, 1]),
            (&[2, 3, 4], 1, &[2, 1, 4]),
            (&[7], 0, &[]),
            (&[3, 2, 33], -1, &[2, 33]),
        ];
        for (shape, axis, parameter) in cases {
            let (x, scale, b) = (random_f64(shape, 1), random_f64(parameter, 2), random_f64(parameter, 3));
            let split = if axis < 0 { shape.len() - 1 } else { axis as usize };
            let all: Vec<(Vec<usize>, f64)> = testing::indices(shape).into_iter().zip(x.to_f64s().unwrap()).collect();
            let (mut layer, mut root) = (Vec::new(), Vec::new());
            for (index, v) in &all {
                let row: Vec<f64> =
                    all.iter().filter(|(j, _)| j[..split] == index[..split]).map(|(_, v)| *v).collect();
                let mean = |f: &dyn Fn(f64) -> f64| row.iter().map(|v| f(*v)).sum::<f64>() / row.len() as f64;
                let (m, square, e) = (mean(&|v| v), mean(&|v| v * v), f64::from(1e-3f32));
                layer.push((v - m) / (square - m * m + e).sqrt() * at(&scale, index) + at(&b, index));
                root.push(v / (square + e).sqrt() * at(&scale, index));
            }
            let y = testing::run_threads(&op(axis), &[Some(&x), Some(&scale), Some(&b)]).unwrap().swap_remove(0);
            close(&y, &Tensor::new(shape, layer).unwrap(), 1e-11);
            check_symbolic(&op(axis), &[Some(&x), Some(&scale), Some(&b)]);
            let y = testing::run_threads(&rms(axis), &[Some(&x), Some(&scale)]).unwrap().swap_remove(0);
            close(&y, &Tensor::new(shape, root).unwrap(), 1e-11);
            check_symbolic(&rms(axis), &[Some(&x), Some(&scale)]);
        }
    }

    #[test]
    fn statistics_have_their_own_type() {
        let x = random_f32(&[2, 4], 1).rounded_to(DType::F16);
        let scale = random_f32(&[4], 2).rounded_to(DType::F16);
        let results = testing::run_threads(&op(1), &[Some(&x), Some(&scale)]).unwrap();
        assert_eq!(results.iter().map(Tensor::dtype).collect::<Vec<_>>(), [DType::F16, DType::F32, DType::F32]);
        let (x, scale) = (x.to_real(Real::F64), scale.to_real(Real::F64));
        let results = testing::run_threads_as(&op(1), &[Some(&x), Some(&scale)], Real::F64).unwrap();
        assert!(results.iter().all(|t| t.dtype() == DType::F64));
    }

    #[test]
    fn misfits_are_refused() {
        let (x, scale) = (random_f64(&[2, 3], 1), random_f64(&[4], 2));
        assert!(matches!(testing::run_threads(&op(-1), &[Some(&x), Some(&scale)]), Err(OpError::InputShape { index: 1, .. })));
        let wider = random_f64(&[1, 2, 3], 2);
        assert!(matches!(testing::run_threads(&op(-1), &[Some(&x), Some(&wider)]), Err(OpError::InputShape { index: 1, .. })));
        assert!(matches!(testing::run_threads(&op(2), &[Some(&x), Some(&x)]), Err(OpError::Attribute { name: "axis", .. })));
    }
}
