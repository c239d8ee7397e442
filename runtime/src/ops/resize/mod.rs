//! Resampling: <https://onnx.ai/onnx/operators/onnx__Resize.html>.

mod taps;

use crate::{
    DType, Data, Dim, Element, Fact, OpError, Tensor, attribute_enum, attributes,
    attrs::Attrs,
    match_any,
    ops::{
        InferCx, Operator, RunCx,
        helpers::{normalize_axis, optional, required},
        planes::{accumulating, for_each_plane, output_shapes, shape_error},
        widened,
    },
    scalar::{Field, Scalar},
};
use taps::{AxisScale, Taps};

attribute_enum! {
    /// How a value between elements is found.
    pub enum ResizeMode {
        /// The nearest element.
        Nearest = "nearest",
        /// Linear interpolation along each axis.
        Linear = "linear",
        /// Cubic convolution along each axis.
        Cubic = "cubic",
    }
}

attribute_enum! {
    /// Which input coordinate an output coordinate x stands for; s is the scale, I and O the sizes of input and output
    /// (O before it is rounded down, where it follows from s).
    pub enum CoordinateMode {
        /// `(x + 0.5) / s - 0.5`
        HalfPixel = "half_pixel",
        /// The same, centred: `I/2 * (1 - floor(O)/O) + (x + 0.5) / s - 0.5`
        HalfPixelSymmetric = "half_pixel_symmetric",
        /// The same as half_pixel, but 0 if there is one output.
        PytorchHalfPixel = "pytorch_half_pixel",
        /// `x * (I - 1) / (O - 1)`, 0 if O is 1.
        AlignCorners = "align_corners",
        /// `x / s`
        Asymmetric = "asymmetric",
        /// `(x + 0.5) / s` (opsets 11 and 12 only)
        TfHalfPixelForNn = "tf_half_pixel_for_nn",
        /// `start * (I - 1) + x * (end - start) * (I - 1) / (O - 1)`, the middle of start and end if O is 1.
        TfCropAndResize = "tf_crop_and_resize",
    }
}

attribute_enum! {
    /// Which element is nearest.
    pub enum NearestMode {
        /// The closest, of two the lower.
        RoundPreferFloor = "round_prefer_floor",
        /// The closest, of two the higher.
        RoundPreferCeil = "round_prefer_ceil",
        /// The next lower one.
        Floor = "floor",
        /// The next higher one.
        Ceil = "ceil",
    }
}

attribute_enum! {
    /// What `sizes` mean for the ratio of the sides.
    pub enum AspectPolicy {
        /// Each axis gets its size.
        Stretch = "stretch",
        /// One scale, the largest with which no axis gets larger than its size.
        NotLarger = "not_larger",
        /// One scale, the smallest with which no axis gets smaller than its size.
        NotSmaller = "not_smaller",
    }
}

attributes! {
    /// Each output is a weighted sum of inputs around the coordinate that it stands for, elements beyond the border being
    /// those at the border. A sum of integers loses what is behind its point, as ONNX Runtime has it (ONNX does not say); with
    /// antialias it is rounded, halves to even.
    ///
    /// Operands: x of any rank; roi `[2n]` (starts, then ends, as parts of the size; for tf_crop_and_resize); scales `[n]` or
    /// sizes `[n]`, n being the number of `axes`. An operand without elements counts as left out. An axis of size I becomes
    /// `floor(I * scale)` (in f32) or the size itself.
    pub struct Resize {
        /// How a value between elements is found.
        pub mode: ResizeMode,
        /// Which input coordinate an output coordinate stands for.
        pub coordinate_transformation_mode: CoordinateMode,
        /// Which element is nearest, for mode nearest.
        pub nearest_mode: NearestMode,
        /// The parameter of the cubic kernel.
        pub cubic_coeff_a: f32,
        /// Whether elements beyond the border get no weight, the others making up for it.
        pub exclude_outside: bool,
        /// The value where tf_crop_and_resize looks beyond the border.
        pub extrapolation_value: f32,
        /// Whether the kernel is widened when the output is smaller.
        pub antialias: bool,
        /// The axes resized, negative ones counting from the back; empty for all.
        pub axes: Vec<i64>,
        /// What `sizes` mean for the ratio of the sides.
        pub keep_aspect_ratio_policy: AspectPolicy,
    }
}

