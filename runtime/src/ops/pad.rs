//! Padding: <https://onnx.ai/onnx/operators/onnx__Pad.html>.

use crate::{
    Dim, Element, Fact, OpError, Tensor, attribute_enum, attributes,
    match_any,
    ops::{
        InferCx, Operator, RunCx,
        copy::{Layout, copy, strides},
        helpers::{elements, expect_dtype, optional, required},
        known::{axes_of, dims, ints, list_length, propagate, shape_error, sizes, value_error},
        
    },
};

attribute_enum! {
    /// What stands beyond the border.
    pub enum PadMode {
        /// One value.
        Constant = "constant",
        /// The tensor mirrored at its first and last element, which are not repeated.
        Reflect = "reflect",
        /// The nearest element.
        Edge = "edge",
        /// The tensor over again.
        Wrap = "wrap",
    }
}

attributes! {
    /// `data` with `pads[i]` elements before and `pads[n + i]` behind it along `axes[i]`; negative ones crop, before the others
    /// pad. `pads` and `axes` (all axes if left out) are lists of integers, `constant_value` (0 if left out) is a scalar.
    pub struct Pad {
        /// What stands beyond the border.
        pub mode: PadMode,
    }
}

/// Padding before and behind each axis of a tensor of this rank.
fn per_axis<T: Clone>(pads: &[T], axes: Option<&[i64]>, rank: usize, zero: &T) -> Result<Vec<(T, T)>, OpError> {
    let axes = match axes {
        Some(a) => axes_of(a, rank, 3, "axes")?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(value_error(1, "pads", format!("{} entries for {} axes", pads.len(), axes.len())));
    }
    let mut out = vec![(zero.clone(), zero.clone()); rank];
    for (i, &a) in axes.iter().enumerate() {
        out[a] = (pads[i].clone(), pads[axes.len() + i].clone());
    }
    Ok(out)
}

impl Pad {
    fn shape(&self, x: &[Dim], pads: &[(Dim, Dim)]) -> Result<Vec<Dim>, OpError> {
        x.iter()
            .zip(pads)
            .map(|(d, (begin, end))| {
                let out = d + begin + end;
                let cropped = |p: &Dim| p.minimum(&Dim::from(0));
                let left = d + cropped(begin) + cropped(end);
                let grows = |p: &Dim| p.at_least(1) == Some(true);
                if left.at_least(0) == Some(false) {
                    return Err(value_error(1, "pads", format!("{begin} and {end} crop more than the size {d}")));
                }
                if self.mode != PadMode::Constant && left.as_fixed() == Some(0) && (grows(begin) || grows(end)) {
                    return Err(value_error(1, "pads", format!("{} of an axis without elements", self.mode.text())));
                }
                Ok(out)
            })
            .collect()
    }
}

impl Operator for Pad {
    single!(Pad, "Pad");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, pads) = (required(inputs, 0, "data")?, required(inputs, 1, "pads")?);
        let length = list_length(pads, 1, "pads")?;
        if let Some(v) = optional(inputs, 2) {
            expect_dtype(v, 2, "constant_value", "the type of data", |d| d == x.dtype)?;
            if v.element_count().equals(&Dim::from(1)) == Some(false) {
                return Err(shape_error(2, "constant_value", &v.shape, "a scalar is needed"));
            }
        }
        let axes = match optional(inputs, 3) {
            None => Some((0..x.rank() as i64).collect()),
            Some(f) => {
                list_length(f, 3, "axes")?;
                f.i64s()
            }
        };
        let zero = Dim::from(0);
        let shape = match (axes, pads.dims()) {
            (None, _) => x.shape.iter().map(|_| cx.fresh()).collect(),
            (Some(axes), Some(p)) => self.shape(&x.shape, &per_axis(&p, Some(&axes), x.rank(), &zero)?)?,
            (Some(axes), None) => {
                let padded = per_axis(&vec![true; length], Some(&axes), x.rank(), &false)?;
                x.shape.iter().zip(padded).map(|(d, (p, _))| if p { cx.fresh() } else { d.clone() }).collect()
            }
        };
        Ok(propagate(self, inputs, |i| i == 0 || i == 2, vec![Fact::new(x.dtype, shape)]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0, "data")?;
        let pads = ints(required(inputs, 1, "pads")?, 1, "pads")?;
        let axes = optional(inputs, 3).map(|a| ints(a, 3, "axes")).transpose()?;
        let pads = per_axis(&pads, axes.as_deref(), x.rank(), &0)?;
        let as_dims: Vec<(Dim, Dim)> = pads.iter().map(|&(a, b)| (Dim::from(a), Dim::from(b))).collect();
        let shape = sizes(&self.shape(&dims(x.shape()), &as_dims)?, cx)?;
        if pads.iter().all(|p| *p == (0, 0)) {
            return Ok(vec![x.clone()]);
        }
        let spans: Vec<Span> = pads
            .iter()
            .zip(x.shape())
            .map(|(&(begin, end), &n)| {
                let first = begin.min(0).unsigned_abs() as usize;
                Span { begin: begin.max(0) as usize, first, n: n - first - end.min(0).unsigned_abs() as usize }
            })
            .collect();
        match_any!(x.data(), v => Ok(vec![padded(self.mode, x, v, optional(inputs, 2), &spans, shape)?]))
    }
}

