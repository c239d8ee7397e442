//! Convolution: <https://onnx.ai/onnx/operators/onnx__Conv.html>.

use crate::{
    Data, Element, Fact, OpError, Tensor,
    attributes,
    attrs::Attrs,
    fact::Shape,
    kernels::{Convolution, Gemm},
    ops::{
        InferCx, Operator, RunCx,
        helpers::{elements, optional, required},
        widened,
    },
    scalar::{Field, Scalar},
    window::{AutoPad, Axis, Window},
};

attributes! {
    /// `y[n,o,p] = b[o] + sum over i, t of w[o,i,t] * x[n, g(o)*C/group + i, s*p - pad_begin + d*t]`, zeros beyond the border.
    ///
    /// x `[N, C, D1..Dn]`, w `[O, C/group, K1..Kn]`, b `[O]` (optional), y `[N, O, ..]`; n is at least 1.
    pub struct Conv {
        /// Step between outputs, one per spatial axis, at least 1.
        pub strides: Vec<i64>,
        /// Zeros before (first half) and after each spatial axis, negative ones crop; empty unless `auto_pad` is NOTSET.
        pub pads: Vec<i64>,
        /// Step between taps, one per spatial axis, at least 1.
        pub dilations: Vec<i64>,
        /// Number of groups.
        pub group: i64,
        /// Padding that depends on the input's size; the importer makes it explicit where the sizes allow.
        pub auto_pad: AutoPad,
    }
}

impl Conv {
    /// The window of a kernel with these spatial sizes.
    #[must_use]
    pub fn window<'a>(&'a self, kernel: &'a [i64]) -> Window<'a> {
        Window {
            kernel,
            strides: &self.strides,
            pads: &self.pads,
            dilations: &self.dilations,
            auto_pad: self.auto_pad,
            ceil_mode: false,
            may_be_empty: false,
        }
    }
}

impl Operator for Conv {
    const NAMES: &'static [&'static str] = &["Conv"];

    fn name(&self) -> &'static str {
        "Conv"
    }

    fn to_attrs(&self) -> Attrs {
        Conv::to_attrs(self)
    }

    fn from_attrs(_: &str, attrs: &mut Attrs) -> Result<Self, OpError> {
        Conv::from_attrs(attrs)
    }

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, w) = (required(inputs, 0, "X")?, required(inputs, 1, "W")?);
        let shape_error = |index, name, f: &Fact, expected: String| OpError::InputShape {
            index,
            name,
            shape: Shape(&f.shape).to_string(),
            expected,
        };
        if x.rank() < 3 {
            return Err(shape_error(0, "X", x, "at least 3 dimensions are needed".into()));
        }
        if w.rank() != x.rank() {
            return Err(shape_error(1, "W", w, format!("{} dimensions are needed", x.rank())));
        }
        let Some(kernel) = w.shape[2..].iter().map(crate::Dim::as_fixed).collect::<Option<Vec<_>>>() else {
            return Err(OpError::Unsupported("a kernel of unknown spatial size".into()));
        };
        if self.group < 1 {
            return Err(OpError::Attribute { name: "group", problem: format!("{} is not positive", self.group) });
        }
        let channels = &w.shape[1] * self.group;
        if channels.equals(&x.shape[1]) == Some(false) {
            return Err(shape_error(0, "X", x, format!("{channels} channels are needed by {} groups", self.group)));
        }
        if w.shape[0].as_fixed().is_some_and(|o| o % self.group != 0) {
            return Err(shape_error(1, "W", w, format!("output channels must divide into {} groups", self.group)));
        }
        if let Some(b) = optional(inputs, 2)
            && (b.rank() != 1 || b.shape[0].equals(&w.shape[0]) == Some(false))
        {
            return Err(shape_error(2, "B", b, format!("[{}] is needed", w.shape[0])));
        }
        let window = self.window(&kernel);
        window.check()?;
        let mut shape = vec![x.shape[0].clone(), w.shape[0].clone()];
        shape.extend(window.output(&x.shape[2..])?);
        Ok(vec![Fact::new(x.dtype, shape)])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        widened(inputs, |inputs| {
            let (x, w, b) = (required(inputs, 0, "X")?, required(inputs, 1, "W")?, optional(inputs, 2));
            let facts = [Some(Fact::fixed(x.dtype(), x.shape())), Some(Fact::fixed(w.dtype(), w.shape())), b.map(|b| Fact::fixed(b.dtype(), b.shape()))];
            let facts: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
            let out = self.infer(&facts, &mut InferCx::new(&mut || crate::Dim::from(0)))?;
            let shape = out[0].fixed_shape().unwrap_or_default();
            cx.count(&shape)?;
            let kernel: Vec<i64> = w.shape()[2..].iter().map(|&k| k as i64).collect();
            let axes = self.window(&kernel).resolve(&x.shape()[2..])?;
            let y = match x.data() {
                Data::F32(_) => fast::<f32>(self, x, w, b, &axes, shape, cx)?,
                Data::F64(_) => fast::<f64>(self, x, w, b, &axes, shape, cx)?,
                Data::Field(_) => direct::<Field>(self, x, w, b, &axes, shape)?,
                _ => return Err(OpError::InputType { index: 0, name: "X", dtype: x.dtype(), expected: "a floating-point type" }),
            };
            Ok(vec![y])
        })
    }
}

