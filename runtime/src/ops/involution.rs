//! Involution (<https://arxiv.org/abs/2103.06255>), domain `ai.convc`.

use crate::{
    Dim, Element, Fact, OpError, Tensor, attributes,
    ops::{
        InferCx, Operator, RunCx, Shape,
        binary::BinaryKind,
        compose::{Compose, Composer, convolution},
        do_conv::{check_group, check_kernel},
        helpers::{elements, required},
        planes::{accumulating, expect_float, expect_rank, for_each_plane, outer_taps, output_shapes, plane_sizes, shape_error},
        widened,
    },
    scalar::Scalar,
    window::{AutoPad, Axis, Window},
};

attributes! {
    /// `y[n,c,p] = sum over t of ker[n, g(c)*T + t, p] * x[n, c, s*p - pad_begin + d*t]`, zeros beyond the border: one kernel
    /// for each output position and group of channels.
    ///
    /// x `[N, C, D1..Dn]`; ker `[N, group*T, E1..En]`, T the product of `kernel_shape`, channel `g*T + t` being tap t (row-major)
    /// of group g; y `[N, C, E1..En]`, the E being the sizes of a convolution with this window.
    pub struct Involution {
        /// Taps along each spatial axis.
        pub kernel_shape: Vec<i64>,
        /// Step between outputs, one per spatial axis.
        pub strides: Vec<i64>,
        /// Zeros before (first half) and after each spatial axis.
        pub pads: Vec<i64>,
        /// Step between taps, one per spatial axis.
        pub dilations: Vec<i64>,
        /// Number of groups, which divides C.
        pub group: i64,
    }
}

impl Involution {
    /// The window.
    #[must_use]
    pub fn window(&self) -> Window<'_> {
        Window {
            kernel: &self.kernel_shape,
            strides: &self.strides,
            pads: &self.pads,
            dilations: &self.dilations,
            auto_pad: AutoPad::NotSet,
            ceil_mode: false,
            may_be_empty: false,
        }
    }

    /// Defines the operator by others: a depthwise convolution with one-hot kernels lays out the neighbours.
    ///
    /// # Errors
    /// If an operand is missing, or the number of channels is not known.
    pub fn compose<C: Composer>(&self, c: &mut C, operands: &[Option<C::Value>]) -> Result<C::Value, C::Error> {
        let (x, ker) = (C::given(operands, 0, "X")?, C::given(operands, 1, "kernel")?);
        let taps = check_kernel(&self.kernel_shape)?;
        check_group(self.group, "group")?;
        let (x_sizes, ker_sizes) = (c.sizes(&x, "X")?, c.sizes(&ker, "kernel")?);
        let channels = x_sizes.at(1)?;
        let count = channels.checked_mul(taps).and_then(|n| n.checked_mul(taps)).filter(|n| *n <= 1 << 28);
        let count = count.and_then(|n| usize::try_from(n).ok());
        let (Some(count), Ok(step)) = (count, usize::try_from(taps)) else {
            return Err(OpError::Unsupported(format!("{channels} channels of {taps} neighbours")).into());
        };
        let mut one_hot = vec![0.0f32; count];
        for (row, kernel) in one_hot.chunks_mut(step).enumerate() {
            kernel[row % step] = 1.0;
        }
        let mut shape = vec![count / step, 1];
        shape.extend(self.kernel_shape.iter().map(|&k| k as usize));
        let one_hot = Tensor::new(shape, one_hot).map_err(OpError::from)?.rounded_to(x_sizes.dtype());
        let one_hot = c.constant(one_hot)?;
        let unfold = convolution(&self.strides, &self.pads, &self.dilations, channels);
        let neighbours = c.conv(unfold, &x, &one_hot, None)?;
        let neighbours = c.reshape(&neighbours, &[0, self.group, channels / self.group, taps, -1])?;
        let kernels = c.reshape(&ker, &[0, self.group, 1, taps, -1])?;
        let products = c.binary(BinaryKind::Mul, &kernels, &neighbours)?;
        let y = c.sum_along(&products, 3)?;
        let known: Option<Vec<i64>> = ker_sizes.fact.shape.iter().skip(2).map(Dim::as_fixed).collect();
        match known {
            Some(sizes) => c.reshape(&y, &[&[0, channels], sizes.as_slice()].concat()),
            None => {
                let sizes = c.one(Shape { start: 2, end: None }, vec![Some(ker)])?;
                let front = c.ints(&[0, channels])?;
                let target = c.concat(&[front, sizes], 0)?;
                c.one(super::Reshape { allowzero: false }, vec![Some(y), Some(target)])
            }
        }
    }
}