impl Resize {
    /// Every axis by its nearest element: mode nearest, asymmetric, floor.
    #[must_use]
    pub fn nearest() -> Resize {
        Resize {
            mode: ResizeMode::Nearest,
            coordinate_transformation_mode: CoordinateMode::Asymmetric,
            nearest_mode: NearestMode::Floor,
            cubic_coeff_a: -0.75,
            exclude_outside: false,
            extrapolation_value: 0.0,
            antialias: false,
            axes: Vec::new(),
            keep_aspect_ratio_policy: AspectPolicy::Stretch,
        }
    }

    /// The element that each output along an axis is taken from, by a scale or, without, by both sizes; `None` where that takes
    /// more than one element or the region of interest.
    #[must_use]
    pub fn nearest_elements(&self, input: usize, output: usize, scale: Option<f64>) -> Option<Vec<usize>> {
        if self.mode != ResizeMode::Nearest || self.crops() || (input == 0 && output > 0) {
            return None;
        }
        let scale = match scale {
            Some(s) => AxisScale::given(input, output, s),
            None => AxisScale::of_sizes(input, output),
        };
        if scale.is_one() {
            return Some((0..output).collect());
        }
        Some(Taps::new(self, &scale, (0.0, 1.0)).nearest().collect())
    }

    /// Which of the operands' elements is about an axis of a tensor of this rank, if one is.
    #[must_use]
    pub fn place_of(&self, axis: usize, rank: usize) -> Option<usize> {
        self.resolved_axes(rank).ok()?.into_iter().position(|a| a == axis)
    }

    /// The axes counted from the front, in the order of the operands' elements.
    fn resolved_axes(&self, rank: usize) -> Result<Vec<usize>, OpError> {
        if self.axes.is_empty() {
            return Ok((0..rank).collect());
        }
        let axes: Vec<usize> =
            self.axes.iter().map(|&a| normalize_axis(a, rank, "axes")).collect::<Result<_, _>>()?;
        if (1..axes.len()).any(|i| axes[..i].contains(&axes[i])) {
            return Err(OpError::Attribute { name: "axes", problem: format!("{:?} names an axis twice", self.axes) });
        }
        Ok(axes)
    }
}

/// An operand that has elements, and its index.
fn given<'a>(inputs: &[Option<&'a Fact>], index: usize) -> Option<&'a Fact> {
    optional(inputs, index).filter(|f| f.element_count().as_fixed() != Some(0))
}

fn expect_count(fact: &Fact, n: usize, index: usize, name: &'static str) -> Result<(), OpError> {
    if fact.rank() == 1 && fact.shape[0].equals(&Dim::from(n)) != Some(false) {
        return Ok(());
    }
    Err(shape_error(fact, index, name, format!("[{n}] is needed")))
}

/// Requires finite positive scales.
fn check_scales(scales: &[f64]) -> Result<(), OpError> {
    match scales.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
        Some(s) => Err(OpError::InputValue { index: 2, name: "scales", problem: format!("{s} is not a scale") }),
        None => Ok(()),
    }
}

/// `floor(size * scale)`, the product in f32 as ONNX's shape inference has it; `None` if that is not an expression.
fn scaled(size: &Dim, scale: f64) -> Option<Dim> {
    if scale == 1.0 {
        return Some(size.clone());
    }
    if let Some(n) = size.as_fixed() {
        let product = (n as f32) * (scale as f32);
        return Some(Dim::from(product.floor() as i64));
    }
    // Scales of few bits, whose products with sizes are exact in f32 too.
    const DENOMINATOR: i64 = 64;
    let numerator = scale * DENOMINATOR as f64;
    (numerator.fract() == 0.0 && numerator < 4096.0)
        .then(|| (size * (numerator as i64)).floor_div(&Dim::from(DENOMINATOR)))
}