fn fast<T: Gemm>(op: &Conv, x: &Tensor, w: &Tensor, b: Option<&Tensor>, axes: &[Axis], shape: Vec<usize>, cx: &RunCx<'_>) -> Result<Tensor, OpError> {
    let groups = op.group as usize;
    let mut y = vec![T::ZERO; cx.count(&shape)?];
    Convolution {
        axes,
        batch: x.shape()[0],
        groups,
        in_channels: w.shape()[1],
        out_channels: w.shape()[0] / groups,
        x: elements(x, 0, "X")?,
        w: elements(w, 1, "W")?,
        bias: b.map(|b| elements(b, 2, "B")).transpose()?,
        y: &mut y,
    }
    .run(cx);
    Ok(Tensor::new(shape, y)?)
}

/// The formula itself, summed as [`Convolution`] sums.
fn direct<S: Scalar + Element>(op: &Conv, x: &Tensor, w: &Tensor, b: Option<&Tensor>, axes: &[Axis], shape: Vec<usize>) -> Result<Tensor, OpError> {
    let (xs, ws) = (elements::<S>(x, 0, "X")?, elements::<S>(w, 1, "W")?);
    let bs = b.map(|b| elements::<S>(b, 2, "B")).transpose()?;
    let (o, ci) = (w.shape()[0], w.shape()[1]);
    let (taps, pixels): (usize, usize) = (axes.iter().map(|a| a.kernel).product(), axes.iter().map(|a| a.output).product());
    let plane: usize = axes.iter().map(|a| a.input).product();
    let per_group = o / op.group as usize;
    let mut y = vec![S::ZERO; shape.iter().product()];
    for (out, v) in y.iter_mut().enumerate() {
        let (p, oc, n) = (out % pixels, out / pixels % o, out / pixels / o);
        let mut acc = S::ZERO;
        for i in 0..ci {
            let c = oc / per_group * ci + i;
            for t in 0..taps {
                let (mut rest_p, mut rest_t, mut offset, mut step, mut inside) = (p, t, 0, 1, true);
                for a in axes.iter().rev() {
                    match a.source(rest_p % a.output, rest_t % a.kernel) {
                        Some(s) => offset += s * step,
                        None => inside = false,
                    }
                    (rest_p, rest_t, step) = (rest_p / a.output, rest_t / a.kernel, step * a.input);
                }
                if inside {
                    acc = acc.add(ws[(oc * ci + i) * taps + t].mul(xs[(n * x.shape()[1] + c) * plane + offset]));
                }
            }
        }
        if let Some(b) = bs {
            acc = acc.add(b[oc]);
        }
        *v = acc;
    }
    Ok(Tensor::new(shape, y)?)
}
