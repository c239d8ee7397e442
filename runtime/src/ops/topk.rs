//! The largest or smallest elements: <https://onnx.ai/onnx/operators/onnx__TopK.html>.

use crate::{
    DType, Dim, Element, Fact, OpError, Tensor, attributes, match_any,
    ops::{
        InferCx, Operator, RunCx,
        helpers::{normalize_axis, required},
        known::{dims, expect_list, ints, shape_error, sizes, value_error},
        order::Order,
    },
};

attributes! {
    /// The `K` (a list of one i64) largest or smallest elements of `X` along `axis` and, as i64, their positions. Of equal ones
    /// the first come first; not-a-numbers count as larger than all others. The result is sorted, whatever `sorted` says.
    pub struct TopK {
        /// The axis, counted from the back if negative.
        pub axis: i64,
        /// Whether the largest.
        pub largest: bool,
        /// Whether the order matters.
        pub sorted: bool,
    }
}

impl TopK {
    fn shape(&self, x: &[Dim], k: &[Dim]) -> Result<Vec<Dim>, OpError> {
        let axis = normalize_axis(self.axis, x.len(), "axis")?;
        let [k] = k else { return Err(value_error(1, "K", format!("{} elements where one is needed", k.len()))) };
        if k.at_least(0) == Some(false) || (&x[axis] - k).at_least(0) == Some(false) {
            return Err(value_error(1, "K", format!("{k} of {} elements", x[axis])));
        }
        let mut shape = x.to_vec();
        shape[axis] = k.clone();
        Ok(shape)
    }
}

impl Operator for TopK {
    single!(TopK, "TopK");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, k) = (required(inputs, 0, "X")?, required(inputs, 1, "K")?);
        expect_list(k, 1, "K")?;
        let shape = match k.dims() {
            Some(k) => self.shape(&x.shape, &k)?,
            None => {
                if k.element_count().equals(&Dim::from(1)) == Some(false) {
                    return Err(shape_error(1, "K", &k.shape, "[1] is needed"));
                }
                let axis = normalize_axis(self.axis, x.rank(), "axis")?;
                let mut shape = x.shape.clone();
                shape[axis] = cx.fresh();
                shape
            }
        };
        Ok(vec![Fact::new(x.dtype, shape.clone()), Fact::new(DType::I64, shape)])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, k) = (required(inputs, 0, "X")?, required(inputs, 1, "K")?);
        let k: Vec<Dim> = ints(k, 1, "K")?.into_iter().map(Dim::from).collect();
        let shape = sizes(&self.shape(&dims(x.shape()), &k)?, cx)?;
        let axis = normalize_axis(self.axis, x.rank(), "axis")?;
        let lanes = Lanes { size: x.shape()[axis], inner: x.shape()[axis + 1..].iter().product(), k: shape[axis] };
        match_any!(x.data(), v => {
            let (values, at) = pick(v, lanes, self.largest, shape.iter().product());
            Ok(vec![Tensor::new(shape.clone(), values)?, Tensor::new(shape, at)?])
        })
    }
}

/// Lanes of `size` elements, `inner` apart, of which `k` are wanted.
#[derive(Clone, Copy)]
struct Lanes {
    size: usize,
    inner: usize,
    k: usize,
}

fn pick<T: Element + Order>(v: &[T], lanes: Lanes, largest: bool, count: usize) -> (Vec<T>, Vec<i64>) {
    let Lanes { size, inner, k } = lanes;
    let (mut values, mut at) = (vec![T::default(); count], vec![0; count]);
    if count == 0 {
        return (values, at);
    }
    let mut order: Vec<usize> = Vec::with_capacity(size);
    for lane in 0..count / k {
        let (o, i) = (lane / inner, lane % inner);
        let element = |p: usize| &v[(o * size + p) * inner + i];
        let compare = |&a: &usize, &b: &usize| {
            let c = element(a).order(element(b));
            if largest { c.reverse() } else { c }.then(a.cmp(&b))
        };
        order.clear();
        order.extend(0..size);
        if k < size {
            order.select_nth_unstable_by(k, compare);
            order.truncate(k);
        }
        order.sort_unstable_by(compare);
        for (r, &p) in order.iter().enumerate() {
            let to = (o * k + r) * inner + i;
            values[to].clone_from(element(p));
            at[to] = p as i64;
        }
    }
    (values, at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{Random, checked, ravel, run, unravel};

    #[test]
    fn agrees_with_repeated_search() {
        let mut random = Random::new(97);
        for _ in 0..200 {
            let rank = 1 + random.below(3);
            let shape = random.shape_of(rank, 6);
            let axis = random.below(rank);
            let n: usize = shape.iter().product();
            let v: Vec<f32> = (0..n).map(|_| [f32::NAN, -0.0, 0.0, 1.0, 2.0, -3.0][random.below(6)]).collect();
            let x = Tensor::new(shape.clone(), v.clone()).unwrap();
            let k = random.below(shape[axis] + 1);
            let (largest, sorted) = (random.chance(), random.chance());
            let op = TopK { axis: random.signed(axis, rank), largest, sorted };
            let ys = checked(&op, &[Some(&x), Some(&Tensor::vector(vec![k as i64]))], &[0]);
            let key = |f: f32| if f.is_nan() { 9.0 } else { f };
            for p in 0..ys[0].len() {
                let mut i = unravel(p, ys[0].shape());
                let rank_of = i[axis];
                // The element that exactly `rank_of` others beat.
                let expected = (0..shape[axis]).find(|&c| {
                    let value = |c: usize, i: &mut Vec<usize>| {
                        i[axis] = c;
                        key(v[ravel(i, &shape)])
                    };
                    let mine = value(c, &mut i);
                    let beats = |o: usize, other: f32| if other == mine { o < c } else { (other > mine) == largest };
                    (0..shape[axis]).filter(|&o| beats(o, value(o, &mut i))).count() == rank_of
                });
                assert_eq!(ys[1].as_slice::<i64>().unwrap()[p], expected.unwrap() as i64);
                i[axis] = expected.unwrap();
                let (got, want) = (ys[0].as_slice::<f32>().unwrap()[p], v[ravel(&i, &shape)]);
                assert_eq!(got.to_bits(), want.to_bits());
            }
        }
        let x = Tensor::vector(vec![1i64, 2]);
        let go = |k: &[i64]| run(&TopK { axis: 0, largest: true, sorted: true }, &[Some(&x), Some(&Tensor::vector(k.to_vec()))]);
        assert!(go(&[2]).is_ok() && go(&[3]).is_err() && go(&[-1]).is_err() && go(&[1, 1]).is_err() && go(&[i64::MIN]).is_err());
    }
}