impl Operator for Resize {
    const NAMES: &'static [&'static str] = &["Resize"];

    fn name(&self) -> &'static str {
        "Resize"
    }

    fn to_attrs(&self) -> Attrs {
        Resize::to_attrs(self)
    }

    fn from_attrs(_: &str, attrs: &mut Attrs) -> Result<Self, OpError> {
        Resize::from_attrs(attrs)
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "X")?;
        let axes = self.resolved_axes(x.rank())?;
        let mut shape = x.shape.clone();
        if let Some(roi) = given(inputs, 1).filter(|_| self.crops()) {
            expect_count(roi, 2 * axes.len(), 1, "roi")?;
        } else if self.crops() {
            return Err(OpError::MissingInput { index: 1, name: "roi" });
        }
        match (given(inputs, 2), given(inputs, 3)) {
            (None, None) if axes.is_empty() => {}
            (None, None) => return Err(OpError::MissingInput { index: 2, name: "scales" }),
            (Some(scales), Some(_)) if scales.element_count().as_fixed().is_some() => {
                let problem = "scales and sizes are both given".into();
                return Err(OpError::InputValue { index: 3, name: "sizes", problem });
            }
            (Some(scales), None) => {
                expect_count(scales, axes.len(), 2, "scales")?;
                let known = scales.f64s().filter(|s| s.len() == axes.len());
                check_scales(known.as_deref().unwrap_or_default())?;
                for (i, &axis) in axes.iter().enumerate() {
                    let exact = known.as_ref().and_then(|s| scaled(&x.shape[axis], s[i]));
                    shape[axis] = exact.unwrap_or_else(|| cx.fresh());
                }
            }
            (_, Some(sizes)) => {
                expect_count(sizes, axes.len(), 3, "sizes")?;
                let known = sizes.dims().filter(|s| s.len() == axes.len());
                let fixed = known.as_ref().and_then(|s| s.iter().map(Dim::as_fixed).collect::<Option<Vec<_>>>());
                if let Some(s) = fixed.iter().flatten().find(|s| **s < 0) {
                    let problem = format!("{s} is not a size");
                    return Err(OpError::InputValue { index: 3, name: "sizes", problem });
                }
                let kept = self.kept_aspect(x, &axes, fixed.as_deref());
                for (i, &axis) in axes.iter().enumerate() {
                    shape[axis] = match (self.keep_aspect_ratio_policy, &kept, &known) {
                        (AspectPolicy::Stretch, _, Some(sizes)) => sizes[i].clone(),
                        (AspectPolicy::NotLarger | AspectPolicy::NotSmaller, Some((_, sizes)), _) => Dim::from(sizes[i]),
                        _ => cx.fresh(),
                    };
                }
            }
        }
        Ok(vec![Fact::new(x.dtype, shape)])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0, "X")?;
        let [roi, scales] = [1, 2].map(|i| optional(inputs, i).map(reals));
        let operands = [Some(x), roi.as_ref(), scales.as_ref(), optional(inputs, 3)];
        let shape = output_shapes(self, &operands)?.swap_remove(0);
        cx.count(&shape)?;
        let taps = self.taps(x, &shape, &operands)?;
        let outside = taps.iter().flatten().any(Taps::any_outside);
        if self.mode == ResizeMode::Nearest && !outside {
            return match_any!(x.data(), v => Ok(vec![Tensor::new(shape, gather(cx, v, x.shape(), &taps))?]));
        }
        if let Some(v) = x.to_i64s().filter(|_| x.dtype() != DType::Bool) {
            let wide = Tensor::new(x.shape(), v.into_iter().map(|v| v as f64).collect::<Vec<_>>())?;
            let y = Tensor::new(shape, weigh(cx, elements(&wide), x.shape(), &taps, self.extrapolation_value))?;
            return Ok(vec![saturated(&y, x.dtype(), if self.antialias { libm::rint } else { libm::trunc })?]);
        }
        widened(&[Some(x)], |x| {
            let x = required(x, 0, "X")?;
            accumulating!(x, "X", S, v => {
                Ok(vec![Tensor::new(shape, weigh::<S>(cx, v, x.shape(), &taps, self.extrapolation_value))?])
            })
        })
    }
}

impl Resize {
    fn crops(&self) -> bool {
        self.coordinate_transformation_mode == CoordinateMode::TfCropAndResize
    }