impl Operator for Involution {
    single!(Involution, "Involution");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, ker) = (required(inputs, 0, "X")?, required(inputs, 1, "kernel")?);
        expect_float(x, 0, "X")?;
        expect_float(ker, 1, "kernel")?;
        expect_rank(x, 3, 0, "X")?;
        let taps = check_kernel(&self.kernel_shape)?;
        check_group(self.group, "group")?;
        if x.shape[1].divisible_by(self.group) == Some(false) {
            return Err(shape_error(x, 0, "X", format!("channels must divide into {} groups", self.group)));
        }
        let window = self.window();
        window.check()?;
        let mut expected = vec![x.shape[0].clone(), Dim::from(taps) * self.group];
        expected.extend(window.output(&x.shape[2..])?);
        if ker.rank() != x.rank() || ker.shape.iter().zip(&expected).any(|(a, b)| a.equals(b) == Some(false)) {
            return Err(shape_error(ker, 1, "kernel", format!("{} is needed", crate::fact::Shape(&expected))));
        }
        expected[1] = x.shape[1].clone();
        Ok(vec![Fact::new(x.dtype, expected)])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        widened(inputs, |inputs| {
            let (x, ker) = (required(inputs, 0, "X")?, required(inputs, 1, "kernel")?);
            let shape = output_shapes(self, inputs)?.swap_remove(0);
            cx.count(&shape)?;
            let axes = self.window().resolve(&x.shape()[2..])?;
            let groups = usize::try_from(self.group).unwrap_or(1);
            accumulating!(x, "X", S, v => {
                let ker = elements::<S>(ker, 1, "kernel")?;
                Ok(vec![Tensor::new(shape.clone(), involve::<S>(cx, v, ker, &axes, &shape, groups))?])
            })
        })
    }
}

