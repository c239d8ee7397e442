//! Operators that only change the shape: [Reshape](https://onnx.ai/onnx/operators/onnx__Reshape.html),
//! [Flatten](https://onnx.ai/onnx/operators/onnx__Flatten.html), [Squeeze](https://onnx.ai/onnx/operators/onnx__Squeeze.html),
//! [Unsqueeze](https://onnx.ai/onnx/operators/onnx__Unsqueeze.html) and
//! [Identity](https://onnx.ai/onnx/operators/onnx__Identity.html). Their results share the elements of their operand.

use crate::{
    Dim, Fact, OpError, Tensor, attributes,
    ops::{
        InferCx, Operator, RunCx,
        helpers::{optional, required},
        known::{axes_of, carried, dims, expect_list, ints, list_length, shape_error, sizes, value_error},
    },
};

attributes! {
    /// The elements of `data` in the sizes that `shape` (a list of i64) names: -1, at most once, stands for what is left,
    /// 0 for the size of `data` at the same position unless `allowzero`.
    ///
    /// A size in `shape` that is an expression is taken as a size, never as one of the two marks.
    pub struct Reshape {
        /// Whether 0 means 0.
        pub allowzero: bool,
    }
}

impl Reshape {
    /// The sizes of the result for data of sizes `x` and the operand `target`.
    ///
    /// # Errors
    /// [`OpError::InputValue`] if the elements certainly do not fit.
    pub fn shape(&self, x: &[Dim], target: &[Dim]) -> Result<Vec<Dim>, OpError> {
        let bad = |problem: String| value_error(1, "shape", problem);
        let mut out: Vec<Dim> = Vec::with_capacity(target.len());
        let mut copied = vec![false; x.len()];
        let mut open = None;
        let mut others = Dim::from(1);
        for (i, t) in target.iter().enumerate() {
            match t.as_fixed() {
                Some(-1) if open.is_some() => return Err(bad("-1 occurs twice".into())),
                Some(-1) if self.allowzero && target.iter().any(|t| t.as_fixed() == Some(0)) => {
                    return Err(bad("-1 and a literal 0 leave the size open".into()));
                }
                Some(-1) => {
                    open = Some(i);
                    out.push(Dim::from(-1));
                }
                Some(0) if !self.allowzero => {
                    let Some(d) = x.get(i) else {
                        return Err(bad(format!("0 at position {i} has no size to copy")));
                    };
                    copied[i] = true;
                    out.push(d.clone());
                }
                Some(n) if n < -1 => return Err(bad(format!("{n} is not a size"))),
                _ => {
                    others = others * t;
                    out.push(t.clone());
                }
            }
        }
        // Copied sizes cancel, which keeps quotients simple and -1 defined when one of them is 0.
        let rest = Dim::product(x.iter().zip(&copied).filter(|(_, c)| !**c).map(|(d, _)| d));
        let misfit = || bad(format!("{} elements do not fit {}", Dim::product(x), crate::fact::Shape(target)));
        match open {
            Some(i) => {
                match (rest.as_fixed(), others.as_fixed()) {
                    (_, Some(0)) => return Err(bad("-1 beside a size of 0 is open".into())),
                    (Some(a), Some(b)) if a % b != 0 => return Err(misfit()),
                    (None, Some(b)) if rest.divisible_by(b) == Some(false) => return Err(misfit()),
                    _ => {}
                }
                out[i] = rest.floor_div(&others);
            }
            None => {
                if Dim::product(x).never_equals(&Dim::product(&out)) {
                    return Err(misfit());
                }
            }
        }
        Ok(out)
    }
}

impl Operator for Reshape {
    single!(Reshape, "Reshape");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, target) = (required(inputs, 0, "data")?, required(inputs, 1, "shape")?);
        let n = list_length(target, 1, "shape")?;
        let shape = match target.dims() {
            Some(t) => self.shape(&x.shape, &t)?,
            None if n == 0 => Vec::new(),
            None if n == 1 => vec![x.element_count()],
            None => (0..n).map(|_| cx.fresh()).collect(),
        };
        Ok(vec![carried(x, Fact::new(x.dtype, shape))])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, target) = (required(inputs, 0, "data")?, required(inputs, 1, "shape")?);
        let target: Vec<Dim> = ints(target, 1, "shape")?.into_iter().map(Dim::from).collect();
        let shape = self.shape(&dims(x.shape()), &target)?;
        Ok(vec![x.reshaped(sizes(&shape, cx)?)?])
    }
}

attributes! {
    /// A matrix: the axes before `axis` become one, the others too.
    pub struct Flatten {
        /// The first axis of the second dimension, in `-rank..=rank`.
        pub axis: i64,
    }
}

impl Flatten {
    fn shape(&self, x: &[Dim]) -> Result<Vec<Dim>, OpError> {
        let rank = x.len() as i64;
        let at = if self.axis < 0 { self.axis.saturating_add(rank) } else { self.axis };
        match usize::try_from(at).ok().and_then(|a| x.split_at_checked(a)) {
            Some((a, b)) => Ok(vec![Dim::product(a), Dim::product(b)]),
            None => Err(OpError::Attribute {
                name: "axis",
                problem: format!("{} lies outside a tensor of rank {rank}", self.axis),
            }),
        }
    }
}

