//! Columns back to an image: <https://onnx.ai/onnx/operators/onnx__Col2Im.html>.

use crate::{
    Data, Dim, Element, Fact, OpError, Tensor, attributes,
    ops::{
        InferCx, Operator, RunCx,
        helpers::{elements, expect_dtype, required},
        known::{dims, ints, list_length, shape_error, sizes, value_error},
        widened,
    },
    scalar::Scalar,
    window::{AutoPad, Axis, Window},
};

attributes! {
    /// The sum of overlapping blocks: `[N, C * prod(block_shape), L]` to `[N, C, image_shape..]`, where column `l` holds the block
    /// that a convolution's window would read at its output `l`. Both shapes are lists of i64.
    pub struct Col2Im {
        /// Step between the elements of a block, one per axis of the image; 1 if absent.
        pub dilations: Option<Vec<i64>>,
        /// Zeros before (first half) and after each axis of the image; 0 if absent.
        pub pads: Option<Vec<i64>>,
        /// Step between blocks, one per axis of the image; 1 if absent.
        pub strides: Option<Vec<i64>>,
    }
}

impl Col2Im {
    /// The window along each axis of the image.
    fn axes(&self, image: &[i64], block: &[i64]) -> Result<Vec<Axis>, OpError> {
        let n = block.len();
        let or = |v: &Option<Vec<i64>>, default: Vec<i64>| v.clone().unwrap_or(default);
        let (strides, dilations) = (or(&self.strides, vec![1; n]), or(&self.dilations, vec![1; n]));
        let pads = or(&self.pads, vec![0; 2 * n]);
        let window = Window {
            kernel: block,
            strides: &strides,
            pads: &pads,
            dilations: &dilations,
            auto_pad: AutoPad::NotSet,
            ceil_mode: false,
            may_be_empty: false,
        };
        window.check()?;
        let bad = |d: &i64| value_error(1, "image_shape", format!("{d} is not a size"));
        let fits = |d: &i64| usize::try_from(*d).ok().filter(|&d| d <= 1 << 40);
        let image: Vec<usize> = image.iter().map(|d| fits(d).ok_or_else(|| bad(d))).collect::<Result<_, _>>()?;
        window.resolve(&image)
    }
}

/// The product of sizes that must not overflow.
fn product(sizes: impl IntoIterator<Item = usize>, index: usize, name: &'static str) -> Result<usize, OpError> {
    let overflow = || value_error(index, name, "the product of the sizes overflows");
    sizes.into_iter().try_fold(1usize, |a, b| a.checked_mul(b)).ok_or_else(overflow)
}

impl Operator for Col2Im {
    single!(Col2Im, "Col2Im");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, image, block) =
            (required(inputs, 0, "input")?, required(inputs, 1, "image_shape")?, required(inputs, 2, "block_shape")?);
        expect_dtype(x, 0, "input", "a floating-point type", crate::DType::is_float)?;
        if x.rank() != 3 {
            return Err(shape_error(0, "input", &x.shape, "3 dimensions are needed"));
        }
        let n = list_length(image, 1, "image_shape")?;
        if list_length(block, 2, "block_shape")? != n {
            return Err(shape_error(2, "block_shape", &block.shape, format!("[{n}] is needed")));
        }
        let channels = match block.dims() {
            Some(b) => x.shape[1].floor_div(&Dim::product(&b)),
            None => cx.fresh(),
        };
        let image = image.dims().unwrap_or_else(|| (0..n).map(|_| cx.fresh()).collect());
        Ok(vec![Fact::new(x.dtype, [vec![x.shape[0].clone(), channels], image].concat())])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        widened(inputs, |inputs| {
            let x = required(inputs, 0, "input")?;
            let image = ints(required(inputs, 1, "image_shape")?, 1, "image_shape")?;
            let block = ints(required(inputs, 2, "block_shape")?, 2, "block_shape")?;
            let [n, rows, columns] = *x.shape() else {
                return Err(shape_error(0, "input", &dims(x.shape()), "3 dimensions are needed"));
            };
            if image.len() != block.len() {
                return Err(value_error(2, "block_shape", format!("{} sizes for {}", block.len(), image.len())));
            }
            let axes = self.axes(&image, &block)?;
            let taps = product(axes.iter().map(|a| a.kernel), 2, "block_shape")?;
            let outputs = product(axes.iter().map(|a| a.output), 1, "image_shape")?;
            if rows % taps != 0 || outputs != columns {
                let expected = format!("a multiple of {taps} rows and {outputs} columns are needed");
                return Err(shape_error(0, "input", &dims(x.shape()), expected));
            }
            let channels = rows / taps;
            let mut shape = vec![Dim::from(n), Dim::from(channels)];
            shape.extend(image.iter().map(|&d| Dim::from(d)));
            let shape = sizes(&shape, cx)?;
            let y = match x.data() {
                Data::F32(_) => sum::<f32>(x, &axes, taps, shape)?,
                Data::F64(_) => sum::<f64>(x, &axes, taps, shape)?,
                Data::Field(_) => sum::<crate::scalar::Field>(x, &axes, taps, shape)?,
                _ => {
                    let expected = "a floating-point type";
                    return Err(OpError::InputType { index: 0, name: "input", dtype: x.dtype(), expected });
                }
            };
            Ok(vec![y])
        })
    }
}