    /// The one scale of all axes and the sizes that follow, where an aspect ratio is kept.
    fn kept_aspect(&self, x: &Fact, axes: &[usize], sizes: Option<&[i64]>) -> Option<(f64, Vec<i64>)> {
        let input: Vec<f64> =
            axes.iter().map(|&a| Some(x.shape[a].as_fixed()? as f64)).collect::<Option<_>>()?;
        let scales = sizes?.iter().zip(&input).map(|(&s, &n)| s as f64 / n);
        let scale = match self.keep_aspect_ratio_policy {
            AspectPolicy::Stretch => return None,
            AspectPolicy::NotLarger => scales.fold(f64::INFINITY, f64::min),
            AspectPolicy::NotSmaller => scales.fold(0.0, f64::max),
        };
        Some((scale, input.iter().map(|n| libm::floor(scale * n + 0.5) as i64).collect()))
    }

    /// For each axis where its outputs come from; `None` if it stays as it is.
    fn taps(&self, x: &Tensor, shape: &[usize], operands: &[Option<&Tensor>]) -> Result<Vec<Option<Taps>>, OpError> {
        let axes = self.resolved_axes(x.rank())?;
        let given = |i| optional(operands, i).filter(|t| !t.is_empty());
        let floats = |i, name| match given(i) {
            Some(t) => t.to_f64s().map(Some).ok_or(OpError::InputType {
                index: i,
                name,
                dtype: t.dtype(),
                expected: "a floating-point type",
            }),
            None => Ok(None),
        };
        let (roi, scales) = (floats(1, "roi")?, floats(2, "scales")?);
        check_scales(scales.as_deref().unwrap_or_default())?;
        let sizes = given(3).and_then(Tensor::to_i64s);
        let kept = self.kept_aspect(&Fact::fixed(x.dtype(), x.shape()), &axes, sizes.as_deref());
        let mut taps: Vec<Option<Taps>> = (0..x.rank()).map(|_| None).collect();
        for (i, &axis) in axes.iter().enumerate() {
            let (input, output) = (x.shape()[axis], shape[axis]);
            let scale = match (&kept, sizes.is_none().then_some(&scales)) {
                (Some((scale, _)), _) => AxisScale::given(input, output, *scale),
                (None, Some(Some(scales))) => {
                    AxisScale::given(input, output, scales.get(i).copied().unwrap_or(1.0))
                }
                _ => AxisScale::of_sizes(input, output),
            };
            let roi = roi.as_ref().filter(|_| self.crops());
            let part = |j: usize| roi.and_then(|r| r.get(j)).copied();
            let crop = part(i).zip(part(axes.len() + i)).unwrap_or((0.0, 1.0));
            if input == output && scale.is_one() && crop == (0.0, 1.0) {
                continue;
            }
            if input == 0 && output > 0 {
                let fact = Fact::fixed(x.dtype(), x.shape());
                return Err(shape_error(&fact, 0, "X", format!("axis {axis} must have elements")));
            }
            taps[axis] = Some(Taps::new(self, &scale, crop));
        }
        Ok(taps)
    }
}

/// Scales and roi as numbers, also where field elements stand for them.
fn reals(t: &Tensor) -> Tensor {
    let Data::Field(v) = t.data() else { return t.clone() };
    let known: Option<Vec<f64>> = v.iter().map(|&f| dyadic(f)).collect();
    known.and_then(|v| Tensor::new(t.shape(), v).ok()).unwrap_or_else(|| t.clone())
}

/// The number of at most 24 bits and 40 binary places that this field element stands for.
fn dyadic(f: Field) -> Option<f64> {
    (0..40).find_map(|places| {
        let power = f64::from(1u32 << (places / 2)) * f64::from(1u32 << (places - places / 2));
        let whole = f.mul(Field::from_f64(power)).get();
        (whole < 1 << 24).then(|| whole as f64 / power)
    })
}

fn elements(t: &Tensor) -> &[f64] {
    t.as_slice().unwrap_or_default()
}

