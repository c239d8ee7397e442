//! Scattering: [ScatterElements](https://onnx.ai/onnx/operators/onnx__ScatterElements.html),
//! [ScatterND](https://onnx.ai/onnx/operators/onnx__ScatterND.html) and
//! [TensorScatter](https://onnx.ai/onnx/operators/onnx__TensorScatter.html).

use crate::{
    Data, Dim, Element, Fact, OpError, Tensor, attribute_enum, attributes, match_any,
    ops::{
        InferCx, Operator, RunCx,
        gather::expect_index,
        gather_elements::{check_elements, check_slices, element_positions, slice_positions},
        helpers::{elements, expect_dtype, normalize_axis, optional, required},
        known::{dims, ints, propagate, shape_error, value_error},
    },
    scalar::Scalar,
};

attribute_enum! {
    /// How an update joins what stands at its place. Updates of one place join in their order.
    pub enum Reduction {
        /// It replaces it; of several the last stays.
        None = "none",
        /// Sum; of booleans, or.
        Add = "add",
        /// Product; of booleans, and.
        Mul = "mul",
        /// The larger.
        Max = "max",
        /// The smaller.
        Min = "min",
    }
}

attributes! {
    /// `data`, but `y[i with indices[i] at axis] = updates[i]`: `indices` (i32 or i64, negative ones count from the back) and
    /// `updates` have one shape, of the rank of `data` and at most its sizes along the other axes.
    pub struct ScatterElements {
        /// The axis, counted from the back if negative.
        pub axis: i64,
        /// How updates join what is there.
        pub reduction: Reduction,
    }
}

attributes! {
    /// `data`, but `y[indices[i.., :], ..] = updates[i.., ..]`: the last axis of `indices` (i64) holds multi-indices.
    pub struct ScatterND {
        /// How updates join what is there.
        pub reduction: Reduction,
    }
}

/// Where pieces of `run` elements go.
#[derive(Clone, Copy)]
struct Places<'a> {
    at: &'a [usize],
    run: usize,
}

fn joined<T: Element + Copy>(x: &Tensor, u: &Tensor, to: Places<'_>, f: fn(T, T) -> T) -> Result<Tensor, OpError> {
    let mut y = elements::<T>(x, 0, "data")?.to_vec();
    for (&p, part) in to.at.iter().zip(elements::<T>(u, 2, "updates")?.chunks(to.run.max(1))) {
        y[p..p + to.run].iter_mut().zip(part).for_each(|(y, &u)| *y = f(*y, u));
    }
    Ok(Tensor::new(x.shape(), y)?)
}

fn replaced<T: Element>(x: &Tensor, v: &[T], u: &Tensor, to: Places<'_>) -> Result<Tensor, OpError> {
    let mut y = v.to_vec();
    for (&p, part) in to.at.iter().zip(elements::<T>(u, 2, "updates")?.chunks(to.run.max(1))) {
        y[p..p + to.run].clone_from_slice(part);
    }
    Ok(Tensor::new(x.shape(), y)?)
}

fn real<T: Element + Scalar>(x: &Tensor, u: &Tensor, to: Places<'_>, reduction: Reduction) -> Result<Tensor, OpError> {
    let f = match reduction {
        Reduction::None => |_, b| b,
        Reduction::Add => Scalar::add,
        Reduction::Mul => Scalar::mul,
        Reduction::Max => Scalar::max,
        Reduction::Min => Scalar::min,
    };
    joined::<T>(x, u, to, f)
}

/// Integers join modulo their size.
macro_rules! integer {
    ($t:ty, $x:expr, $u:expr, $to:expr, $reduction:expr) => {{
        let f = match $reduction {
            Reduction::None => |_, b| b,
            Reduction::Add => <$t>::wrapping_add,
            Reduction::Mul => <$t>::wrapping_mul,
            Reduction::Max => Ord::max,
            Reduction::Min => Ord::min,
        };
        joined::<$t>($x, $u, $to, f)
    }};
}

