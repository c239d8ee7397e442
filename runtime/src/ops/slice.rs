//! Slices: <https://onnx.ai/onnx/operators/onnx__Slice.html>.

use crate::{
    Dim, Fact, OpError, Tensor, attributes,
    match_any,
    ops::{
        InferCx, Operator, RunCx,
        copy::{Layout, strides, view},
        helpers::{optional, required},
        known::{axes_of, ints, list_length, propagate, value_error},
        
    },
};

attributes! {
    /// The elements `starts[i], starts[i] + steps[i], ..` before `ends[i]` along each of `axes`, as in Python: negative starts
    /// and ends count from the back, both are clamped to the tensor. All operands but `data` are lists of integers; without
    /// `axes` they speak of the first axes, without `steps` all steps are 1.
    pub struct Slice {}
}

/// Bounds at least this far out mean "to the end" in every model.
const FAR: i64 = i32::MAX as i64;

/// First element and number of elements of a slice along one axis of this size; `step` is not 0.
#[must_use]
pub fn resolve(start: i64, end: i64, step: i64, size: usize) -> (usize, usize) {
    let size = size as i64;
    let front = |v: i64| if v < 0 { v.saturating_add(size) } else { v };
    let (start, end) = if step > 0 {
        (front(start).clamp(0, size), front(end).clamp(0, size))
    } else {
        (front(start).min(size - 1).max(-1), front(end).min(size - 1).max(-1))
    };
    // A start before the first element is clamped to it when stepping back, an end to the place before it.
    let start = if step < 0 && size > 0 { start.max(0) } else { start };
    let room = if step > 0 { end - start } else { start - end };
    let count = room.max(0).unsigned_abs().div_ceil(step.unsigned_abs());
    (start.max(0) as usize, count as usize)
}

/// Number of elements of a slice as an expression; `None` if it cannot be told.
fn resolve_dim(start: &Dim, end: &Dim, step: i64, size: &Dim) -> Option<Dim> {
    if let (Some(s), Some(e), Some(n)) = (start.as_fixed(), end.as_fixed(), size.as_fixed()) {
        return Some(Dim::from(resolve(s, e, step, usize::try_from(n).ok()?).1));
    }
    let zero = Dim::from(0);
    let last = size - 1;
    let front = |v: &Dim| match v.at_least(0) {
        Some(true) => Some(v.clone()),
        Some(false) => Some(v + size),
        None => None,
    };
    let clamp = |v: &Dim, low: &Dim, high: &Dim| match v.as_fixed() {
        Some(v) if v >= FAR => Some(high.clone()),
        Some(v) if v <= -FAR => Some(low.minimum(high)),
        _ => Some(front(v)?.maximum(low).minimum(high)),
    };
    let room = if step > 0 {
        clamp(end, &zero, size)? - clamp(start, &zero, size)?
    } else {
        clamp(start, &zero, &last)? - clamp(end, &Dim::from(-1), &last)?
    };
    Some(room.maximum(&zero).ceil_div(&Dim::from(step.checked_abs()?)))
}

fn check_step(step: i64) -> Result<i64, OpError> {
    if step == 0 { Err(value_error(4, "steps", "a step of 0")) } else { Ok(step) }
}

fn mismatch(index: usize, name: &'static str, got: usize, needed: usize) -> OpError {
    value_error(index, name, format!("{got} entries, {needed} are needed"))
}

