//! Transposed convolution: <https://onnx.ai/onnx/operators/onnx__ConvTranspose.html>.

use crate::{
    Data, Dim, Element, Fact, OpError, Tensor, attributes,
    attrs::Attrs,
    fact::Shape,
    kernels::{Gemm, TransposedConvolution},
    ops::{
        InferCx, Operator, RunCx,
        helpers::{elements, optional, required},
        widened,
    },
    scalar::{Field, Scalar},
    window::{AutoPad, Axis},
};

attributes! {
    /// `y[n,o,p] = b[o] + sum over c, t, q with s*q + d*t - pad_begin = p of w[c, o - g*O/group, t] * x[n,c,q]`, where `c` runs
    /// over the channels of the group `g` of `o`: the gradient of [`Conv`](crate::ops::Conv) with respect to its input.
    ///
    /// x `[N, C, D1..Dn]`, w `[C, O/group, K1..Kn]`, b `[O]` (optional), y `[N, O, ..]`; n is at least 1. Along each axis y has
    /// `s * (D - 1) + output_padding + d * (K - 1) + 1 - pad_begin - pad_end` elements, unless `output_shape` says how many.
    pub struct ConvTranspose {
        /// Distance of neighbouring inputs in the output, one per spatial axis, at least 1.
        pub strides: Vec<i64>,
        /// Outputs cut off before (first half) and after each spatial axis; negative ones add. Empty with `output_shape`.
        pub pads: Vec<i64>,
        /// Step between taps, one per spatial axis, at least 1.
        pub dilations: Vec<i64>,
        /// Number of groups.
        pub group: i64,
        /// Outputs added after each spatial axis, less than the stride or the dilation.
        pub output_padding: Vec<i64>,
        /// Spatial sizes of y, which decide the padding; empty if `pads` does. The importer prefers `pads`.
        pub output_shape: Vec<i64>,
        /// With `output_shape`, where an odd output is cut off: SAME_UPPER at the end, else at the beginning.
        pub auto_pad: AutoPad,
    }
}