impl Operator for Flatten {
    single!(Flatten, "Flatten");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "input")?;
        Ok(vec![carried(x, Fact::new(x.dtype, self.shape(&x.shape)?))])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0, "input")?;
        Ok(vec![x.reshaped(sizes(&self.shape(&dims(x.shape()))?, cx)?)?])
    }
}

attributes! {
    /// `data` without the axes that `axes` (an optional list of i64) names, all of size 1; without `axes`, without all such.
    pub struct Squeeze {}
}

fn squeezed(x: &[Dim], axes: Option<&[i64]>) -> Result<Vec<Dim>, OpError> {
    let Some(axes) = axes else {
        return Ok(x.iter().filter(|d| d.as_fixed() != Some(1)).cloned().collect());
    };
    let axes = axes_of(axes, x.len(), 1, "axes")?;
    if let Some(a) = axes.iter().find(|&&a| x[a].never_equals(&Dim::from(1))) {
        return Err(shape_error(0, "data", x, format!("a size of 1 is needed at axis {a}")));
    }
    Ok(x.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, d)| d.clone()).collect())
}

impl Operator for Squeeze {
    single!(Squeeze, "Squeeze");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "data")?;
        let shape = match optional(inputs, 1) {
            None => {
                if let Some(d) = x.shape.iter().find(|d| d.equals(&Dim::from(1)).is_none()) {
                    return Err(OpError::Unsupported(format!("leaving out all sizes of 1 where {d} may or may not be 1")));
                }
                squeezed(&x.shape, None)?
            }
            Some(axes) => {
                let n = list_length(axes, 1, "axes")?;
                match axes.i64s() {
                    Some(axes) => squeezed(&x.shape, Some(&axes))?,
                    None if n == 0 => x.shape.clone(),
                    None if n > x.rank() => {
                        return Err(value_error(1, "axes", format!("{n} axes of a tensor of rank {}", x.rank())));
                    }
                    None => (0..x.rank() - n).map(|_| cx.fresh()).collect(),
                }
            }
        };
        Ok(vec![carried(x, Fact::new(x.dtype, shape))])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0, "data")?;
        let axes = optional(inputs, 1).map(|a| ints(a, 1, "axes")).transpose()?;
        let shape = squeezed(&dims(x.shape()), axes.as_deref())?;
        Ok(vec![x.reshaped(sizes(&shape, cx)?)?])
    }
}

attributes! {
    /// `data` with axes of size 1 inserted where `axes` (a list of i64) says, counted in the result.
    pub struct Unsqueeze {}
}

fn unsqueezed(x: &[Dim], axes: &[i64]) -> Result<Vec<Dim>, OpError> {
    let rank = x.len() + axes.len();
    let axes = axes_of(axes, rank, 1, "axes")?;
    let mut rest = x.iter();
    Ok((0..rank)
        .map(|i| if axes.contains(&i) { Dim::from(1) } else { rest.next().cloned().unwrap_or(Dim::from(1)) })
        .collect())
}

impl Operator for Unsqueeze {
    single!(Unsqueeze, "Unsqueeze");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, axes) = (required(inputs, 0, "data")?, required(inputs, 1, "axes")?);
        // Exporters also write a single axis without a dimension.
        let shape = match axes.i64s() {
            Some(axes) => unsqueezed(&x.shape, &axes)?,
            None => {
                expect_list(axes, 1, "axes")?;
                let n = list_length(axes, 1, "axes")?;
                (0..x.rank() + n).map(|_| cx.fresh()).collect()
            }
        };
        Ok(vec![carried(x, Fact::new(x.dtype, shape))])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, axes) = (required(inputs, 0, "data")?, required(inputs, 1, "axes")?);
        let shape = unsqueezed(&dims(x.shape()), &ints(axes, 1, "axes")?)?;
        Ok(vec![x.reshaped(sizes(&shape, cx)?)?])
    }
}

attributes! {
    /// Its operand.
    pub struct Identity {}
}