fn involve<S: Scalar + Element>(
    cx: &RunCx<'_>,
    x: &[S],
    ker: &[S],
    axes: &[Axis],
    shape: &[usize],
    groups: usize,
) -> Vec<S> {
    let mut y = vec![S::ZERO; shape.iter().product()];
    let Some((inner, outer)) = axes.split_last() else { return y };
    let (in_plane, out_plane) = plane_sizes(axes);
    let taps = super::planes::tap_count(axes);
    let (channels, per_group) = (shape[1], shape[1] / groups);
    for_each_plane(cx, &mut y, out_plane, out_plane.saturating_mul(taps), |i, y| {
        let (n, c) = (i / channels, i % channels);
        let x = &x[i * in_plane..][..in_plane];
        let ker = &ker[(n * groups + c / per_group) * taps * out_plane..][..taps * out_plane];
        for (r, y) in y.chunks_mut(inner.output).enumerate() {
            outer_taps(outer, r, &mut |outer_tap, row| {
                let x = &x[row * inner.input..][..inner.input];
                for t in 0..inner.kernel {
                    let range = inner.inside(t);
                    let Some(first) = inner.source(range.start, t).filter(|_| !range.is_empty()) else { continue };
                    let ker = &ker[(outer_tap * inner.kernel + t) * out_plane + r * inner.output..][..inner.output];
                    let x = x[first..].iter().step_by(inner.stride);
                    for ((y, &k), &x) in y[range.clone()].iter_mut().zip(&ker[range]).zip(x) {
                        *y = y.add(k.mul(x));
                    }
                }
            });
        }
    });
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Real,
        ops::{
            compose::evaluate,
            testing::{check_symbolic, close, indices, random_f64, run_threads, run_threads_as},
        },
    };

    fn cases() -> Vec<(Involution, Vec<usize>)> {
        let op = |kernel: &[i64], strides: &[i64], pads: &[i64], dilations: &[i64], group| Involution {
            kernel_shape: kernel.to_vec(),
            strides: strides.to_vec(),
            pads: pads.to_vec(),
            dilations: dilations.to_vec(),
            group,
        };
        vec![
            (op(&[3, 3], &[1, 1], &[1, 1, 1, 1], &[1, 1], 2), vec![3, 4, 5, 6]),
            (op(&[3, 2], &[2, 1], &[2, 0, 1, 1], &[1, 2], 3), vec![1, 3, 6, 5]),
            (op(&[4], &[3], &[0, 2], &[1], 1), vec![2, 2, 9]),
        ]
    }

    fn kernel_map(op: &Involution, x: &Tensor) -> Tensor {
        let axes = op.window().resolve(&x.shape()[2..]).unwrap();
        let mut shape = vec![x.shape()[0], op.group as usize * op.kernel_shape.iter().product::<i64>() as usize];
        shape.extend(axes.iter().map(|a| a.output));
        random_f64(&shape, 2)
    }

    #[test]
    fn agrees_with_the_formula() {
        for (op, shape) in cases() {
            let x = random_f64(&shape, 1);
            let ker = kernel_map(&op, &x);
            let y = run_threads(&op, &[Some(&x), Some(&ker)]).unwrap().swap_remove(0);
            let kernel: Vec<usize> = op.kernel_shape.iter().map(|&k| k as usize).collect();
            let taps = kernel.iter().product::<usize>();
            let out_plane: usize = y.shape()[2..].iter().product();
            let (xv, kv) = (x.to_f64s().unwrap(), ker.to_f64s().unwrap());
            let expected: Vec<f64> = indices(y.shape())
                .iter()
                .enumerate()
                .map(|(at, o)| {
                    let g = o[1] * op.group as usize / shape[1];
                    let mut sum = 0.0;
                    for (t, tap) in indices(&kernel).iter().enumerate() {
                        let mut source = Some(o[0] * shape[1] + o[1]);
                        for a in 0..kernel.len() {
                            let p = (o[a + 2] as i64) * op.strides[a] + tap[a] as i64 * op.dilations[a] - op.pads[a];
                            let inside = (0..shape[a + 2] as i64).contains(&p);
                            source = source.filter(|_| inside).map(|s| s * shape[a + 2] + p as usize);
                        }
                        let k = kv[((o[0] * op.group as usize + g) * taps + t) * out_plane + at % out_plane];
                        sum += source.map_or(0.0, |s| k * xv[s]);
                    }
                    sum
                })
                .collect();
            close(&y, &Tensor::new(y.shape(), expected).unwrap(), 1e-13);
            check_symbolic(&op, &[Some(&x), Some(&ker)]);
            let narrow = random_f64(&[ker.shape(), &[1]].concat()[..ker.rank()], 1);
            assert!(run_threads(&Involution { group: 5, ..op }, &[Some(&x), Some(&narrow)]).is_err());
        }
    }

    #[test]
    fn the_definition_is_the_same_polynomial() {
        for (op, shape) in cases() {
            let x = random_f64(&shape, 1);
            let ker = kernel_map(&op, &x).to_real(Real::Field);
            let x = x.to_real(Real::Field);
            let y = run_threads_as(&op, &[Some(&x), Some(&ker)], Real::Field).unwrap();
            let pool = crate::sys::Pool::new(1);
            let cx = RunCx::new(Real::Field, &pool);
            assert_eq!(evaluate(&[Some(&x), Some(&ker)], &cx, |c, o| op.compose(c, o)).unwrap(), y);
        }
    }
}
