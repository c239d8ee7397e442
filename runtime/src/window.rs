//! Sliding windows: the one place for the geometry of convolution and pooling.

use crate::{Dim, OpError, attribute_enum};

attribute_enum! {
    /// How the border is padded.
    pub enum AutoPad {
        /// As `pads` says.
        NotSet = "NOTSET",
        /// So that there are `ceil(size / stride)` outputs, an odd zero at the end. `pads` is empty.
        SameUpper = "SAME_UPPER",
        /// The same, an odd zero at the beginning. `pads` is empty.
        SameLower = "SAME_LOWER",
    }
}

/// A window over n spatial axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Window<'a> {
    /// Taps along each axis.
    pub kernel: &'a [i64],
    /// Step between outputs.
    pub strides: &'a [i64],
    /// Padding before (first half) and after (second half) each axis; empty unless [`AutoPad::NotSet`].
    pub pads: &'a [i64],
    /// Step between taps.
    pub dilations: &'a [i64],
    /// How the border is padded.
    pub auto_pad: AutoPad,
    /// Whether a last window that begins inside the padded input but does not fit counts.
    pub ceil_mode: bool,
    /// Whether an input that is smaller than the window may have an empty map, as it has for the pools of ONNX Runtime. A
    /// convolution refuses such an input.
    pub may_be_empty: bool,
}

/// A window along one axis of known size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// Size of the input.
    pub input: usize,
    /// Number of outputs.
    pub output: usize,
    /// Taps.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
    /// Step between taps.
    pub dilation: usize,
    /// Padding before the first element; negative crops.
    pub pad_begin: i64,
    /// Padding behind the last element; negative crops.
    pub pad_end: i64,
}

impl Axis {
    /// The input position that tap `tap` of output `out` reads, `None` beyond the border.
    #[inline]
    #[must_use]
    pub fn source(&self, out: usize, tap: usize) -> Option<usize> {
        let p = (out * self.stride + tap * self.dilation) as i64 - self.pad_begin;
        usize::try_from(p).ok().filter(|&p| p < self.input)
    }

    /// The outputs whose tap `tap` lies inside the input; [`Axis::source`] of the first one grows by the stride from there.
    #[must_use]
    pub fn inside(&self, tap: usize) -> std::ops::Range<usize> {
        let (stride, shift) = (self.stride as i64, self.pad_begin - (tap * self.dilation) as i64);
        let first = |position: i64| (position + stride - 1).div_euclid(stride).clamp(0, self.output as i64) as usize;
        let (begin, end) = (first(shift), first(shift + self.input as i64));
        begin..end.max(begin)
    }

    /// Number of taps of output `out` that lie inside the input or, if `padding` says so, in its declared padding.
    #[must_use]
    pub fn count(&self, out: usize, padding: bool) -> usize {
        let limit = self.input as i64 + if padding { self.pad_end } else { 0 };
        let start = (out * self.stride) as i64 - self.pad_begin;
        let below = |position: i64| {
            let steps = (position - start + self.dilation as i64 - 1).div_euclid(self.dilation as i64);
            steps.clamp(0, self.kernel as i64)
        };
        let skipped = if padding { 0 } else { below(0) };
        (below(limit) - skipped).max(0) as usize
    }
}

