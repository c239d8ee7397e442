//! Distinct elements: <https://onnx.ai/onnx/operators/onnx__Unique.html>.

use std::cmp::Ordering;

use crate::{
    DType, Dim, Element, Fact, OpError, Tensor, attributes, match_any,
    ops::{
        InferCx, Operator, RunCx,
        helpers::{normalize_axis, required},
        order::Order,
    },
};

attributes! {
    /// The distinct slices of `X` along `axis`, or its distinct elements, and as lists of i64: where each occurs first, which one
    /// each slice of `X` is, and how often each occurs.
    pub struct Unique {
        /// The axis, counted from the back if negative.
        pub axis: Option<i64>,
        /// Whether they are sorted (slices lexicographically); else they come in the order in which they first occur.
        pub sorted: bool,
    }
}

impl Operator for Unique {
    single!(Unique, "Unique");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "X")?;
        let n = cx.fresh();
        let (shape, all) = match self.axis {
            Some(a) => {
                let axis = normalize_axis(a, x.rank(), "axis")?;
                let mut shape = x.shape.clone();
                let all = std::mem::replace(&mut shape[axis], n.clone());
                (shape, all)
            }
            None => (vec![n.clone()], x.element_count()),
        };
        let list = |n: Dim| Fact::new(DType::I64, [n]);
        Ok(vec![Fact::new(x.dtype, shape), list(n.clone()), list(all), list(n)])
    }

    fn run(&self, inputs: &[Option<&Tensor>], _: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0, "X")?;
        let (shape, axis) = match self.axis {
            Some(a) => (x.shape().to_vec(), normalize_axis(a, x.rank(), "axis")?),
            None => (vec![x.len()], 0),
        };
        match_any!(x.data(), v => distinct(v, shape, axis, self.sorted))
    }
}

fn distinct<T: Element + Order>(v: &[T], mut shape: Vec<usize>, axis: usize, sorted: bool) -> Result<Vec<Tensor>, OpError> {
    let (size, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
    let outer: usize = shape[..axis].iter().product();
    let piece = |i: usize, o: usize| &v[(o * size + i) * inner..(o * size + i + 1) * inner];
    let compare = |a: usize, b: usize| {
        let elements = |o: usize| piece(a, o).iter().zip(piece(b, o)).map(|(a, b)| a.order(b));
        (0..outer).flat_map(elements).find(|c| c.is_ne()).unwrap_or(Ordering::Equal)
    };
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&a, &b| compare(a, b));
    // Groups of equal slices; the sort is stable, so each begins with its first occurrence.
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for i in order {
        match groups.last_mut() {
            Some(g) if compare(g[0], i).is_eq() => g.push(i),
            _ => groups.push(vec![i]),
        }
    }
    if !sorted {
        groups.sort_by_key(|g| g[0]);
    }
    shape[axis] = groups.len();
    let mut y = Vec::with_capacity(shape.iter().product());
    for o in 0..outer {
        groups.iter().for_each(|g| y.extend_from_slice(piece(g[0], o)));
    }
    let mut inverse = vec![0; size];
    for (n, g) in groups.iter().enumerate() {
        g.iter().for_each(|&i| inverse[i] = n as i64);
    }
    let list = |f: fn(&Vec<usize>) -> usize| Tensor::vector(groups.iter().map(|g| f(g) as i64).collect());
    Ok(vec![Tensor::new(shape, y)?, list(|g| g[0]), Tensor::vector(inverse), list(Vec::len)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{Random, checked, gathered, run};

    #[test]
    fn slices_are_distinct_and_complete() {
        let mut random = Random::new(101);
        for _ in 0..200 {
            let rank = 1 + random.below(3);
            let shape = random.shape_of(rank, 5);
            let axis = random.below(rank);
            let n: usize = shape.iter().product();
            let x = Tensor::new(shape.clone(), (0..n).map(|_| random.between(0, 1)).collect::<Vec<_>>()).unwrap();
            let sorted = random.chance();
            let ys = checked(&Unique { axis: Some(random.signed(axis, rank)), sorted }, &[Some(&x)], &[]);
            let slice = |t: &Tensor, i: usize| {
                let mut s = t.shape().to_vec();
                s[axis] = 1;
                gathered(t, &s, |k| {
                    let mut k = k.to_vec();
                    k[axis] = i;
                    k
                })
                .to_i64s()
                .unwrap()
            };
            let count = ys[0].shape()[axis];
            let [first, inverse, counts] = [1, 2, 3].map(|i| ys[i].to_i64s().unwrap());
            let kinds: Vec<Vec<i64>> = (0..count).map(|i| slice(&ys[0], i)).collect();
            assert_eq!(inverse.len(), shape[axis]);
            for (i, &kind) in inverse.iter().enumerate() {
                let kind = kind as usize;
                assert_eq!(slice(&x, i), kinds[kind]);
                assert!(first[kind] as usize <= i);
            }
            for (i, kind) in kinds.iter().enumerate() {
                assert_eq!(slice(&x, first[i] as usize), *kind);
                assert_eq!(counts[i] as usize, inverse.iter().filter(|&&k| k as usize == i).count());
                assert!(!kinds[..i].contains(kind));
            }
            assert!(if sorted { kinds.is_sorted() } else { first.is_sorted() });
        }
    }

    #[test]
    fn elements() {
        let x = Tensor::new([2, 3], vec![2.0f32, f32::NAN, 1.0, 2.0, f32::NAN, 0.5]).unwrap();
        let ys = checked(&Unique { axis: None, sorted: true }, &[Some(&x)], &[]);
        assert_eq!(ys[0].as_slice::<f32>().unwrap()[..3], [0.5, 1.0, 2.0]);
        assert_eq!(ys[0].len(), 4);
        assert_eq!(ys[1].to_i64s().unwrap(), [5, 2, 0, 1]);
        assert_eq!(ys[2].to_i64s().unwrap(), [2, 3, 1, 2, 3, 0]);
        assert_eq!(ys[3].to_i64s().unwrap(), [1, 1, 2, 2]);
        let s = Tensor::vector(["b", "a", "b"].map(str::to_owned).to_vec());
        assert_eq!(run(&Unique { axis: None, sorted: false }, &[Some(&s)]).unwrap()[1].to_i64s().unwrap(), [0, 1]);
        assert!(run(&Unique { axis: Some(2), sorted: true }, &[Some(&x)]).is_err());
    }
}
