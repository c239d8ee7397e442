//! Where the outputs along one axis come from.

use super::{CoordinateMode, NearestMode, Resize, ResizeMode};

/// How one axis is scaled.
#[derive(Debug, Clone, Copy)]
pub(super) struct AxisScale {
    input: usize,
    output: usize,
    /// The scale is `numerator / denominator`, kept apart so that coordinates are rounded once.
    numerator: f64,
    denominator: f64,
}

impl AxisScale {
    /// By a scale from which the size was derived.
    pub(super) fn given(input: usize, output: usize, scale: f64) -> AxisScale {
        AxisScale { input, output, numerator: scale, denominator: 1.0 }
    }

    /// By both sizes.
    pub(super) fn of_sizes(input: usize, output: usize) -> AxisScale {
        AxisScale { input, output, numerator: output as f64, denominator: input as f64 }
    }

    pub(super) fn is_one(&self) -> bool {
        self.numerator == self.denominator
    }

    fn scale(&self) -> f64 {
        self.numerator / self.denominator
    }

    /// The output's size before it is rounded down.
    fn width(&self) -> f64 {
        if self.denominator == 1.0 { self.numerator * self.input as f64 } else { self.output as f64 }
    }

    /// The input coordinate of output `x`.
    fn source(&self, x: f64, mode: CoordinateMode, (start, end): (f64, f64)) -> f64 {
        let last = self.input as f64 - 1.0;
        let width = self.width();
        let half_pixel = || (x + 0.5) * self.denominator / self.numerator - 0.5;
        match mode {
            CoordinateMode::HalfPixel => half_pixel(),
            CoordinateMode::HalfPixelSymmetric => {
                self.input as f64 / 2.0 * (1.0 - self.output as f64 / width) + half_pixel()
            }
            CoordinateMode::PytorchHalfPixel if self.output <= 1 => 0.0,
            CoordinateMode::PytorchHalfPixel => half_pixel(),
            CoordinateMode::AlignCorners if width <= 1.0 => 0.0,
            CoordinateMode::AlignCorners => x * last / (width - 1.0),
            CoordinateMode::Asymmetric => x * self.denominator / self.numerator,
            CoordinateMode::TfHalfPixelForNn => (x + 0.5) * self.denominator / self.numerator,
            CoordinateMode::TfCropAndResize if width <= 1.0 => (start + end) * last / 2.0,
            CoordinateMode::TfCropAndResize => start * last + x * (end - start) * last / (width - 1.0),
        }
    }
}

/// The inputs and weights of every output along one axis.
#[derive(Debug)]
pub(super) struct Taps {
    inputs: usize,
    /// Where the taps of each output begin; one more entry for the end.
    starts: Vec<usize>,
    sources: Vec<usize>,
    weights: Vec<f64>,
    outside: Vec<bool>,
}

impl Taps {
    pub(super) fn new(op: &Resize, scale: &AxisScale, crop: (f64, f64)) -> Taps {
        let mut taps = Taps {
            inputs: scale.input,
            starts: vec![0],
            sources: Vec::new(),
            weights: Vec::new(),
            outside: Vec::with_capacity(scale.output),
        };
        let last = scale.input as i64 - 1;
        let mut raw: Vec<(i64, f64)> = Vec::new();
        for o in 0..scale.output {
            let x = scale.source(o as f64, op.coordinate_transformation_mode, crop);
            taps.outside.push(
                op.coordinate_transformation_mode == CoordinateMode::TfCropAndResize && !(x >= 0.0 && x <= last as f64),
            );
            raw.clear();
            // Far beyond the border all is the same; this also keeps coordinates in the range of i64.
            kernel(op, x.clamp(-1e9, 1e15), scale.scale().min(1.0), &mut raw);
            if op.exclude_outside && op.mode != ResizeMode::Nearest {
                raw.retain(|(s, _)| (0..=last).contains(s));
                let sum: f64 = raw.iter().map(|r| r.1).sum();
                raw.iter_mut().for_each(|r| r.1 /= if sum == 0.0 { 1.0 } else { sum });
            }
            let begin = taps.sources.len();
            for &(s, w) in &raw {
                let s = s.clamp(0, last) as usize;
                if taps.sources.len() > begin && taps.sources.last() == Some(&s) {
                    if let Some(sum) = taps.weights.last_mut() {
                        *sum += w;
                    }
                } else if w != 0.0 {
                    taps.sources.push(s);
                    taps.weights.push(w);
                }
            }
            taps.starts.push(taps.sources.len());
        }
        taps
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(super) fn outputs(&self) -> usize {
        self.outside.len()
    }

    /// The inputs of output `o`, and the range of their weights.
    pub(super) fn of(&self, o: usize) -> (&[usize], std::ops::Range<usize>) {
        let range = self.starts[o]..self.starts[o + 1];
        (&self.sources[range.clone()], range)
    }

    /// All weights.
    pub(super) fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// The one input of each output, for mode nearest.
    pub(super) fn nearest(&self) -> impl Iterator<Item = usize> + '_ {
        self.sources.iter().copied()
    }

    pub(super) fn any_outside(&self) -> bool {
        self.outside.contains(&true)
    }

    pub(super) fn is_outside(&self, o: usize) -> bool {
        self.outside[o]
    }
}

/// Positions (which may lie beyond the border) and weights for the coordinate `x`; `scale` is at most 1.
fn kernel(op: &Resize, x: f64, scale: f64, out: &mut Vec<(i64, f64)>) {
    // The element at or below x, but strictly below it where x is whole, so that `ratio` lies in (0, 1].
    let base = libm::ceil(x) - 1.0;
    let ratio = x - base;
    let a = f64::from(op.cubic_coeff_a);
    let at = |i: i64| base as i64 + i;
    match (op.mode, op.antialias) {
        (ResizeMode::Nearest, _) => {
            let up = match op.nearest_mode {
                NearestMode::RoundPreferFloor => ratio > 0.5,
                NearestMode::RoundPreferCeil => ratio >= 0.5,
                NearestMode::Floor => ratio == 1.0,
                NearestMode::Ceil => true,
            };
            out.push((at(up.into()), 1.0));
        }
        (ResizeMode::Linear, false) => out.extend([(at(0), 1.0 - ratio), (at(1), ratio)]),
        (ResizeMode::Cubic, false) => out.extend((-1..3).map(|i| (at(i), cubic(i as f64 - ratio, a)))),
        (mode, true) => {
            let radius = if mode == ResizeMode::Linear { 1.0 } else { 2.0 };
            let start = libm::floor(-radius / scale) as i64 + 1;
            let weight = |i: i64| {
                let distance = scale * (i as f64 - ratio);
                if mode == ResizeMode::Linear { (1.0 - distance.abs()).max(0.0) } else { cubic(distance, a) }
            };
            let sum: f64 = (start..2 - start).map(weight).sum();
            out.extend((start..2 - start).map(|i| (at(i), weight(i) / sum)));
        }
    }
}

/// The cubic convolution kernel with parameter `a`.
fn cubic(distance: f64, a: f64) -> f64 {
    let x = distance.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}