impl Operator for Slice {
    single!(Slice, "Slice");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, starts, ends) = (required(inputs, 0, "data")?, required(inputs, 1, "starts")?, required(inputs, 2, "ends")?);
        let n = list_length(starts, 1, "starts")?;
        let length = |f: Option<&Fact>, index, name| match f {
            Some(f) => match list_length(f, index, name)? {
                m if m == n => Ok(()),
                m => Err(mismatch(index, name, m, n)),
            },
            None => Ok(()),
        };
        length(Some(ends), 2, "ends")?;
        length(optional(inputs, 3), 3, "axes")?;
        length(optional(inputs, 4), 4, "steps")?;
        let axes = match optional(inputs, 3) {
            Some(f) => f.i64s(),
            None => Some((0..n as i64).collect()),
        };
        let mut shape = x.shape.clone();
        match axes {
            None => shape.iter_mut().for_each(|d| *d = cx.fresh()),
            Some(axes) => {
                let axes = axes_of(&axes, x.rank(), 3, "axes")?;
                let (starts, ends) = (starts.dims(), ends.dims());
                let steps = match optional(inputs, 4) {
                    Some(f) => f.i64s(),
                    None => Some(vec![1; n]),
                };
                for (i, &axis) in axes.iter().enumerate() {
                    let part = match (&starts, &ends, &steps) {
                        (Some(s), Some(e), Some(t)) => resolve_dim(&s[i], &e[i], check_step(t[i])?, &shape[axis]),
                        _ => None,
                    };
                    shape[axis] = part.unwrap_or_else(|| cx.fresh());
                }
            }
        }
        Ok(propagate(self, inputs, |i| i == 0, vec![Fact::new(x.dtype, shape)]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0, "data")?;
        let starts = ints(required(inputs, 1, "starts")?, 1, "starts")?;
        let n = starts.len();
        let list = |index, name, default: Vec<i64>| match optional(inputs, index) {
            Some(t) => match ints(t, index, name)? {
                v if v.len() == n => Ok(v),
                v => Err(mismatch(index, name, v.len(), n)),
            },
            None => Ok(default),
        };
        required(inputs, 2, "ends")?;
        let ends = list(2, "ends", Vec::new())?;
        let axes = axes_of(&list(3, "axes", (0..n as i64).collect())?, x.rank(), 3, "axes")?;
        let steps = list(4, "steps", vec![1; n])?;
        let mut shape = x.shape().to_vec();
        let mut strides = strides(x.shape());
        let mut offset = 0;
        for (i, &axis) in axes.iter().enumerate() {
            let step = check_step(steps[i])?;
            let (first, count) = resolve(starts[i], ends[i], step, shape[axis]);
            shape[axis] = count;
            offset += first * strides[axis] as usize;
            strides[axis] = if count > 1 { strides[axis] * step as isize } else { 0 };
        }
        if shape == x.shape() && steps.iter().zip(&axes).all(|(&s, &a)| s == 1 || shape[a] <= 1) {
            return Ok(vec![x.clone()]);
        }
        cx.count(&shape)?;
        let from = Layout { offset, strides: &strides };
        match_any!(x.data(), v => Ok(vec![Tensor::new(shape.clone(), view(v, from, &shape, cx.pool))?]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{Random, checked, gathered, infer, run};

    /// What Python's `range(size)[start:end:step]` lists.
    fn python(start: i64, end: i64, step: i64, size: usize) -> Vec<usize> {
        let n = size as i128;
        let front = |v: i64| if v < 0 { i128::from(v) + n } else { i128::from(v) };
        let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
        let (mut at, end) = (front(start).clamp(low, high.max(low)), front(end).clamp(low, high.max(low)));
        let mut out = Vec::new();
        while if step > 0 { at < end } else { at > end } {
            out.push(at as usize);
            at += i128::from(step);
        }
        out
    }

    #[test]
    fn agrees_with_python() {
        let mut random = Random::new(17);
        let far = [i64::MAX, i64::MIN, i64::from(i32::MAX), i64::from(i32::MIN), -(1 << 40)];
        for _ in 0..400 {
            let shape = random.shape(4, 6);
            let x = random.tensor(&shape);
            let mut axes = random.permutation(shape.len());
            axes.truncate(random.below(shape.len() + 1));
            let mut lists = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
            let mut taken: Vec<Vec<usize>> = shape.iter().map(|&n| (0..n).collect()).collect();
            for &a in &axes {
                let mut bound = || if random.below(4) == 0 { far[random.below(5)] } else { random.between(-8, 8) };
                let (start, end) = (bound(), bound());
                let step = match random.below(8) {
                    0 => i64::MIN,
                    1 => i64::MAX,
                    2 | 3 => random.between(-3, -1),
                    _ => random.between(1, 3),
                };
                // Python also starts a backward slice of a start too far in front nowhere, ONNX at the first element.
                let clamped = if step < 0 { start.max(-(shape[a] as i64)) } else { start };
                taken[a] = python(clamped, end, step, shape[a]);
                let axis = random.signed(a, shape.len());
                lists.iter_mut().zip([start, end, axis, step]).for_each(|(l, v)| l.push(v));
            }
            let lists = lists.map(Tensor::vector);
            let sizes: Vec<usize> = taken.iter().map(Vec::len).collect();
            let expected = gathered(&x, &sizes, |i| i.iter().zip(&taken).map(|(&i, t)| t[i]).collect());
            let mut inputs = vec![Some(&x)];
            inputs.extend(lists.iter().map(Some));
            assert_eq!(checked(&Slice {}, &inputs, &[0]).remove(0), expected, "{lists:?} of {shape:?}");
        }
    }

    #[test]
    fn symbolic_bounds() {
        let d = |s: &str| Dim::parse(s).unwrap();
        let list = |v: &[&str]| Fact::fixed(crate::DType::I64, &[v.len()]).with_dims(v.iter().map(|s| d(s)).collect());
        let x = Fact::new(crate::DType::F32, vec![d("N"), d("2*H"), d("10")]);
        let (axes, steps) = (list(&["1"]), list(&["1"]));
        let slice = |s: &str, e: &str| {
            let (s, e) = (list(&[s]), list(&[e]));
            infer(&Slice {}, &[Some(&x), Some(&s), Some(&e), Some(&axes), Some(&steps)]).unwrap().remove(0).shape[1].clone()
        };
        assert_eq!(slice("0", "H"), d("H"));
        assert_eq!(slice("H", "9223372036854775807"), d("H"));
        assert_eq!(slice("0", "-1"), d("2*H-1"));
        assert_eq!(slice("1", "2147483647"), d("2*H-1"));
        let unknown = Fact::fixed(crate::DType::I64, &[1]);
        let y = infer(&Slice {}, &[Some(&x), Some(&unknown), Some(&unknown), Some(&axes)]).unwrap().remove(0);
        assert_eq!((&y.shape[0], y.shape[1].symbols().len(), &y.shape[2]), (&d("N"), 1, &d("10")));
    }

    #[test]
    fn refuses_bad_lists() {
        let x = Tensor::vector(vec![1.0f32; 4]);
        let v = |v: &[i64]| Tensor::vector(v.to_vec());
        let go = |s: &[i64], e: &[i64], a: &[i64], t: &[i64]| {
            run(&Slice {}, &[Some(&x), Some(&v(s)), Some(&v(e)), Some(&v(a)), Some(&v(t))])
        };
        assert!(go(&[0], &[1], &[0], &[1]).is_ok());
        assert!(go(&[0], &[1], &[0], &[0]).is_err());
        assert!(go(&[0], &[1], &[1], &[1]).is_err());
        assert!(go(&[0, 0], &[1, 1], &[0, -1], &[1, 1]).is_err());
        assert!(go(&[0], &[], &[0], &[1]).is_err());
        assert!(go(&[0], &[1], &[0], &[]).is_err());
    }
}