impl Operator for Identity {
    single!(Identity, "Identity");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        Ok(vec![required(inputs, 0, "input")?.clone()])
    }

    fn run(&self, inputs: &[Option<&Tensor>], _: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![required(inputs, 0, "input")?.clone()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{Random, checked, infer, run};

    #[test]
    fn shapes_that_fit_an_empty_batch_alone_are_taken() {
        let x = Fact::new(crate::DType::F32, [Dim::symbol("N"), Dim::from(3)]);
        let to = |target: &[i64]| {
            let shape = Fact::of(&Tensor::vector(target.to_vec()));
            infer(&Reshape { allowzero: true }, &[Some(&x), Some(&shape)]).map(|mut f| f.remove(0).shape)
        };
        assert_eq!(to(&[3, 0]).unwrap(), [Dim::from(3), Dim::from(0)]);
        // 3 divides the elements for any batch.
        assert!(to(&[5]).is_err());
    }

    #[test]
    fn reshape_follows_its_marks() {
        let cases: &[(&[usize], &[i64], bool, Option<&[usize]>)] = &[
            (&[2, 3, 4], &[4, -1], false, Some(&[4, 6])),
            (&[2, 3, 4], &[0, -1], false, Some(&[2, 12])),
            (&[2, 3, 4], &[0, 0, 2, 2], false, Some(&[2, 3, 2, 2])),
            (&[0, 3], &[0, -1], false, Some(&[0, 3])),
            (&[0, 3], &[3, 0], true, Some(&[3, 0])),
            (&[0, 3], &[0, -1], true, None),
            (&[0, 3], &[3, -1, 0], true, None),
            (&[], &[1, 1], false, Some(&[1, 1])),
            (&[1], &[], false, Some(&[])),
            (&[2, 3], &[5, -1], false, None),
            (&[2, 3], &[-1, -1], false, None),
            (&[2, 3], &[-2, 3], false, None),
            (&[2, 3], &[6, 1, 0], false, None),
            (&[2, 3], &[7], false, None),
            (&[2, 3], &[i64::MAX, 4], false, None),
        ];
        for (x, target, allowzero, expected) in cases {
            let x = Random::new(3).tensor(x);
            let target = Tensor::vector(target.to_vec());
            let op = Reshape { allowzero: *allowzero };
            match expected {
                Some(e) => {
                    let y = checked(&op, &[Some(&x), Some(&target)], &[0]).remove(0);
                    assert_eq!(y, x.reshaped(*e).unwrap());
                }
                None => {
                    assert!(run(&op, &[Some(&x), Some(&target)]).is_err(), "{target:?}");
                    let _ = infer(&op, &[Some(&Fact::of(&x)), Some(&Fact::of(&target))]);
                }
            }
        }
    }

    #[test]
    fn reshape_cancels_symbols() {
        let d = |s: &str| Dim::parse(s).unwrap();
        let x = Fact::new(crate::DType::F32, ["N", "64", "H", "W"].map(d));
        let target = Fact::fixed(crate::DType::I64, &[3]).with_dims(vec![d("N"), d("-1"), d("H*W")]);
        let y = infer(&Reshape { allowzero: false }, &[Some(&x), Some(&target)]).unwrap().remove(0);
        assert_eq!(y.shape, [d("N"), d("64"), d("H*W")]);
        let unknown = Fact::fixed(crate::DType::I64, &[2]);
        let y = infer(&Reshape { allowzero: false }, &[Some(&x), Some(&unknown)]).unwrap().remove(0);
        assert_eq!(y.rank(), 2);
        assert!(infer(&Reshape { allowzero: false }, &[Some(&x), Some(&Fact::new(crate::DType::I64, [d("N")]))]).is_err());
    }

    #[test]
    fn flatten_and_squeeze_and_unsqueeze() {
        let mut random = Random::new(5);
        for _ in 0..200 {
            let shape = random.shape(5, 4);
            let rank = shape.len() as i64;
            let x = random.tensor(&shape);
            let axis = random.between(-rank, rank);
            let split = (if axis < 0 { axis + rank } else { axis }) as usize;
            let y = checked(&Flatten { axis }, &[Some(&x)], &[0]).remove(0);
            let e = [shape[..split].iter().product(), shape[split..].iter().product::<usize>()];
            assert_eq!(y, x.reshaped(e).unwrap());

            // Insert ones, then take them out again.
            let extra = random.below(3);
            let total = shape.len() + extra;
            let mut at = random.permutation(total);
            at.truncate(extra);
            let axes = Tensor::vector(at.iter().map(|&a| random.signed(a, total)).collect::<Vec<i64>>());
            let y = checked(&Unsqueeze {}, &[Some(&x), Some(&axes)], &[0]).remove(0);
            let mut e = shape.clone();
            at.sort_unstable();
            at.iter().for_each(|&a| e.insert(a, 1));
            assert_eq!(y, x.reshaped(e.clone()).unwrap());
            assert_eq!(checked(&Squeeze {}, &[Some(&y), Some(&axes)], &[]).remove(0), x);
            let all = checked(&Squeeze {}, &[Some(&y)], &[0]).remove(0);
            assert_eq!(all.shape(), shape.iter().copied().filter(|&n| n != 1).collect::<Vec<_>>());
            assert_eq!(checked(&Identity {}, &[Some(&y)], &[0]).remove(0), y);
        }
        let x = Tensor::vector(vec![1.0f32, 2.0]);
        assert!(run(&Flatten { axis: 2 }, &[Some(&x)]).is_err() && run(&Flatten { axis: i64::MIN }, &[Some(&x)]).is_err());
        for bad in [vec![0], vec![1], vec![-2], vec![i64::MIN], vec![i64::MAX]] {
            assert!(run(&Squeeze {}, &[Some(&x), Some(&Tensor::vector(bad))]).is_err());
        }
        for bad in [vec![0, 0], vec![0, -3], vec![2], vec![i64::MIN]] {
            assert!(run(&Unsqueeze {}, &[Some(&x), Some(&Tensor::vector(bad))]).is_err());
        }
    }
}