/// `x` with the pieces of `u` joined in.
fn scatter(x: &Tensor, u: &Tensor, to: Places<'_>, reduction: Reduction) -> Result<Tensor, OpError> {
    if reduction == Reduction::None {
        return match_any!(x.data(), v => replaced(x, v, u, to));
    }
    match x.data() {
        Data::F32(_) => real::<f32>(x, u, to, reduction),
        Data::F64(_) => real::<f64>(x, u, to, reduction),
        Data::F16(_) => real::<half::f16>(x, u, to, reduction),
        Data::BF16(_) => real::<half::bf16>(x, u, to, reduction),
        Data::Field(_) => real::<crate::scalar::Field>(x, u, to, reduction),
        Data::I8(_) => integer!(i8, x, u, to, reduction),
        Data::I16(_) => integer!(i16, x, u, to, reduction),
        Data::I32(_) => integer!(i32, x, u, to, reduction),
        Data::I64(_) => integer!(i64, x, u, to, reduction),
        Data::U8(_) => integer!(u8, x, u, to, reduction),
        Data::U16(_) => integer!(u16, x, u, to, reduction),
        Data::U32(_) => integer!(u32, x, u, to, reduction),
        Data::U64(_) => integer!(u64, x, u, to, reduction),
        Data::Bool(_) => match reduction {
            Reduction::Add | Reduction::Max => joined::<bool>(x, u, to, |a, b| a | b),
            _ => joined::<bool>(x, u, to, |a, b| a & b),
        },
        Data::Str(_) => {
            Err(OpError::InputType { index: 0, name: "data", dtype: x.dtype(), expected: "a number to join with another" })
        }
    }
}

fn check_updates(x: &Fact, indices: &Fact, updates: &Fact, reduction: Reduction) -> Result<(), OpError> {
    if reduction != Reduction::None {
        expect_dtype(x, 0, "data", "a number to join with another", |d| d != crate::DType::Str)?;
    }
    expect_index(indices, 1, "indices")?;
    expect_dtype(updates, 2, "updates", "the type of data", |d| d == x.dtype)
}

fn same_shape(updates: &[Dim], expected: &[Dim]) -> Result<(), OpError> {
    let differ = updates.len() != expected.len() || updates.iter().zip(expected).any(|(a, b)| a.equals(b) == Some(false));
    if !differ {
        return Ok(());
    }
    Err(shape_error(2, "updates", updates, format!("{} is needed", crate::fact::Shape(expected))))
}

fn three<'a, T>(inputs: &[Option<&'a T>]) -> Result<(&'a T, &'a T, &'a T), OpError> {
    Ok((required(inputs, 0, "data")?, required(inputs, 1, "indices")?, required(inputs, 2, "updates")?))
}

impl Operator for ScatterElements {
    single!(ScatterElements, "ScatterElements");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, indices, updates) = three(inputs)?;
        check_updates(x, indices, updates, self.reduction)?;
        let axis = normalize_axis(self.axis, x.rank(), "axis")?;
        check_elements(&x.shape, &indices.shape, axis)?;
        same_shape(&updates.shape, &indices.shape)?;
        let moved = |i| i != 1 && self.reduction == Reduction::None;
        Ok(propagate(self, inputs, moved, vec![Fact::new(x.dtype, x.shape.clone())]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], _: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, indices, updates) = three(inputs)?;
        let axis = normalize_axis(self.axis, x.rank(), "axis")?;
        check_elements(&dims(x.shape()), &dims(indices.shape()), axis)?;
        same_shape(&dims(updates.shape()), &dims(indices.shape()))?;
        let at = element_positions(x.shape(), indices, axis)?;
        Ok(vec![scatter(x, updates, Places { at: &at, run: 1 }, self.reduction)?])
    }
}