/// Made whole by `whole` and clipped to the range of an integer type.
fn saturated(t: &Tensor, dtype: DType, whole: fn(f64) -> f64) -> Result<Tensor, OpError> {
    let v = elements(t);
    macro_rules! cast {
        ($t:ty) => {
            <$t>::wrap(v.iter().map(|&x| whole(x) as $t).collect())
        };
    }
    let data = match dtype {
        DType::I8 => cast!(i8),
        DType::I16 => cast!(i16),
        DType::I32 => cast!(i32),
        DType::I64 => cast!(i64),
        DType::U8 => cast!(u8),
        DType::U16 => cast!(u16),
        DType::U32 => cast!(u32),
        _ => cast!(u64),
    };
    Ok(Tensor::from_data(t.shape(), data)?)
}

/// Runs `pass` over each axis that changes, the last first, with the sizes before it, of it and behind it.
fn by_axes<T: Clone>(
    x: &[T],
    shape: &[usize],
    taps: &[Option<Taps>],
    pass: impl Fn(&[T], usize, usize, &Taps) -> Vec<T>,
) -> Vec<T> {
    let mut shape = shape.to_vec();
    let mut done: Option<Vec<T>> = None;
    for (axis, taps) in taps.iter().enumerate().rev() {
        let Some(taps) = taps else { continue };
        let outer = shape[..axis].iter().product();
        let inner = shape[axis + 1..].iter().product();
        done = Some(pass(done.as_deref().unwrap_or(x), outer, inner, taps));
        shape[axis] = taps.outputs();
    }
    done.unwrap_or_else(|| x.to_vec())
}

/// Nearest elements of any type.
fn gather<T: Element>(cx: &RunCx<'_>, x: &[T], shape: &[usize], taps: &[Option<Taps>]) -> Vec<T> {
    by_axes(x, shape, taps, |x, outer, inner, taps| {
        let plane = taps.outputs() * inner;
        let mut y = vec![T::default(); outer * plane];
        for_each_plane(cx, &mut y, plane, plane, |i, y| {
            let x = &x[i * taps.inputs() * inner..][..taps.inputs() * inner];
            if inner == 1 {
                y.iter_mut().zip(taps.nearest()).for_each(|(y, s)| *y = x[s].clone());
            } else {
                for (y, s) in y.chunks_mut(inner).zip(taps.nearest()) {
                    y.clone_from_slice(&x[s * inner..][..inner]);
                }
            }
        });
        y
    })
}

/// Weighted sums, and `extrapolation` where a coordinate lies outside.
fn weigh<S: Scalar + Element>(
    cx: &RunCx<'_>,
    x: &[S],
    shape: &[usize],
    taps: &[Option<Taps>],
    extrapolation: f32,
) -> Vec<S> {
    let mut y = by_axes(x, shape, taps, |x, outer, inner, taps| {
        let plane = taps.outputs() * inner;
        let mut y = vec![S::ZERO; outer * plane];
        let weights: Vec<S> = taps.weights().iter().map(|&w| S::from_f64(w)).collect();
        for_each_plane(cx, &mut y, plane, plane * 4, |i, y| {
            let x = &x[i * taps.inputs() * inner..][..taps.inputs() * inner];
            if inner == 1 {
                for (o, y) in y.iter_mut().enumerate() {
                    let (sources, range) = taps.of(o);
                    *y = sources.iter().zip(&weights[range]).fold(S::ZERO, |sum, (&s, &w)| sum.add(w.mul(x[s])));
                }
            } else {
                for (o, y) in y.chunks_mut(inner).enumerate() {
                    let (sources, range) = taps.of(o);
                    for (&s, &w) in sources.iter().zip(&weights[range]) {
                        y.iter_mut().zip(&x[s * inner..][..inner]).for_each(|(y, &x)| *y = y.add(w.mul(x)));
                    }
                }
            }
        });
        y
    });
    let sizes: Vec<usize> =
        shape.iter().zip(taps).map(|(&n, t)| t.as_ref().map_or(n, Taps::outputs)).collect();
    for (axis, taps) in taps.iter().enumerate() {
        let Some(taps) = taps.as_ref().filter(|t| t.any_outside()) else { continue };
        let inner = sizes[axis + 1..].iter().product::<usize>().max(1);
        for (row, y) in y.chunks_mut(inner).enumerate() {
            if taps.is_outside(row % taps.outputs()) {
                y.fill(S::from_f64(extrapolation.into()));
            }
        }
    }
    y
}

#[cfg(test)]
mod tests;