impl Window<'_> {
    /// Number of spatial axes.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.kernel.len()
    }

    /// Checks that all lists have one entry (pads: two) an axis and legal values.
    ///
    /// # Errors
    /// [`OpError::Attribute`].
    pub fn check(&self) -> Result<(), OpError> {
        let n = self.rank();
        let positive = |name: &'static str, v: &[i64]| {
            if v.len() != n {
                return Err(OpError::Attribute {
                    name,
                    problem: format!("{v:?} has {} entries for {n} spatial axes", v.len()),
                });
            }
            match v.iter().find(|&&x| !(1..=i64::from(i32::MAX)).contains(&x)) {
                Some(x) => Err(OpError::Attribute { name, problem: format!("{x} is not a positive 32-bit number") }),
                None => Ok(()),
            }
        };
        positive("kernel_shape", self.kernel)?;
        positive("strides", self.strides)?;
        positive("dilations", self.dilations)?;
        let expected = if self.auto_pad == AutoPad::NotSet { 2 * n } else { 0 };
        if self.pads.len() != expected {
            return Err(OpError::Attribute {
                name: "pads",
                problem: format!(
                    "{:?} has {} entries, {expected} are needed for {n} spatial axes",
                    self.pads,
                    self.pads.len()
                ),
            });
        }
        match self.pads.iter().find(|p| i32::try_from(**p).is_err()) {
            Some(p) => Err(OpError::Attribute { name: "pads", problem: format!("{p} is not a 32-bit number") }),
            None => Ok(()),
        }
    }

    /// Extent of the dilated kernel along `axis`.
    fn extent(&self, axis: usize) -> i64 {
        self.dilations[axis] * (self.kernel[axis] - 1) + 1
    }

    /// Whether a pool of an input along `axis` that is smaller than its window, by `-room`, has the number of outputs that the
    /// formula gives. Where the stride does not divide `room`, ONNX's formula gives 0 outputs and ONNX Runtime makes 1.
    fn pools_less(&self, axis: usize, input: &Dim, room: i64) -> bool {
        let stride = self.strides[axis];
        let agreed = if self.ceil_mode { room > -2 * stride } else { room == -stride };
        self.may_be_empty && agreed && input.as_fixed().is_some_and(|n| n > 0)
    }

    /// Number of outputs along each axis of an input of these sizes. Call [`Window::check`] first.
    ///
    /// # Errors
    /// [`OpError::InputShape`] if an axis has another rank, or is certainly smaller than the window where no empty map is allowed.
    pub fn output(&self, input: &[Dim]) -> Result<Vec<Dim>, OpError> {
        self.check_rank(input.len())?;
        (0..self.rank())
            .map(|a| {
                let stride = Dim::from(self.strides[a]);
                if self.auto_pad != AutoPad::NotSet {
                    return Ok(input[a].ceil_div(&stride));
                }
                let (begin, end) = (self.pads[a], self.pads[self.rank() + a]);
                let room = &input[a] + (begin + end - self.extent(a));
                if room.as_fixed().is_some_and(|r| r < 0 && !self.pools_less(a, &input[a], r)) {
                    return Err(OpError::InputShape {
                        index: 0,
                        name: "X",
                        shape: input[a].to_string(),
                        expected: format!(
                            "which with padding {begin} and {end} is smaller than the window of {} along spatial axis {a}",
                            self.extent(a)
                        ),
                    });
                }
                if !self.ceil_mode {
                    return Ok(room.floor_div(&stride) + 1);
                }
                // A last window must begin inside the input or its leading padding (as in PyTorch and ONNX Runtime).
                let full = room.ceil_div(&stride) + 1;
                let inside = (&input[a] + (begin - 1)).floor_div(&stride) + 1;
                Ok(full.minimum(&inside))
            })
            .collect()
    }

    /// The window along each axis of an input of known sizes. Call [`Window::check`] first.
    ///
    /// # Errors
    /// As [`Window::output`].
    pub fn resolve(&self, input: &[usize]) -> Result<Vec<Axis>, OpError> {
        let dims: Vec<Dim> = input.iter().map(|&n| Dim::from(n)).collect();
        let outputs = self.output(&dims)?;
        (0..self.rank())
            .map(|a| {
                let output = outputs[a].as_fixed().and_then(|o| usize::try_from(o).ok()).unwrap_or(0);
                let (pad_begin, pad_end) = match self.auto_pad {
                    AutoPad::NotSet => (self.pads[a], self.pads[self.rank() + a]),
                    auto => {
                        let needed = (output as i64 - 1) * self.strides[a] + self.extent(a) - input[a] as i64;
                        let (total, odd_first) = (needed.max(0), auto == AutoPad::SameLower);
                        let begin = if odd_first { (total + 1) / 2 } else { total / 2 };
                        (begin, total - begin)
                    }
                };
                Ok(Axis {
                    input: input[a],
                    output,
                    kernel: self.kernel[a] as usize,
                    stride: self.strides[a] as usize,
                    dilation: self.dilations[a] as usize,
                    pad_begin,
                    pad_end,
                })
            })
            .collect()
    }

    fn check_rank(&self, spatial: usize) -> Result<(), OpError> {
        if spatial == self.rank() {
            return Ok(());
        }
        Err(OpError::InputShape {
            index: 0,
            name: "X",
            shape: format!("with {spatial} spatial axes"),
            expected: format!("{} are needed by the kernel {:?}", self.rank(), self.kernel),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_forms_agree_with_counting() {
        for input in 0..7 {
            for (kernel, stride, dilation, begin, end) in [
                (1, 1, 1, 0, 0),
                (3, 2, 1, 1, 1),
                (3, 1, 2, 2, 0),
                (2, 3, 1, 0, 3),
                (5, 2, 2, 4, 1),
                (2, 2, 1, 0, -1),
                (3, 1, 1, -2, 1),
            ] {
                let output = 5;
                let axis = Axis { input, output, kernel, stride, dilation, pad_begin: begin, pad_end: end };
                for tap in 0..kernel {
                    let expected: Vec<usize> = (0..output).filter(|&o| axis.source(o, tap).is_some()).collect();
                    assert_eq!(axis.inside(tap).collect::<Vec<_>>(), expected, "{axis:?} tap {tap}");
                }
                for out in 0..output {
                    let position = |tap: usize| (out * stride + tap * dilation) as i64 - begin;
                    let expected = (0..kernel).filter(|&t| axis.source(out, t).is_some()).count();
                    assert_eq!(axis.count(out, false), expected, "{axis:?} out {out}");
                    let expected = (0..kernel).filter(|&t| position(t) < input as i64 + end).count();
                    assert_eq!(axis.count(out, true), expected, "{axis:?} out {out} with padding");
                }
            }
        }
    }

    #[test]
    fn a_last_window_that_would_begin_behind_the_input_does_not_count() {
        let window = |kernel: &'static [i64], strides: &'static [i64], pads: &'static [i64]| Window {
            kernel,
            strides,
            pads,
            dilations: &[1],
            auto_pad: AutoPad::NotSet,
            ceil_mode: true,
            may_be_empty: true,
        };
        let sizes = |w: Window<'_>, n: i64| w.output(&[Dim::from(n)]).unwrap()[0].clone();
        assert_eq!(sizes(window(&[3], &[2], &[0, 0]), 4), Dim::from(2));
        assert_eq!(sizes(window(&[1], &[2], &[0, 0]), 2), Dim::from(1));
        assert_eq!(sizes(window(&[3], &[3], &[1, 1]), 5), Dim::from(2));
    }

    /// The sizes are those of ONNX Runtime 1.23, `None` where it fails or makes another number of outputs than ONNX's formula.
    #[test]
    fn a_map_smaller_than_its_window_is_empty_for_pools() {
        for (n, stride, end, ceil_mode, expected) in [
            (2, 1, 0, false, Some(0)),
            (2, 1, 0, true, Some(0)),
            (1, 1, 0, false, None),
            (1, 1, 0, true, None),
            (1, 2, 0, false, Some(0)),
            (1, 2, 0, true, Some(0)),
            (2, 2, 0, false, None),
            (2, 2, 0, true, Some(1)),
            (1, 1, 1, false, Some(0)),
            (1, 3, 0, false, None),
            (1, 3, 0, true, Some(1)),
            (0, 3, 0, false, None),
            (0, 3, 0, true, None),
        ] {
            let (strides, pads) = ([stride], [0, end]);
            let mut window = Window {
                kernel: &[3],
                strides: &strides,
                pads: &pads,
                dilations: &[1],
                auto_pad: AutoPad::NotSet,
                ceil_mode,
                may_be_empty: true,
            };
            let size = |w: &Window<'_>| w.output(&[Dim::from(n)]).ok().and_then(|d| d[0].as_fixed());
            assert_eq!(size(&window), expected, "size {n}, stride {stride}, padding {end}, ceil_mode {ceil_mode}");
            window.may_be_empty = false;
            assert_eq!(size(&window), None);
        }
    }
}