impl Operator for ScatterND {
    single!(ScatterND, "ScatterND");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, indices, updates) = three(inputs)?;
        check_updates(x, indices, updates, self.reduction)?;
        let k = check_slices(&x.shape, &indices.shape, 0)?;
        same_shape(&updates.shape, &[&indices.shape[..indices.rank() - 1], &x.shape[k..]].concat())?;
        let moved = |i| i != 1 && self.reduction == Reduction::None;
        Ok(propagate(self, inputs, moved, vec![Fact::new(x.dtype, x.shape.clone())]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, indices, updates) = three(inputs)?;
        let k = check_slices(&dims(x.shape()), &dims(indices.shape()), 0)?;
        let outer = &indices.shape()[..indices.rank() - 1];
        same_shape(&dims(updates.shape()), &dims(&[outer, &x.shape()[k..]].concat()))?;
        // Multi-indices of no numbers could be many more than the elements they name.
        cx.count(outer)?;
        let at = slice_positions(x.shape(), indices, 0, k)?;
        let run = x.shape()[k..].iter().product();
        Ok(vec![scatter(x, updates, Places { at: &at, run }, self.reduction)?])
    }
}

attribute_enum! {
    /// What happens behind the end of the cache.
    pub enum CacheMode {
        /// Nothing may be written there.
        Linear = "linear",
        /// Writing goes on at its beginning.
        Circular = "circular",
    }
}

attributes! {
    /// `past_cache`, but with `update` written along `axis` from position `write_indices[n]` on for each batch `n` (0 if left out).
    pub struct TensorScatter {
        /// The axis of the sequence, counted from the back if negative; not the first.
        pub axis: i64,
        /// What happens behind the end.
        pub mode: CacheMode,
    }
}

impl TensorScatter {
    fn check(&self, x: &[Dim], update: &[Dim], indices: Option<&[Dim]>) -> Result<usize, OpError> {
        let axis = normalize_axis(self.axis, x.len(), "axis")?;
        if axis == 0 {
            return Err(OpError::Attribute { name: "axis", problem: "the batch cannot be the sequence".into() });
        }
        let mut expected = x.to_vec();
        if let Some(d) = update.get(axis) {
            expected[axis] = d.clone();
        }
        if update.len() != x.len() || update.iter().zip(&expected).any(|(a, b)| a.equals(b) == Some(false)) {
            return Err(shape_error(1, "update", update, format!("{} is needed", crate::fact::Shape(&expected))));
        }
        if (&x[axis] - &update[axis]).at_least(0) == Some(false) {
            return Err(shape_error(1, "update", update, format!("at most {} fit along axis {axis}", x[axis])));
        }
        match indices {
            Some(i) if i.len() != 1 || i[0].equals(&x[0]) == Some(false) => {
                Err(shape_error(2, "write_indices", i, format!("[{}] is needed", x[0])))
            }
            _ => Ok(axis),
        }
    }
}