impl ConvTranspose {
    /// Checks that all lists have one entry (pads: two) an axis and legal values.
    ///
    /// # Errors
    /// [`OpError::Attribute`].
    pub fn check(&self, kernel: &[i64]) -> Result<(), OpError> {
        let n = kernel.len();
        let list = |name: &'static str, v: &[i64], entries: usize, low: i64| {
            let problem = if v.len() != entries {
                format!("{v:?} has {} entries, {entries} are needed", v.len())
            } else if let Some(x) = v.iter().find(|x| !(low..=i64::from(i32::MAX)).contains(x)) {
                format!("{x} is not a number from {low} to 2^31 - 1")
            } else {
                return Ok(());
            };
            Err(OpError::Attribute { name, problem })
        };
        list("kernel_shape", kernel, n, 1)?;
        list("strides", &self.strides, n, 1)?;
        list("dilations", &self.dilations, n, 1)?;
        list("output_padding", &self.output_padding, n, 0)?;
        let stated = !self.output_shape.is_empty();
        list("output_shape", &self.output_shape, if stated { n } else { 0 }, 0)?;
        list("pads", &self.pads, if stated { 0 } else { 2 * n }, i64::from(i32::MIN))?;
        if !stated && self.auto_pad != AutoPad::NotSet {
            let problem = format!("{} is only of use with output_shape", self.auto_pad.text());
            return Err(OpError::Attribute { name: "auto_pad", problem });
        }
        match (0..n).find(|&a| self.output_padding[a] >= self.strides[a].max(self.dilations[a])) {
            Some(a) => {
                let problem = format!(
                    "{} along spatial axis {a} is less neither than the stride nor than the dilation",
                    self.output_padding[a]
                );
                Err(OpError::Attribute { name: "output_padding", problem })
            }
            None => Ok(()),
        }
    }

    /// Outputs along spatial axis `a` if nothing is cut off. Call [`ConvTranspose::check`] first.
    fn full(&self, a: usize, kernel: &[i64], input: &Dim) -> Dim {
        let fixed = self.output_padding[a] + self.dilations[a] * (kernel[a] - 1) + 1;
        &(&(input - 1) * self.strides[a]) + fixed
    }

    /// Number of outputs along each axis. Call [`ConvTranspose::check`] first.
    ///
    /// # Errors
    /// If an axis certainly yields fewer than 0 outputs, or `output_shape` is certainly out of reach.
    pub fn output(&self, kernel: &[i64], input: &[Dim]) -> Result<Vec<Dim>, OpError> {
        let n = kernel.len();
        (0..n)
            .map(|a| {
                let full = self.full(a, kernel, &input[a]);
                if let Some(&size) = self.output_shape.get(a) {
                    // The last input must still reach the last stride of outputs.
                    if full.as_fixed().is_some_and(|f| f + self.strides[a] <= size) {
                        let problem =
                            format!("{size} along spatial axis {a} is out of reach of {} inputs", input[a]);
                        return Err(OpError::Attribute { name: "output_shape", problem });
                    }
                    return Ok(Dim::from(size));
                }
                let (begin, end) = (self.pads[a], self.pads[n + a]);
                let size = &full - (begin + end);
                if size.as_fixed().is_some_and(|s| s < 0) {
                    return Err(OpError::InputShape {
                        index: 0,
                        name: "X",
                        shape: input[a].to_string(),
                        expected: format!("which leaves no output along spatial axis {a} when {begin} and {end} are cut off"),
                    });
                }
                Ok(size)
            })
            .collect()
    }

    /// Outputs cut off before and after each axis of an input of these sizes. Call [`ConvTranspose::check`] first.
    #[must_use]
    pub fn cut(&self, kernel: &[i64], input: &[usize]) -> Vec<(i64, i64)> {
        let n = kernel.len();
        let cut = |a: usize| match self.output_shape.get(a) {
            Some(&size) => {
                let full = self.full(a, kernel, &Dim::from(input[a])).as_fixed().unwrap_or(size);
                let (total, upper) = (full - size, self.auto_pad == AutoPad::SameUpper);
                let begin = if upper { total.max(0) / 2 } else { (total.max(0) + 1) / 2 };
                (begin, total - begin)
            }
            None => (self.pads[a], self.pads[n + a]),
        };
        (0..n).map(cut).collect()
    }

    /// The geometry along each axis, as that of the convolution whose gradient this is: from `y` to `x`.
    fn resolve(&self, kernel: &[i64], input: &[usize], output: &[usize]) -> Vec<Axis> {
        self.cut(kernel, input)
            .into_iter()
            .enumerate()
            .map(|(a, (pad_begin, pad_end))| Axis {
                input: output[a],
                output: input[a],
                kernel: kernel[a] as usize,
                stride: self.strides[a] as usize,
                dilation: self.dilations[a] as usize,
                pad_begin,
                pad_end,
            })
            .collect()
    }
}

impl Operator for ConvTranspose {
    const NAMES: &'static [&'static str] = &["ConvTranspose"];

    fn name(&self) -> &'static str {
        "ConvTranspose"
    }

    fn to_attrs(&self) -> Attrs {
        ConvTranspose::to_attrs(self)
    }

    fn from_attrs(_: &str, attrs: &mut Attrs) -> Result<Self, OpError> {
        ConvTranspose::from_attrs(attrs)
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
        let Some(kernel) = w.shape[2..].iter().map(Dim::as_fixed).collect::<Option<Vec<_>>>() else {
            return Err(OpError::Unsupported("a kernel of unknown spatial size".into()));
        };
        if self.group < 1 {
            return Err(OpError::Attribute { name: "group", problem: format!("{} is not positive", self.group) });
        }
        if w.shape[0].equals(&x.shape[1]) == Some(false) {
            return Err(shape_error(1, "W", w, format!("{} channels of X need as many rows", x.shape[1])));
        }
        if w.shape[0].as_fixed().is_some_and(|c| c % self.group != 0) {
            return Err(shape_error(1, "W", w, format!("input channels must divide into {} groups", self.group)));
        }
        let channels = &w.shape[1] * self.group;
        if let Some(b) = optional(inputs, 2)
            && (b.rank() != 1 || b.shape[0].equals(&channels) == Some(false))
        {
            return Err(shape_error(2, "B", b, format!("[{channels}] is needed")));
        }
        self.check(&kernel)?;
        let mut shape = vec![x.shape[0].clone(), channels];
        shape.extend(self.output(&kernel, &x.shape[2..])?);
        Ok(vec![Fact::new(x.dtype, shape)])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        widened(inputs, |inputs| {
            let (x, w, b) = (required(inputs, 0, "X")?, required(inputs, 1, "W")?, optional(inputs, 2));
            let facts = [Some(x), Some(w), b].map(|t| t.map(|t| Fact::fixed(t.dtype(), t.shape())));
            let out = self.infer(&facts.each_ref().map(Option::as_ref), &mut InferCx::new(&mut || Dim::from(0)))?;
            let Some(shape) = out.first().and_then(Fact::fixed_shape) else {
                return Err(OpError::TooLarge { shape: format!("of {out:?}"), limit: cx.max_elements });
            };
            let kernel: Vec<i64> = w.shape()[2..].iter().map(|&k| k as i64).collect();
            let axes = self.resolve(&kernel, &x.shape()[2..], &shape[2..]);
            let y = match x.data() {
                Data::F32(_) => fast::<f32>(self, x, w, b, &axes, shape, cx)?,
                Data::F64(_) => fast::<f64>(self, x, w, b, &axes, shape, cx)?,
                Data::Field(_) => direct::<Field>(self, x, w, b, &axes, shape, cx)?,
                _ => {
                    let expected = "a floating-point type";
                    return Err(OpError::InputType { index: 0, name: "X", dtype: x.dtype(), expected });
                }
            };
            Ok(vec![y])
        })
    }
}