/// What is kept of one axis: `n` elements from `first` on, which come to lie at `begin`.
struct Span {
    begin: usize,
    first: usize,
    n: usize,
}

impl Span {
    /// The element that stands at position `i` of the result; there are some.
    fn source(&self, mode: PadMode, i: usize) -> usize {
        let (p, n) = (i as i64 - self.begin as i64, self.n as i64);
        let at = match mode {
            PadMode::Constant | PadMode::Edge => p.clamp(0, n - 1),
            PadMode::Wrap => p.rem_euclid(n),
            PadMode::Reflect if n == 1 => 0,
            PadMode::Reflect => {
                let q = p.rem_euclid(2 * (n - 1));
                q.min(2 * (n - 1) - q)
            }
        };
        self.first + at as usize
    }
}

fn padded<T: Element>(
    mode: PadMode,
    x: &Tensor,
    v: &[T],
    value: Option<&Tensor>,
    spans: &[Span],
    shape: Vec<usize>,
) -> Result<Tensor, OpError> {
    let (from, to) = (strides(x.shape()), strides(&shape));
    let value = match value.map(|t| elements::<T>(t, 2, "constant_value")).transpose()? {
        None => T::default(),
        Some([one]) => one.clone(),
        Some(v) => return Err(value_error(2, "constant_value", format!("{} elements", v.len()))),
    };
    let mut out = vec![value; shape.iter().product()];
    if out.is_empty() {
        return Ok(Tensor::new(shape, out)?);
    }
    let kept: Vec<usize> = spans.iter().map(|s| s.n).collect();
    let offset = |place: &dyn Fn(&Span) -> usize, strides: &[isize]| -> usize {
        spans.iter().zip(strides).map(|(s, &step)| place(s) * step as usize).sum()
    };
    let source = Layout { offset: offset(&|s| s.first, &from), strides: &from };
    let target = Layout { offset: offset(&|s| s.begin, &to), strides: &to };
    copy(&mut out, target, v, source, &kept);
    if mode == PadMode::Constant {
        return Ok(Tensor::new(shape, out)?);
    }
    // Axis by axis from the last: the slabs beyond the border repeat slabs that are complete up to this axis.
    for axis in (0..shape.len()).rev() {
        let span = &spans[axis];
        let inner = to[axis] as usize;
        let outer_kept: Vec<usize> = kept[..axis].to_vec();
        let first: usize = spans[..axis].iter().zip(&to).map(|(s, &step)| s.begin * step as usize).sum();
        let blocks: usize = outer_kept.iter().product();
        for block in 0..blocks {
            let mut rest = block;
            let mut base = first;
            for (a, &n) in outer_kept.iter().enumerate().rev() {
                base += rest % n * to[a] as usize;
                rest /= n;
            }
            for i in (0..span.begin).chain(span.begin + span.n..shape[axis]) {
                let s = span.source(mode, i) - span.first + span.begin;
                let (a, b) = (base + s * inner, base + i * inner);
                let (low, high) = out.split_at_mut(a.max(b));
                if a < b {
                    high[..inner].clone_from_slice(&low[a..a + inner]);
                } else {
                    low[b..b + inner].clone_from_slice(&high[..inner]);
                }
            }
        }
    }
    Ok(Tensor::new(shape, out)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{Random, checked, gathered, infer, ravel, run, unravel};

    /// Position in a sequence of `n` of what stands at `p`, found by walking.
    fn walk(mode: PadMode, p: i64, n: i64) -> i64 {
        let mut at = p;
        while at < 0 || at >= n {
            at = match mode {
                PadMode::Wrap => at + if at < 0 { n } else { -n },
                PadMode::Reflect if n > 1 => if at < 0 { -at } else { 2 * (n - 1) - at },
                _ => if at < 0 { 0 } else { n - 1 },
            };
        }
        at
    }

    #[test]
    fn agrees_with_indexing() {
        let mut random = Random::new(41);
        for case in 0..400 {
            let mode = PadMode::ALL[random.below(4)];
            let shape = random.shape(4, 4);
            let x = random.tensor(&shape);
            let mut axes = random.permutation(shape.len());
            axes.truncate(random.below(shape.len() + 1));
            let mut begin = vec![0; shape.len()];
            let mut end = begin.clone();
            for &a in &axes {
                let n = shape[a] as i64;
                begin[a] = random.between(-(n / 2), 5);
                end[a] = random.between(-(n / 2), 5);
                if n == 0 && mode != PadMode::Constant {
                    (begin[a], end[a]) = (0, 0);
                }
                if n + begin[a].min(0) + end[a].min(0) == 0 && mode != PadMode::Constant {
                    begin[a] = begin[a].max(0);
                }
            }
            let sizes: Vec<usize> =
                (0..shape.len()).map(|a| (shape[a] as i64 + begin[a] + end[a]) as usize).collect();
            let value = crate::match_any!(x.data(), v => Tensor::new([], vec![v.first().cloned().unwrap_or_default()]).unwrap());
            let mut flat = Vec::new();
            let inside = |i: &[usize]| -> Option<Vec<usize>> {
                (0..i.len())
                    .map(|a| {
                        let first = begin[a].min(0).abs();
                        let n = shape[a] as i64 - first - end[a].min(0).abs();
                        let p = i[a] as i64 - begin[a].max(0);
                        if mode == PadMode::Constant {
                            (0..n).contains(&p).then_some((p + first) as usize)
                        } else {
                            Some((walk(mode, p, n) + first) as usize)
                        }
                    })
                    .collect()
            };
            // Element 0 of a widened source stands for the constant.
            for k in 0..sizes.iter().product::<usize>() {
                flat.push(inside(&unravel(k, &sizes)).map(|i| ravel(&i, &shape)));
            }
            let expected = crate::match_any!(x.data(), v => {
                let v: Vec<_> = flat.iter().map(|p| p.map_or_else(|| v.first().cloned().unwrap_or_default(), |p| v[p].clone())).collect();
                Tensor::new(sizes.clone(), v).unwrap()
            });
            let list: Vec<i64> = axes.iter().map(|&a| begin[a]).chain(axes.iter().map(|&a| end[a])).collect();
            let names = Tensor::vector(axes.iter().map(|&a| random.signed(a, shape.len())).collect::<Vec<i64>>());
            let y = checked(&Pad { mode }, &[Some(&x), Some(&Tensor::vector(list)), Some(&value), Some(&names)], &[0]);
            assert_eq!(y[0], expected, "case {case} {mode:?}");
        }
    }

    #[test]
    fn defaults_and_symbols() {
        let x = Tensor::new([1, 2], vec![1i64, 2]).unwrap();
        let pads = Tensor::vector(vec![0i64, 1, 1, 0]);
        let op = Pad { mode: PadMode::Constant };
        let y = checked(&op, &[Some(&x), Some(&pads)], &[0]).remove(0);
        assert_eq!(y, Tensor::new([2, 3], vec![0i64, 1, 2, 0, 0, 0]).unwrap());
        let d = |s: &str| Dim::parse(s).unwrap();
        let x = Fact::new(crate::DType::F32, vec![d("N"), d("H")]);
        let pads = Fact::fixed(crate::DType::I64, &[2]).with_dims(vec![d("0"), d("H")]);
        let axes = Fact::of(&Tensor::vector(vec![-1i64]));
        let y = infer(&op, &[Some(&x), Some(&pads), None, Some(&axes)]).unwrap().remove(0);
        assert_eq!(y.shape, [d("N"), d("2*H")]);
        let unknown = Fact::fixed(crate::DType::I64, &[2]);
        let y = infer(&op, &[Some(&x), Some(&unknown), None, Some(&axes)]).unwrap().remove(0);
        assert_eq!(y.shape[0], d("N"));
    }

    #[test]
    fn refuses_bad_pads() {
        let x = Tensor::vector(vec![1.0f32; 3]);
        let go = |mode, pads: &[i64]| run(&Pad { mode }, &[Some(&x), Some(&Tensor::vector(pads.to_vec()))]);
        for bad in [&[1][..], &[1, 1, 1], &[-2, -2], &[-5, 4], &[i64::MAX, 0], &[i64::MAX, i64::MAX], &[i64::MIN, 0], &[1 << 40, 0]] {
            assert!(go(PadMode::Constant, bad).is_err(), "{bad:?}");
        }
        assert!(go(PadMode::Edge, &[-3, 1]).is_err() && go(PadMode::Constant, &[-3, 1]).is_ok());
        let empty = Tensor::vector(Vec::<f32>::new());
        assert!(run(&Pad { mode: PadMode::Wrap }, &[Some(&empty), Some(&Tensor::vector(vec![1i64, 0]))]).is_err());
        assert_eq!(gathered(&x, &[1], |_| vec![2]).len(), 1);
    }
}
