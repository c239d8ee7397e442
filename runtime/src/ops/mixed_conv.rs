//! Convolution with a kernel mixed for each sample: CondConv (<https://arxiv.org/abs/1904.04971>) and DynamicConv
//! (<https://arxiv.org/abs/1912.03458>), domain `ai.convc`.

use crate::{
    Data, Dim, Element, Fact, OpError, Tensor, attribute_enum,
    attrs::{self, AttrValue, Attrs},
    ops::{
        Expand, Gather, InferCx, Operator, RunCx, Slice, Transpose,
        binary::BinaryKind,
        compose::{Compose, Composer, convolution},
        do_conv::check_group,
        helpers::{optional, required},
        planes::{accumulating, expect_float, output_shapes, shape_error},
        widened,
    },
    scalar::Scalar,
};

attribute_enum! {
    /// What the coefficients are.
    pub enum MixedConvKind {
        /// Anything; usually sigmoids, which do not sum to 1.
        CondConv = "CondConv",
        /// Attention over the experts: they sum to 1.
        DynamicConv = "DynamicConv",
    }
}

/// `y[n] = Conv(x[n], sum over e of r[n,e] * W[e], bias(n))`.
///
/// x `[N, C, D1..Dn]`; r `[N, E]`; W `[E, O, C/group, K1..Kn]`; b (optional) `[E, O]`, mixed like the kernels, or `[O]`, added
/// as it is. Both kinds compute the same; the name says what made r, and nothing relies on it.
#[derive(Debug, Clone, PartialEq)]
pub struct MixedConv {
    /// Which name it goes by.
    pub kind: MixedConvKind,
    /// Step between outputs, one per spatial axis.
    pub strides: Vec<i64>,
    /// Zeros before (first half) and after each spatial axis.
    pub pads: Vec<i64>,
    /// Step between taps, one per spatial axis.
    pub dilations: Vec<i64>,
    /// Number of groups.
    pub group: i64,
}

