//! Transposed convolution against a sum written straight from its formula.

mod common;

use common::{Case, Rng, at, check, check_symbolic, elements, indices, run};
use convc_runtime::{
    Real, Tensor,
    ops::{ConvTranspose, Operator, RunCx},
    scalar::{Field, Scalar},
    sys::Pool,
    window::AutoPad,
};

/// The sums, gathered from every input and tap into the outputs, and the sums of the absolute values of what is added.
fn oracle<S: Scalar>(c: &Case, out: &[i64], x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> (Vec<S>, Vec<f64>) {
    let (xs, ws, bs): (Vec<S>, Vec<S>, Option<Vec<S>>) = (elements(x), elements(w), b.map(elements));
    let x_shape = c.x_shape();
    let w_shape = [&[c.group * c.ci, c.co], c.kernel.as_slice()].concat();
    let y_shape = [&[c.batch, c.group * c.co], out].concat();
    let start = |i: usize| bs.as_ref().map_or(S::ZERO, |b| b[i / at_stride(&y_shape) % b.len()]);
    let count = y_shape.iter().product::<i64>() as usize;
    let mut y: Vec<S> = (0..count).map(start).collect();
    let mut scale: Vec<f64> = y.iter().map(|v| v.to_f64().map_or(0.0, f64::abs)).collect();
    for n in 0..c.batch {
        for channel in 0..c.group * c.ci {
            for o in 0..c.co {
                for q in indices(&c.spatial) {
                    for t in indices(&c.kernel) {
                        let target: Vec<i64> =
                            (0..q.len()).map(|a| q[a] * c.strides[a] + t[a] * c.dilations[a] - c.pads[a].0).collect();
                        if (0..q.len()).any(|a| target[a] < 0 || target[a] >= out[a]) {
                            continue;
                        }
                        let to = at(&y_shape, &[&[n, channel / c.ci * c.co + o], target.as_slice()].concat());
                        let xv = xs[at(&x_shape, &[&[n, channel], q.as_slice()].concat())];
                        let wv = ws[at(&w_shape, &[&[channel, o], t.as_slice()].concat())];
                        y[to] = y[to].add(xv.mul(wv));
                        scale[to] += xv.mul(wv).to_f64().map_or(0.0, f64::abs);
                    }
                }
            }
        }
    }
    (y, scale)
}

/// Elements per channel.
fn at_stride(shape: &[i64]) -> usize {
    shape[2..].iter().product::<i64>() as usize
}

fn operator(c: &Case, output_padding: &[i64]) -> ConvTranspose {
    ConvTranspose {
        strides: c.strides.clone(),
        pads: c.onnx_pads(),
        dilations: c.dilations.clone(),
        group: c.group,
        output_padding: output_padding.to_vec(),
        output_shape: Vec::new(),
        auto_pad: AutoPad::NotSet,
    }
}

fn check_case(c: &Case, output_padding: &[i64], rng: &mut Rng, pools: &[Pool]) -> bool {
    let pixels: Vec<i64> = (0..c.kernel.len())
        .map(|a| {
            let extent = c.dilations[a] * (c.kernel[a] - 1) + 1;
            c.strides[a] * (c.spatial[a] - 1) + output_padding[a] + extent - c.pads[a].0 - c.pads[a].1
        })
        .collect();
    if pixels.iter().any(|&p| p < 0) || pixels.iter().product::<i64>() > 4000 {
        return false;
    }
    let x = rng.tensor(&c.x_shape());
    let w = rng.tensor(&[&[c.group * c.ci, c.co], c.kernel.as_slice()].concat());
    let b = c.bias.then(|| rng.tensor(&[c.group * c.co]));
    let inputs = [Some(&x), Some(&w), b.as_ref()];
    let out = [&[c.batch, c.group * c.co], pixels.as_slice()].concat();
    let what = format!("{output_padding:?} {c:?}");
    let exact = oracle::<f64>(c, &pixels, &x, &w, b.as_ref());
    let (field, _) = oracle::<Field>(c, &pixels, &x, &w, b.as_ref());
    let op = operator(c, output_padding);
    check(&op, &inputs, &out, &exact, &field, pools, &what);
    check_symbolic(&op, &inputs, &out, &what);
    // The same cut, said by the sizes of the result; an odd rest goes to the front unless SAME_UPPER says otherwise.
    for auto_pad in [AutoPad::NotSet, AutoPad::SameUpper] {
        let total = |a: usize| c.pads[a].0 + c.pads[a].1;
        let (n, small) = (c.kernel.len(), |a: usize| total(a).max(0) / 2);
        let pads: Vec<(i64, i64)> = (0..n)
            .map(|a| if auto_pad == AutoPad::NotSet { (total(a).max(0) - small(a), 0) } else { (small(a), 0) })
            .collect();
        if (0..n).any(|a| total(a) <= -c.strides[a]) {
            continue;
        }
        let by_size = ConvTranspose { pads: Vec::new(), output_shape: pixels.clone(), auto_pad, ..op.clone() };
        let exact = oracle::<f64>(&Case { pads, ..c.clone() }, &pixels, &x, &w, b.as_ref());
        common::near(&run(&by_size, &inputs, &RunCx::new(Real::Native, &pools[0])), &exact, 1e-5, &what);
        check_symbolic(&by_size, &inputs, &out, &what);
    }
    true
}

#[test]
fn conv_transpose_is_its_formula() {
    let (mut rng, pools, mut cases) = (Rng(11), [Pool::new(1), Pool::new(3)], 0);
    while cases < 500 {
        let mut c = Case::random(&mut rng);
        c.spatial.iter_mut().for_each(|n| *n = (*n).min(9));
        let output_padding: Vec<i64> =
            (0..c.kernel.len()).map(|a| rng.range(0, c.strides[a].max(c.dilations[a]) - 1)).collect();
        cases += usize::from(check_case(&c, &output_padding, &mut rng, &pools));
    }
}

/// Sizes at which the product is made in several blocks of taps and of channels.
#[test]
fn conv_transpose_of_several_blocks_keeps_its_bits() {
    let (mut rng, pools) = (Rng(12), [Pool::new(1), Pool::new(2), Pool::new(5)]);
    for (group, ci, co, size, k) in [(1, 2, 3, 600, 500), (2, 5, 70, 1000, 4)] {
        let c = Case {
            batch: 1,
            group,
            ci,
            co,
            spatial: vec![size],
            kernel: vec![k],
            strides: vec![1],
            dilations: vec![1],
            pads: vec![(k / 2, k / 3)],
            bias: true,
        };
        assert!(check_case(&c, &[0], &mut rng, &pools));
    }
}

#[test]
fn conv_transpose_of_nothing_is_nothing_or_bias() {
    let pool = Pool::new(1);
    let cx = RunCx::new(Real::Native, &pool);
    let op = ConvTranspose {
        strides: vec![2],
        pads: vec![-1, -1],
        dilations: vec![1],
        group: 1,
        output_padding: vec![0],
        output_shape: Vec::new(),
        auto_pad: AutoPad::NotSet,
    };
    let (w, b) = (Tensor::new([3, 2, 3], vec![1.0f32; 18]).unwrap(), Tensor::vector(vec![1.5f32, -2.0]));
    let empty = |shape: &[usize]| Tensor::new(shape, Vec::<f32>::new()).unwrap();
    let y = run(&op, &[Some(&empty(&[0, 3, 4])), Some(&w), Some(&b)], &cx);
    assert_eq!((y.shape(), y.len()), ([0, 2, 11].as_slice(), 0));
    let y = run(&op, &[Some(&empty(&[1, 3, 0])), Some(&w), Some(&b)], &cx);
    assert_eq!(y, Tensor::new([1, 2, 3], vec![1.5f32, 1.5, 1.5, -2.0, -2.0, -2.0]).unwrap());
    let y = run(&op, &[Some(&empty(&[1, 0, 1])), Some(&empty(&[0, 2, 1])), Some(&b)], &cx);
    assert_eq!(y, Tensor::new([1, 2, 3], vec![1.5f32, 1.5, 1.5, -2.0, -2.0, -2.0]).unwrap());
    let reach = ConvTranspose { pads: Vec::new(), output_shape: vec![11], ..op };
    let x = Tensor::new([1, 3, 4], vec![1.0f32; 12]).unwrap();
    assert!(reach.run(&[Some(&x), Some(&w)], &cx).is_err());
}