fn fast<T: Gemm>(
    op: &ConvTranspose,
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    axes: &[Axis],
    shape: Vec<usize>,
    cx: &RunCx<'_>,
) -> Result<Tensor, OpError> {
    let groups = op.group as usize;
    let mut y = vec![T::ZERO; cx.count(&shape)?];
    TransposedConvolution {
        axes,
        batch: x.shape()[0],
        groups,
        in_channels: w.shape()[0] / groups,
        out_channels: w.shape()[1],
        x: elements(x, 0, "X")?,
        w: elements(w, 1, "W")?,
        bias: b.map(|b| elements(b, 2, "B")).transpose()?,
        y: &mut y,
    }
    .run(cx);
    Ok(Tensor::new(shape, y)?)
}

/// The formula itself, summed as [`TransposedConvolution`] sums.
fn direct<S: Scalar + Element>(
    op: &ConvTranspose,
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    axes: &[Axis],
    shape: Vec<usize>,
    cx: &RunCx<'_>,
) -> Result<Tensor, OpError> {
    let (xs, ws) = (elements::<S>(x, 0, "X")?, elements::<S>(w, 1, "W")?);
    let bs = b.map(|b| elements::<S>(b, 2, "B")).transpose()?;
    let mut y = vec![S::ZERO; cx.count(&shape)?];
    if y.is_empty() {
        return Ok(Tensor::new(shape, y)?);
    }
    let (channels, co, groups) = (w.shape()[0], w.shape()[1], op.group as usize);
    let (pixels, taps): (usize, usize) =
        (axes.iter().map(|a| a.input).product(), axes.iter().map(|a| a.kernel).product());
    let plane: usize = axes.iter().map(|a| a.output).product();
    let ci = channels / groups;
    for (out, v) in y.iter_mut().enumerate() {
        let (p, o, n) = (out % pixels, out / pixels % (co * groups), out / pixels / (co * groups));
        for t in 0..taps {
            let (mut rest_p, mut rest_t, mut offset, mut step, mut inside) = (p, t, 0, 1, true);
            for a in axes.iter().rev() {
                match target_of(a, rest_p % a.input, rest_t % a.kernel) {
                    Some(q) => offset += q * step,
                    None => inside = false,
                }
                (rest_p, rest_t, step) = (rest_p / a.input, rest_t / a.kernel, step * a.output);
            }
            if !inside {
                continue;
            }
            let mut sum = S::ZERO;
            for c in o / co * ci..(o / co + 1) * ci {
                let weight = ws[(c * co + o % co) * taps + t];
                sum = sum.add(weight.mul(xs[(n * channels + c) * plane + offset]));
            }
            *v = v.add(sum);
        }
        if let Some(b) = bs {
            *v = v.add(b[o]);
        }
    }
    Ok(Tensor::new(shape, y)?)
}

/// The position along `axis.output` whose tap `tap` is position `p` of `axis.input`.
fn target_of(axis: &Axis, p: usize, tap: usize) -> Option<usize> {
    let scaled = p as i64 + axis.pad_begin - (tap * axis.dilation) as i64;
    let scaled = usize::try_from(scaled).ok().filter(|s| s % axis.stride == 0)?;
    Some(scaled / axis.stride).filter(|&q| q < axis.output)
}