impl MixedConv {
    /// Defines the operator by others. A known batch N becomes one convolution of N groups over the folded batch; otherwise
    /// the results of all experts are mixed, for a number of groups is static; where each map is one position, matrices are.
    ///
    /// # Errors
    /// If an operand is missing, or the sizes of W are not known.
    pub fn compose<C: Composer>(&self, c: &mut C, operands: &[Option<C::Value>]) -> Result<C::Value, C::Error> {
        let (x, r, w) = (C::given(operands, 0, "X")?, C::given(operands, 1, "R")?, C::given(operands, 2, "W")?);
        let b = operands.get(3).cloned().flatten();
        check_group(self.group, "group")?;
        let sizes = c.sizes(&w, "W")?;
        let shape = (0..sizes.fact.rank()).map(|a| sizes.at(a)).collect::<Result<Vec<i64>, _>>()?;
        let [experts, o, per_group, kernel @ ..] = shape.as_slice() else {
            return Err(shape_error(&sizes.fact, 2, "W", "[E, O, C/group, K..] is needed".into()).into());
        };
        let mixed = match &b {
            Some(b) => c.sizes(b, "B")?.fact.rank() == 2,
            None => false,
        };
        let ones = vec![1; kernel.len()];
        match c.sizes(&x, "X")?.at(0) {
            Ok(n @ 1..) => {
                let taps: i64 = kernel.iter().product();
                let flat = c.reshape(&w, &[*experts, o * per_group * taps])?;
                let flat = c.matmul(&r, &flat)?;
                let kernels = c.reshape(&flat, &[&[n * o, *per_group], kernel].concat())?;
                let bias = match &b {
                    Some(b) if mixed => {
                        let b = c.matmul(&r, b)?;
                        Some(c.reshape(&b, &[n * o])?)
                    }
                    Some(b) if n > 1 => {
                        let each = c.ints(&[n, *o])?;
                        let b = c.one(Expand {}, vec![Some(b.clone()), Some(each)])?;
                        Some(c.reshape(&b, &[n * o])?)
                    }
                    b => b.clone(),
                };
                let kept = vec![0; kernel.len()];
                let conv = convolution(&self.strides, &self.pads, &self.dilations, self.group * n);
                if n == 1 {
                    c.conv(conv, &x, &kernels, bias.as_ref())
                } else {
                    let folded = c.reshape(&x, &[&[1, n * per_group * self.group], kept.as_slice()].concat())?;
                    let y = c.conv(conv, &folded, &kernels, bias.as_ref())?;
                    c.reshape(&y, &[&[n, *o], kept.as_slice()].concat())
                }
            }
            // A product of matrices needs no number of groups.
            _ if self.is_product(&c.sizes(&x, "X")?.fact, kernel) => {
                let w = c.reshape(&w, &[*experts, *o, *per_group])?;
                let w = c.one(Transpose { perm: vec![0, 2, 1] }, vec![Some(w)])?;
                let w = c.reshape(&w, &[*experts, per_group * o])?;
                let matrices = c.matmul(&r, &w)?;
                let matrices = c.reshape(&matrices, &[0, *per_group, *o])?;
                let x = c.reshape(&x, &[0, 1, *per_group])?;
                let y = c.matmul(&x, &matrices)?;
                let y = c.reshape(&y, &[&[0, *o], ones.as_slice()].concat())?;
                let Some(b) = b else { return Ok(y) };
                let b = if mixed { c.matmul(&r, &b)? } else { b };
                let batch = if mixed { 0 } else { 1 };
                let b = c.reshape(&b, &[&[batch, *o], ones.as_slice()].concat())?;
                c.binary(BinaryKind::Add, &y, &b)
            }
            _ => {
                let r = c.reshape(&r, &[&[0, *experts], ones.as_slice()].concat())?;
                let conv = convolution(&self.strides, &self.pads, &self.dilations, self.group);
                let mut terms = Vec::new();
                for e in 0..*experts {
                    let index = c.constant(Tensor::scalar(e))?;
                    let w = c.one(Gather { axis: 0 }, vec![Some(w.clone()), Some(index.clone())])?;
                    let b = match &b {
                        Some(b) if mixed => Some(c.one(Gather { axis: 0 }, vec![Some(b.clone()), Some(index)])?),
                        _ => None,
                    };
                    let y = c.conv(conv.clone(), &x, &w, b.as_ref())?;
                    let bounds = [c.ints(&[e])?, c.ints(&[e + 1])?, c.ints(&[1])?];
                    let r = c.one(Slice {}, [r.clone()].into_iter().chain(bounds).map(Some).collect())?;
                    terms.push(c.binary(BinaryKind::Mul, &y, &r)?);
                }
                let y = c.sum(&terms)?;
                match b.filter(|_| !mixed) {
                    Some(b) => {
                        let b = c.reshape(&b, &[&[1, *o], ones.as_slice()].concat())?;
                        c.binary(BinaryKind::Add, &y, &b)
                    }
                    None => Ok(y),
                }
            }
        }
    }
}

impl MixedConv {
    /// Whether it is a product of matrices: a 1x1 kernel on maps of one position.
    fn is_product(&self, x: &Fact, kernel: &[i64]) -> bool {
        let one = |d: &Dim| d.as_fixed() == Some(1);
        self.group == 1
            && kernel.iter().all(|&k| k == 1)
            && self.pads.iter().all(|&p| p == 0)
            && x.shape.get(2..).is_some_and(|s| s.iter().all(one))
    }
}

