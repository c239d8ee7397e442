//! Reversal of sequences of different lengths: <https://onnx.ai/onnx/operators/onnx__ReverseSequence.html>.

use crate::{
    Fact, OpError, Tensor, attributes, match_any,
    ops::{
        InferCx, Operator, RunCx,
        gather::expect_index,
        helpers::{normalize_axis, required},
        known::{dims, ints, propagate, shape_error, value_error},
    },
};

attributes! {
    /// For each batch `n` the first `sequence_lens[n]` (a list of i64) slices along the time axis in reverse, the others in place.
    pub struct ReverseSequence {
        /// The axis of the batch: 0 or 1.
        pub batch_axis: i64,
        /// The axis of time: the other of 0 and 1.
        pub time_axis: i64,
    }
}

impl ReverseSequence {
    fn axes(&self, rank: usize) -> Result<(usize, usize), OpError> {
        let batch = normalize_axis(self.batch_axis, rank, "batch_axis")?;
        let time = normalize_axis(self.time_axis, rank, "time_axis")?;
        if batch + time != 1 {
            let problem = format!("{batch} and {time} for batch and time are not 0 and 1");
            return Err(OpError::Attribute { name: "time_axis", problem });
        }
        Ok((batch, time))
    }
}

impl Operator for ReverseSequence {
    single!(ReverseSequence, "ReverseSequence");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, lengths) = (required(inputs, 0, "input")?, required(inputs, 1, "sequence_lens")?);
        let (batch, _) = self.axes(x.rank())?;
        expect_index(lengths, 1, "sequence_lens")?;
        if lengths.rank() != 1 || lengths.shape[0].equals(&x.shape[batch]) == Some(false) {
            return Err(shape_error(1, "sequence_lens", &lengths.shape, format!("[{}] is needed", x.shape[batch])));
        }
        Ok(propagate(self, inputs, |i| i == 0, vec![Fact::new(x.dtype, x.shape.clone())]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], _: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, lengths) = (required(inputs, 0, "input")?, required(inputs, 1, "sequence_lens")?);
        let (batch, time) = self.axes(x.rank())?;
        let (count, steps) = (x.shape()[batch], x.shape()[time]);
        if lengths.shape() != [count] {
            return Err(shape_error(1, "sequence_lens", &dims(lengths.shape()), format!("[{count}] is needed")));
        }
        let run: usize = x.shape()[2..].iter().product();
        let lengths: Vec<usize> = ints(lengths, 1, "sequence_lens")?
            .into_iter()
            .map(|l| {
                let length = usize::try_from(l).ok().filter(|&l| l <= steps);
                length.ok_or_else(|| value_error(1, "sequence_lens", format!("{l} of {steps} steps")))
            })
            .collect::<Result<_, _>>()?;
        let place = |n: usize, t: usize| if batch == 0 { (n * steps + t) * run } else { (t * count + n) * run };
        match_any!(x.data(), v => {
            let mut y = v.to_vec();
            for (n, &length) in lengths.iter().enumerate() {
                for t in 0..length {
                    let (to, from) = (place(n, t), place(n, length - 1 - t));
                    y[to..to + run].clone_from_slice(&v[from..from + run]);
                }
            }
            Ok(vec![Tensor::new(x.shape(), y)?])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{Random, checked, gathered, run};

    #[test]
    fn agrees_with_indexing() {
        let mut random = Random::new(89);
        for _ in 0..200 {
            let rank = 2 + random.below(3);
            let shape = random.shape_of(rank, 4);
            let batch = random.below(2);
            let lengths: Vec<i64> = (0..shape[batch]).map(|_| random.below(shape[1 - batch] + 1) as i64).collect();
            let x = random.tensor(&shape);
            let op = ReverseSequence { batch_axis: batch as i64, time_axis: 1 - batch as i64 };
            let expected = gathered(&x, &shape, |i| {
                let mut i = i.to_vec();
                let (n, t) = (i[batch], i[1 - batch]);
                let length = lengths[n] as usize;
                if t < length {
                    i[1 - batch] = length - 1 - t;
                }
                i
            });
            assert_eq!(checked(&op, &[Some(&x), Some(&Tensor::vector(lengths))], &[0]).remove(0), expected);
        }
        let x = random.tensor(&[2, 3]);
        let go = |batch_axis, time_axis, v: &[i64]| {
            run(&ReverseSequence { batch_axis, time_axis }, &[Some(&x), Some(&Tensor::vector(v.to_vec()))])
        };
        assert!(go(0, 1, &[3, 0]).is_ok() && go(0, 1, &[4, 0]).is_err() && go(0, 1, &[-1, 0]).is_err());
        assert!(go(0, 0, &[1, 1]).is_err() && go(0, 2, &[1, 1]).is_err() && go(0, 1, &[1]).is_err());
    }
}