impl Operator for TensorScatter {
    single!(TensorScatter, "TensorScatter");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, update) = (required(inputs, 0, "past_cache")?, required(inputs, 1, "update")?);
        expect_dtype(update, 1, "update", "the type of past_cache", |d| d == x.dtype)?;
        let indices = optional(inputs, 2);
        if let Some(i) = indices {
            expect_index(i, 2, "write_indices")?;
        }
        self.check(&x.shape, &update.shape, indices.map(|i| i.shape.as_slice()))?;
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn run(&self, inputs: &[Option<&Tensor>], _: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, update) = (required(inputs, 0, "past_cache")?, required(inputs, 1, "update")?);
        let indices = optional(inputs, 2);
        let index_shape = indices.map(|i| dims(i.shape()));
        let axis = self.check(&dims(x.shape()), &dims(update.shape()), index_shape.as_deref())?;
        if x.is_empty() {
            return Ok(vec![x.clone()]);
        }
        let starts = match indices {
            Some(i) => ints(i, 2, "write_indices")?,
            None => vec![0; x.shape()[0]],
        };
        let (capacity, length) = (x.shape()[axis], update.shape()[axis]);
        let per_batch: usize = x.shape()[1..axis].iter().product();
        let run: usize = x.shape()[axis + 1..].iter().product();
        let mut at = Vec::with_capacity(starts.len() * per_batch * length);
        for (n, &start) in starts.iter().enumerate() {
            let outside = || value_error(2, "write_indices", format!("{start} and {length} more do not fit {capacity}"));
            let first = usize::try_from(start).map_err(|_| outside())?;
            if self.mode == CacheMode::Linear && first > capacity - length {
                return Err(outside());
            }
            for p in n * per_batch..(n + 1) * per_batch {
                at.extend((0..length).map(|i| (p * capacity + (first % capacity + i) % capacity) * run));
            }
        }
        match_any!(x.data(), v => Ok(vec![replaced(x, v, update, Places { at: &at, run })?]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{Random, checked, ravel, run, unravel};

    fn join(reduction: Reduction, a: i64, b: i64) -> i64 {
        match reduction {
            Reduction::None => b,
            Reduction::Add => a + b,
            Reduction::Mul => a.wrapping_mul(b),
            Reduction::Max => a.max(b),
            Reduction::Min => a.min(b),
        }
    }

    fn moved(reduction: Reduction) -> &'static [usize] {
        if reduction == Reduction::None { &[0, 2] } else { &[] }
    }

    #[test]
    fn elements_agree_with_indexing() {
        let mut random = Random::new(53);
        for _ in 0..200 {
            let reduction = Reduction::ALL[random.below(5)];
            let rank = 1 + random.below(4);
            let shape: Vec<usize> = (0..rank).map(|_| 1 + random.below(4)).collect();
            let axis = random.below(rank);
            let n: usize = shape.iter().product();
            let mut y: Vec<i64> = (0..n as i64).collect();
            let x = Tensor::new(shape.clone(), y.clone()).unwrap();
            let mut sizes: Vec<usize> = shape.iter().map(|&n| random.below(n + 1)).collect();
            sizes[axis] = random.below(6);
            let m: usize = sizes.iter().product();
            let picks: Vec<usize> = (0..m).map(|_| random.below(shape[axis])).collect();
            let updates: Vec<i64> = (0..m).map(|_| random.between(-9, 9)).collect();
            for k in 0..m {
                let mut i = unravel(k, &sizes);
                i[axis] = picks[k];
                let p = ravel(&i, &shape);
                y[p] = join(reduction, y[p], updates[k]);
            }
            let indices: Vec<i64> = picks.iter().map(|&p| random.signed(p, shape[axis])).collect();
            let (i, u) = (Tensor::new(sizes.clone(), indices).unwrap(), Tensor::new(sizes, updates).unwrap());
            let op = ScatterElements { axis: random.signed(axis, rank), reduction };
            // The shapes of indices and updates are symbols of different names only without knowledge of either.
            let got = checked(&op, &[Some(&x), Some(&i), Some(&u)], moved(reduction)).remove(0);
            assert_eq!(got.as_slice::<i64>().unwrap(), y);
            let wide = |t: &Tensor| {
                Tensor::new(t.shape(), t.to_i64s().unwrap().iter().map(|&v| v as f64).collect::<Vec<_>>()).unwrap()
            };
            let got = checked(&op, &[Some(&wide(&x)), Some(&i), Some(&wide(&u))], &[]).remove(0);
            assert_eq!(got.as_slice::<f64>().unwrap(), y.iter().map(|&v| v as f64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn slices_agree_with_indexing() {
        let mut random = Random::new(59);
        for _ in 0..200 {
            let reduction = Reduction::ALL[random.below(5)];
            let rank = 1 + random.below(3);
            let shape: Vec<usize> = (0..rank).map(|_| 1 + random.below(4)).collect();
            let n: usize = shape.iter().product();
            let mut y: Vec<i64> = (0..n as i64).collect();
            let x = Tensor::new(shape.clone(), y.clone()).unwrap();
            let k = random.below(rank + 1);
            let outer = random.shape(2, 3);
            let m: usize = outer.iter().product();
            let picks: Vec<Vec<usize>> = (0..m).map(|_| (0..k).map(|j| random.below(shape[j])).collect()).collect();
            let sizes = [&outer[..], &shape[k..]].concat();
            let updates: Vec<i64> = (0..sizes.iter().product::<usize>()).map(|_| random.between(-9, 9)).collect();
            for (j, &u) in updates.iter().enumerate() {
                let i = unravel(j, &sizes);
                let (o, rest) = i.split_at(outer.len());
                let p = ravel(&[&picks[ravel(o, &outer)], rest].concat(), &shape);
                y[p] = join(reduction, y[p], u);
            }
            let list: Vec<i64> = picks.concat().iter().map(|&i| i as i64).collect();
            let i = Tensor::new([&outer[..], &[k]].concat(), list).unwrap();
            let u = Tensor::new(sizes, updates).unwrap();
            let got = checked(&ScatterND { reduction }, &[Some(&x), Some(&i), Some(&u)], moved(reduction)).remove(0);
            assert_eq!(got.as_slice::<i64>().unwrap(), y);
        }
        let x = Tensor::vector(vec![1.0f32; 3]);
        let go = |i: Tensor, u: Tensor| run(&ScatterND { reduction: Reduction::None }, &[Some(&x), Some(&i), Some(&u)]);
        let at = |i: i64| Tensor::new([1, 1], vec![i]).unwrap();
        assert!(go(at(-1), Tensor::vector(vec![2.0f32])).is_ok());
        assert!(go(at(3), Tensor::vector(vec![2.0f32])).is_err() && go(at(i64::MIN), Tensor::vector(vec![2.0f32])).is_err());
        assert!(go(at(0), Tensor::vector(vec![2.0f32; 2])).is_err() && go(at(0), Tensor::vector(vec![2i64])).is_err());
    }

    #[test]
    fn booleans_and_strings() {
        let x = Tensor::vector(vec![false, true]);
        let (i, u) = (Tensor::vector(vec![0i64, 1]), Tensor::vector(vec![true, false]));
        let go = |reduction| checked(&ScatterElements { axis: 0, reduction }, &[Some(&x), Some(&i), Some(&u)], &[]).remove(0);
        assert_eq!(go(Reduction::Add), Tensor::vector(vec![true, true]));
        assert_eq!(go(Reduction::Mul), Tensor::vector(vec![false, false]));
        let s = Tensor::vector(vec!["a".to_owned(), "b".to_owned()]);
        let go = |reduction| run(&ScatterElements { axis: 0, reduction }, &[Some(&s), Some(&i), Some(&s)]);
        assert!(go(Reduction::None).is_ok() && go(Reduction::Max).is_err());
    }

    #[test]
    fn caches() {
        let mut random = Random::new(61);
        for _ in 0..100 {
            let mode = CacheMode::ALL[random.below(2)];
            let shape = [1 + random.below(3), 1 + random.below(3), 1 + random.below(5), 1 + random.below(3)];
            let axis = 1 + random.below(3);
            let mut sizes = shape;
            sizes[axis] = random.below(shape[axis] + 1);
            let x = Tensor::new(shape, vec![-1i64; shape.iter().product()]).unwrap();
            let n: usize = sizes.iter().product();
            let u = Tensor::new(sizes, (0..n as i64).collect::<Vec<_>>()).unwrap();
            let room = if mode == CacheMode::Linear { shape[axis] - sizes[axis] } else { 9 };
            let starts: Vec<i64> = (0..shape[0]).map(|_| random.below(room + 1) as i64).collect();
            let op = TensorScatter { axis: random.signed(axis, 4), mode };
            let y = checked(&op, &[Some(&x), Some(&u), Some(&Tensor::vector(starts.clone()))], &[]).remove(0);
            let mut expected = vec![-1i64; x.len()];
            for k in 0..n {
                let mut i = unravel(k, &sizes);
                i[axis] = (starts[i[0]] as usize + i[axis]) % shape[axis];
                expected[ravel(&i, &shape)] = k as i64;
            }
            assert_eq!(y.as_slice::<i64>().unwrap(), expected);
        }
        let (x, u) = (Tensor::new([1, 2], vec![0i64; 2]).unwrap(), Tensor::new([1, 2], vec![1i64; 2]).unwrap());
        let op = TensorScatter { axis: 1, mode: CacheMode::Linear };
        for bad in [1, -1, i64::MAX] {
            assert!(run(&op, &[Some(&x), Some(&u), Some(&Tensor::vector(vec![bad]))]).is_err());
        }
        assert!(run(&TensorScatter { axis: 0, mode: CacheMode::Linear }, &[Some(&x), Some(&u)]).is_err());
    }
}