impl Operator for MixedConv {
    const NAMES: &'static [&'static str] = MixedConvKind::TEXTS;

    fn name(&self) -> &'static str {
        self.kind.text()
    }

    fn to_attrs(&self) -> Attrs {
        let lists = [("strides", &self.strides), ("pads", &self.pads), ("dilations", &self.dilations)];
        let mut attrs: Attrs = lists.map(|(name, v)| (name.to_owned(), AttrValue::Ints(v.clone()))).into();
        attrs.insert("group".into(), AttrValue::Int(self.group));
        attrs
    }

    fn from_attrs(name: &str, attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(MixedConv {
            kind: MixedConvKind::from_text(name).ok_or_else(|| OpError::Unsupported(format!("operator {name}")))?,
            strides: attrs::take(attrs, "strides")?,
            pads: attrs::take(attrs, "pads")?,
            dilations: attrs::take(attrs, "dilations")?,
            group: attrs::take(attrs, "group")?,
        })
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, r, w) = (required(inputs, 0, "X")?, required(inputs, 1, "R")?, required(inputs, 2, "W")?);
        for (i, name, f) in [(0, "X", x), (1, "R", r), (2, "W", w)] {
            expect_float(f, i, name)?;
        }
        if x.rank() < 3 || w.rank() != x.rank() + 1 {
            return Err(shape_error(w, 2, "W", "[E, O, C/group, K..] is needed, one K for each spatial axis of X".into()));
        }
        let fits = |f: &Fact, sizes: &[&Dim]| {
            f.rank() == sizes.len() && f.shape.iter().zip(sizes).all(|(a, b)| a.equals(b) != Some(false))
        };
        if w.shape[0].as_fixed() == Some(0) {
            return Err(shape_error(w, 2, "W", "at least one expert is needed".into()));
        }
        if !fits(r, &[&x.shape[0], &w.shape[0]]) {
            return Err(shape_error(r, 1, "R", format!("[{}, {}] is needed", x.shape[0], w.shape[0])));
        }
        if let Some(b) = optional(inputs, 3)
            && !fits(b, &[&w.shape[1]])
            && !fits(b, &[&w.shape[0], &w.shape[1]])
        {
            return Err(shape_error(b, 3, "B", format!("[{}, {}] or [{}] is needed", w.shape[0], w.shape[1], w.shape[1])));
        }
        let kernel = Fact::new(w.dtype, &w.shape[1..]);
        let conv = convolution(&self.strides, &self.pads, &self.dilations, self.group);
        conv.infer(&[Some(x), Some(&kernel)], cx)
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = output_shapes(self, inputs)?.swap_remove(0);
        cx.count(&shape)?;
        widened(inputs, |inputs| {
            let x = required(inputs, 0, "X")?;
            accumulating!(x, "X", S, v => Ok(vec![Tensor::new(shape, self.samples::<S>(inputs, v, cx)?)?]))
        })
    }
}