fn sum<S: Scalar + Element>(x: &Tensor, axes: &[Axis], taps: usize, shape: Vec<usize>) -> Result<Tensor, OpError> {
    let v = elements::<S>(x, 0, "input")?;
    let columns = x.shape()[2];
    let plane: usize = axes.iter().map(|a| a.input).product();
    let mut y = vec![S::ZERO; shape.iter().product()];
    for (row, from) in v.chunks(columns.max(1)).enumerate() {
        let (p, tap) = (row / taps, row % taps);
        let to = &mut y[p * plane..(p + 1) * plane];
        for (l, &e) in from.iter().enumerate() {
            let (mut rest_l, mut rest_t, mut offset, mut step, mut inside) = (l, tap, 0, 1, true);
            for a in axes.iter().rev() {
                match a.source(rest_l % a.output, rest_t % a.kernel) {
                    Some(s) => offset += s * step,
                    None => inside = false,
                }
                (rest_l, rest_t, step) = (rest_l / a.output, rest_t / a.kernel, step * a.input);
            }
            if inside {
                to[offset] = to[offset].add(e);
            }
        }
    }
    Ok(Tensor::new(shape, y)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{Random, checked, run};

    #[test]
    fn agrees_with_placing_every_block() {
        let mut random = Random::new(107);
        for _ in 0..100 {
            let pick = |random: &mut Random, low, high| [random.between(low, high), random.between(low, high)];
            let (image, block) = (pick(&mut random, 4, 7), pick(&mut random, 1, 3));
            let (strides, dilations) = (pick(&mut random, 1, 2), pick(&mut random, 1, 2));
            let (before, behind) = (pick(&mut random, 0, 2), pick(&mut random, 0, 2));
            let out = [0, 1].map(|a| {
                (image[a] + before[a] + behind[a] - dilations[a] * (block[a] - 1) - 1).div_euclid(strides[a]) + 1
            });
            if out.iter().any(|&o| o < 1) {
                continue;
            }
            let (n, c) = (random.below(3), 1 + random.below(2));
            let columns = (out[0] * out[1]) as usize;
            let taps = (block[0] * block[1]) as usize;
            let count = n * c * taps * columns;
            let v: Vec<f32> = (0..count).map(|_| random.between(-9, 9) as f32).collect();
            let x = Tensor::new([n, c * taps, columns], v.clone()).unwrap();
            let op = Col2Im {
                dilations: Some(dilations.to_vec()),
                pads: Some([before, behind].concat()),
                strides: Some(strides.to_vec()),
            };
            let lists = [image, block].map(|l| Tensor::vector(l.to_vec()));
            let y = checked(&op, &[Some(&x), Some(&lists[0]), Some(&lists[1])], &[]).remove(0);
            let mut expected = vec![0.0f32; n * c * (image[0] * image[1]) as usize];
            let mut at = v.iter();
            for p in 0..(n * c) as i64 {
                for (bi, bj) in (0..block[0]).flat_map(|i| (0..block[1]).map(move |j| (i, j))) {
                    for (oi, oj) in (0..out[0]).flat_map(|i| (0..out[1]).map(move |j| (i, j))) {
                        let e = at.next().unwrap();
                        let i = oi * strides[0] + bi * dilations[0] - before[0];
                        let j = oj * strides[1] + bj * dilations[1] - before[1];
                        if (0..image[0]).contains(&i) && (0..image[1]).contains(&j) {
                            expected[((p * image[0] + i) * image[1] + j) as usize] += e;
                        }
                    }
                }
            }
            assert_eq!(y.as_slice::<f32>().unwrap(), expected);
        }
        let x = Tensor::new([1, 4, 1], vec![1.0f32; 4]).unwrap();
        let plain = Col2Im { dilations: None, pads: None, strides: None };
        let go = |i: &[i64], b: &[i64]| {
            run(&plain, &[Some(&x), Some(&Tensor::vector(i.to_vec())), Some(&Tensor::vector(b.to_vec()))])
        };
        assert!(go(&[2, 2], &[2, 2]).is_ok() && go(&[3, 2], &[2, 2]).is_err() && go(&[2, 2], &[3, 2]).is_err());
        assert!(go(&[-2, 2], &[2, 2]).is_err() && go(&[2, 2], &[0, 2]).is_err() && go(&[i64::MAX, 2], &[2, 2]).is_err());
        assert!(go(&[1 << 39, 1 << 39], &[1, 1]).is_err() && go(&[2], &[2, 2]).is_err());
    }
}
