//! Elementwise choice: <https://onnx.ai/onnx/operators/onnx__Where.html>.

use crate::{
    DType, Element, Fact, OpError, Tensor, attributes,
    match_any,
    ops::{
        InferCx, Operator, RunCx,
        helpers::{broadcast, broadcast_sizes, broadcast_strides, elements, expect_dtype, required},
        known::propagate,
        
    },
};

attributes! {
    /// `X` where `condition` (bool) holds, else `Y`; the three broadcast together.
    pub struct Where {}
}

impl Operator for Where {
    single!(Where, "Where");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (c, x, y) = (required(inputs, 0, "condition")?, required(inputs, 1, "X")?, required(inputs, 2, "Y")?);
        expect_dtype(c, 0, "condition", "bool", |d| d == DType::Bool)?;
        expect_dtype(y, 2, "Y", "the type of X", |d| d == x.dtype)?;
        let shape = broadcast(&[&c.shape, &x.shape, &y.shape])?;
        Ok(propagate(self, inputs, |i| i > 0, vec![Fact::new(x.dtype, shape)]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        fn choose<T: Element>(c: &Tensor, xs: &[T], x: &Tensor, y: &Tensor, shape: Vec<usize>) -> Result<Tensor, OpError> {
            let (cs, ys) = (elements::<bool>(c, 0, "condition")?, elements::<T>(y, 2, "Y")?);
            let strides = [c, x, y].map(|t| broadcast_strides(t.shape(), &shape));
            let (outer, inner) = match shape.split_last() {
                Some((&n, outer)) => (outer, n),
                None => (&[][..], 1),
            };
            let step = strides.each_ref().map(|s| s.last().copied().unwrap_or(0));
            let count: usize = shape.iter().product();
            let mut out = Vec::with_capacity(count);
            let mut index = vec![0; outer.len()];
            let mut at = [0; 3];
            while out.len() < count {
                out.extend((0..inner).map(|i| {
                    let [c, x, y] = [0, 1, 2].map(|k| at[k] + i * step[k]);
                    if cs[c] { xs[x].clone() } else { ys[y].clone() }
                }));
                for axis in (0..outer.len()).rev() {
                    index[axis] += 1;
                    (0..3).for_each(|k| at[k] += strides[k][axis]);
                    if index[axis] < outer[axis] {
                        break;
                    }
                    (0..3).for_each(|k| at[k] -= strides[k][axis] * outer[axis]);
                    index[axis] = 0;
                }
            }
            Ok(Tensor::new(shape, out)?)
        }
        let (c, x, y) = (required(inputs, 0, "condition")?, required(inputs, 1, "X")?, required(inputs, 2, "Y")?);
        let shape = broadcast_sizes(&[c.shape(), x.shape(), y.shape()])?;
        cx.count(&shape)?;
        match_any!(x.data(), v => Ok(vec![choose(c, v, x, y, shape)?]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{Random, checked, ravel, run, unravel};

    #[test]
    fn agrees_with_indexing() {
        let mut random = Random::new(31);
        for _ in 0..200 {
            let out = random.shape(4, 4);
            let mut part = || -> Vec<usize> {
                let cut = random.below(out.len() + 1);
                out[cut..].iter().map(|&n| if random.chance() { 1 } else { n }).collect()
            };
            let (cs, xs, ys) = (part(), part(), part());
            let n = |s: &[usize]| s.iter().product::<usize>();
            let c = Tensor::new(cs.clone(), (0..n(&cs)).map(|_| random.chance()).collect::<Vec<_>>()).unwrap();
            let x = Tensor::new(xs.clone(), (0..n(&xs)).map(|i| i as i64 + 1).collect::<Vec<_>>()).unwrap();
            let y = Tensor::new(ys.clone(), (0..n(&ys)).map(|i| -(i as i64)).collect::<Vec<_>>()).unwrap();
            // Two symbols are taken as equal or 1, so that neither stands for a size of 0.
            let symbolic: &[usize] = if out.contains(&0) { &[] } else { &[1, 2] };
            let z = checked(&Where {}, &[Some(&c), Some(&x), Some(&y)], symbolic).remove(0);
            let at = |index: &[usize], s: &[usize]| {
                let tail = &index[index.len() - s.len()..];
                ravel(&tail.iter().zip(s).map(|(&i, &n)| if n == 1 { 0 } else { i }).collect::<Vec<_>>(), s)
            };
            for k in 0..z.len() {
                let i = unravel(k, z.shape());
                let (c, x, y) = (c.as_slice::<bool>().unwrap(), x.as_slice::<i64>().unwrap(), y.as_slice::<i64>().unwrap());
                let expected = if c[at(&i, &cs)] { x[at(&i, &xs)] } else { y[at(&i, &ys)] };
                assert_eq!(z.as_slice::<i64>().unwrap()[k], expected);
            }
        }
        let (c, x) = (Tensor::vector(vec![true; 2]), Tensor::vector(vec![1.0f32; 3]));
        assert!(run(&Where {}, &[Some(&c), Some(&x), Some(&x)]).is_err());
        assert!(run(&Where {}, &[Some(&x), Some(&x), Some(&x)]).is_err());
    }
}