impl MixedConv {
    /// One sample after the other: its kernel, its bias, one convolution.
    fn samples<S: Scalar + Element>(
        &self,
        inputs: &[Option<&Tensor>],
        v: &[S],
        cx: &RunCx<'_>,
    ) -> Result<Vec<S>, OpError> {
        let (x, r, w) = (required(inputs, 0, "X")?, required(inputs, 1, "R")?, required(inputs, 2, "W")?);
        let conv = convolution(&self.strides, &self.pads, &self.dilations, self.group);
        let mixes = |t: &Tensor, index, name, r: &[S]| {
            let all = super::helpers::elements::<S>(t, index, name)?;
            let mut sum = vec![S::ZERO; t.shape().iter().skip(1).product()];
            if !sum.is_empty() {
                for (&r, part) in r.iter().zip(all.chunks(sum.len())) {
                    sum.iter_mut().zip(part).for_each(|(s, &w)| *s = s.add(r.mul(w)));
                }
            }
            Tensor::new(t.shape().get(1..).unwrap_or_default(), sum).map_err(OpError::from)
        };
        let routes = super::helpers::elements::<S>(r, 1, "R")?;
        let (n, experts) = (x.shape()[0], w.shape()[0]);
        let sample: usize = x.shape()[1..].iter().product();
        let mut one = x.shape().to_vec();
        one[0] = 1;
        let mut y = Vec::new();
        for i in 0..n {
            let r = &routes[i * experts..][..experts];
            let kernel = mixes(w, 2, "W", r)?;
            let bias = match optional(inputs, 3) {
                Some(b) if b.rank() == 2 => Some(mixes(b, 3, "B", r)?),
                b => b.cloned(),
            };
            let x = Tensor::new(one.clone(), v[i * sample..][..sample].to_vec())?;
            let out = conv.run(&[Some(&x), Some(&kernel), bias.as_ref()], cx)?;
            let out: Option<Data> = out.into_iter().next().map(Tensor::into_data);
            y.extend(out.and_then(S::take).unwrap_or_default());
        }
        Ok(y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Real,
        ops::{
            compose::evaluate,
            testing::{check_symbolic, close, random_f64, run_threads, run_threads_as},
        },
    };

    fn op(group: i64) -> MixedConv {
        let (strides, pads, dilations) = (vec![2, 1], vec![1, 0, 2, 1], vec![1, 2]);
        MixedConv { kind: MixedConvKind::CondConv, strides, pads, dilations, group }
    }

    /// The results of all experts, mixed afterwards: the other way to see it.
    #[test]
    fn mixing_kernels_is_mixing_results() {
        for (n, group) in [(1, 1), (3, 2), (2, 4)] {
            let x = random_f64(&[n, 4, 6, 5], 1);
            let r = random_f64(&[n, 3], 2);
            let w = random_f64(&[3, 8, 4 / group, 3, 2], 3);
            for b in [None, Some(random_f64(&[8], 4)), Some(random_f64(&[3, 8], 5))] {
                let op = op(group as i64);
                let inputs = [Some(&x), Some(&r), Some(&w), b.as_ref()];
                let y = run_threads(&op, &inputs).unwrap().swap_remove(0);
                let sample: usize = y.shape()[1..].iter().product();
                let mut expected = vec![0.0; y.len()];
                let kernel: usize = w.shape()[1..].iter().product();
                for e in 0..3 {
                    let part = w.as_slice::<f64>().unwrap()[e * kernel..][..kernel].to_vec();
                    let part = Tensor::new(&w.shape()[1..], part).unwrap();
                    let conv = convolution(&op.strides, &op.pads, &op.dilations, op.group);
                    let z = run_threads(&conv, &[Some(&x), Some(&part)]).unwrap().swap_remove(0);
                    for (i, z) in z.to_f64s().unwrap().into_iter().enumerate() {
                        let route = r.as_slice::<f64>().unwrap()[i / sample * 3 + e];
                        let channel = i % sample / (sample / 8);
                        let bias = match &b {
                            Some(b) if b.rank() == 2 => b.as_slice::<f64>().unwrap()[e * 8 + channel],
                            _ => 0.0,
                        };
                        expected[i] += route * (z + bias);
                    }
                }
                if let Some(b) = b.as_ref().filter(|b| b.rank() == 1) {
                    let b = b.as_slice::<f64>().unwrap();
                    expected.iter_mut().enumerate().for_each(|(i, y)| *y += b[i % sample / (sample / 8)]);
                }
                close(&y, &Tensor::new(y.shape(), expected).unwrap(), 1e-12);
                check_symbolic(&op, &inputs);
            }
        }
    }

    #[test]
    fn the_definition_is_the_same_polynomial() {
        let field = |shape: &[usize], seed| random_f64(shape, seed).to_real(Real::Field);
        let (x, r, w, b) = (field(&[2, 2, 4, 4], 1), field(&[2, 2], 2), field(&[2, 4, 1, 3, 2], 3), field(&[2, 4], 4));
        let inputs = [Some(&x), Some(&r), Some(&w), Some(&b)];
        let y = run_threads_as(&op(2), &inputs, Real::Field).unwrap();
        let pool = crate::sys::Pool::new(1);
        let cx = RunCx::new(Real::Field, &pool);
        assert_eq!(evaluate(&inputs, &cx, |c, o| op(2).compose(c, o)).unwrap(), y);
    }

    #[test]
    fn routes_must_fit() {
        let (x, r, w) = (random_f64(&[2, 4, 6, 5], 1), random_f64(&[2, 2], 2), random_f64(&[3, 8, 4, 3, 2], 3));
        let refused = run_threads(&op(1), &[Some(&x), Some(&r), Some(&w)]);
        assert!(matches!(refused, Err(OpError::InputShape { index: 1, .. })));
        let empty = random_f64(&[0, 4, 6, 5], 1);
        let y = run_threads(&op(1), &[Some(&empty), Some(&random_f64(&[0, 3], 2)), Some(&w)]).unwrap();
        assert_eq!(y[0].shape()[..2], [0, 8]);
    }
}
