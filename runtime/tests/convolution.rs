//! Convolution and products of matrices against sums written straight from their formulas.

mod common;

use common::{Case, Rng, at, check, check_symbolic, elements, indices, near, run};
use convc_runtime::{
    Real, Tensor,
    kernels::{self, Isa},
    ops::{Conv, RunCx},
    scalar::{Field, Scalar},
    sys::Pool,
    window::AutoPad,
};

/// The sums, and the sums of the absolute values of what is added.
fn oracle<S: Scalar>(c: &Case, out: &[i64], x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> (Vec<S>, Vec<f64>) {
    let (xs, ws, bs): (Vec<S>, Vec<S>, Option<Vec<S>>) = (elements(x), elements(w), b.map(elements));
    let x_shape = c.x_shape();
    let w_shape = [&[c.group * c.co, c.ci], c.kernel.as_slice()].concat();
    let (mut y, mut scale) = (Vec::new(), Vec::new());
    for n in 0..c.batch {
        for o in 0..c.group * c.co {
            for p in indices(out) {
                let mut sum = bs.as_ref().map_or(S::ZERO, |b| b[o as usize]);
                let mut size = sum.to_f64().map_or(0.0, f64::abs);
                for i in 0..c.ci {
                    for t in indices(&c.kernel) {
                        let source: Vec<i64> =
                            (0..p.len()).map(|a| p[a] * c.strides[a] + t[a] * c.dilations[a] - c.pads[a].0).collect();
                        if (0..p.len()).any(|a| source[a] < 0 || source[a] >= c.spatial[a]) {
                            continue;
                        }
                        let channel = o / c.co * c.ci + i;
                        let xv = xs[at(&x_shape, &[&[n, channel], source.as_slice()].concat())];
                        let wv = ws[at(&w_shape, &[&[o, i], t.as_slice()].concat())];
                        sum = sum.add(xv.mul(wv));
                        size += xv.mul(wv).to_f64().map_or(0.0, f64::abs);
                    }
                }
                y.push(sum);
                scale.push(size);
            }
        }
    }
    (y, scale)
}

fn operator(c: &Case) -> Conv {
    Conv {
        strides: c.strides.clone(),
        pads: c.onnx_pads(),
        dilations: c.dilations.clone(),
        group: c.group,
        auto_pad: AutoPad::NotSet,
    }
}

fn output(c: &Case) -> Option<Vec<i64>> {
    let size = |a: usize| {
        let room = c.spatial[a] + c.pads[a].0 + c.pads[a].1 - c.dilations[a] * (c.kernel[a] - 1) - 1;
        (room >= 0).then(|| room / c.strides[a] + 1)
    };
    (0..c.kernel.len()).map(size).collect()
}

fn operands(c: &Case, rng: &mut Rng) -> (Tensor, Tensor, Option<Tensor>) {
    let x = rng.tensor(&c.x_shape());
    let w = rng.tensor(&[&[c.group * c.co, c.ci], c.kernel.as_slice()].concat());
    let b = c.bias.then(|| rng.tensor(&[c.group * c.co]));
    (x, w, b)
}

fn check_case(c: &Case, rng: &mut Rng, pixels: &[i64], pools: &[Pool]) {
    let (x, w, b) = operands(c, rng);
    let out = [&[c.batch, c.group * c.co], pixels].concat();
    let (op, inputs, what) = (operator(c), [Some(&x), Some(&w), b.as_ref()], format!("{c:?}"));
    let exact = oracle::<f64>(c, pixels, &x, &w, b.as_ref());
    let (field, _) = oracle::<Field>(c, pixels, &x, &w, b.as_ref());
    check(&op, &inputs, &out, &exact, &field, pools, &what);
    check_symbolic(&op, &inputs, &out, &what);
}

#[test]
fn conv_is_its_formula() {
    let (mut rng, pools, mut cases) = (Rng(1), [Pool::new(1), Pool::new(3)], 0);
    while cases < 600 {
        let c = Case::random(&mut rng);
        let Some(pixels) = output(&c).filter(|o| o.iter().product::<i64>() <= 600) else { continue };
        cases += 1;
        check_case(&c, &mut rng, &pixels, &pools);
    }
}

/// Sizes at which blocks, tiles and slivers all have remainders.
#[test]
fn conv_of_several_blocks_keeps_its_bits() {
    let (mut rng, pools) = (Rng(3), [Pool::new(1), Pool::new(2), Pool::new(5)]);
    for (group, ci, co, size, k, s) in
        [(1, 83, 37, 19, 3, 1), (2, 700, 9, 7, 1, 1), (1, 40, 65, 33, 3, 2), (30, 1, 1, 41, 5, 1), (6, 1, 2, 90, 3, 2)]
    {
        let c = Case {
            batch: 2,
            group,
            ci,
            co,
            spatial: vec![size, size + 3],
            kernel: vec![k, k],
            strides: vec![s, s],
            dilations: vec![1, 1],
            pads: vec![(k / 2, k / 2); 2],
            bias: true,
        };
        let pixels = output(&c).unwrap();
        check_case(&c, &mut rng, &pixels, &pools);
    }
}

#[test]
fn conv_pads_by_itself_so_that_stride_alone_decides_the_size() {
    let (mut rng, pool) = (Rng(2), Pool::new(1));
    for case in 0..200 {
        let auto_pad = if case % 2 == 0 { AutoPad::SameUpper } else { AutoPad::SameLower };
        let mut c = Case { bias: false, ..Case::random(&mut rng) };
        let pixels: Vec<i64> = c.spatial.iter().zip(&c.strides).map(|(&n, &s)| (n + s - 1) / s).collect();
        if pixels.iter().product::<i64>() > 400 {
            continue;
        }
        for (a, &size) in pixels.iter().enumerate() {
            let reach = (size - 1) * c.strides[a] + (c.kernel[a] - 1) * c.dilations[a] + 1;
            let total = (reach - c.spatial[a]).max(0);
            let small = total / 2;
            c.pads[a] = if case % 2 == 0 { (small, total - small) } else { (total - small, small) };
        }
        let (x, w, _) = operands(&c, &mut rng);
        let (op, inputs) = (Conv { pads: Vec::new(), auto_pad, ..operator(&c) }, [Some(&x), Some(&w)]);
        let what = format!("{auto_pad:?} {c:?}");
        let y = run(&op, &inputs, &RunCx::new(Real::Native, &pool));
        near(&y, &oracle::<f64>(&c, &pixels, &x, &w, None), 1e-5, &what);
        check_symbolic(&op, &inputs, &[&[c.batch, c.group * c.co], pixels.as_slice()].concat(), &what);
    }
}

#[test]
fn conv_of_nothing_is_nothing_or_bias() {
    let pool = Pool::new(2);
    let cx = RunCx::new(Real::Native, &pool);
    let op = Conv { strides: vec![1; 2], pads: vec![1; 4], dilations: vec![1; 2], group: 1, auto_pad: AutoPad::NotSet };
    let empty = |shape: &[usize]| Tensor::new(shape, Vec::<f32>::new()).unwrap();
    let w = Tensor::new([2, 3, 3, 3], vec![1.0f32; 54]).unwrap();
    let y = run(&op, &[Some(&empty(&[0, 3, 5, 4])), Some(&w)], &cx);
    assert_eq!((y.shape(), y.len()), ([0, 2, 5, 4].as_slice(), 0));
    let b = Tensor::vector(vec![1.5f32, -2.0]);
    let y = run(&op, &[Some(&empty(&[1, 0, 2, 1])), Some(&empty(&[2, 0, 3, 3])), Some(&b)], &cx);
    assert_eq!(y, Tensor::new([1, 2, 2, 1], vec![1.5f32, 1.5, -2.0, -2.0]).unwrap());
    let op = Conv { pads: vec![2; 4], ..op };
    let y = run(&op, &[Some(&empty(&[1, 3, 1, 0])), Some(&w), Some(&b)], &cx);
    assert_eq!(y, Tensor::new([1, 2, 3, 2], [vec![1.5f32; 6], vec![-2.0; 6]].concat()).unwrap());
}

#[test]
fn products_of_matrices_are_sums_in_order() {
    let (mut rng, pools) = (Rng(4), [Pool::new(1), Pool::new(3)]);
    for case in 0..120 {
        let (m, k, n) = if case < 100 {
            (rng.range(0, 20), rng.range(0, 40), rng.range(0, 60))
        } else {
            (rng.range(1, 90), rng.range(1, 900), rng.range(1, 700))
        };
        let (a, b) = (rng.tensor(&[m, k]), rng.tensor(&[k, n]));
        let (a, b) = (a.as_slice::<f32>().unwrap(), b.as_slice::<f32>().unwrap());
        let (m, k, n) = (m as usize, k as usize, n as usize);
        let mut expected = vec![0.0f32; m * n];
        for i in 0..m {
            for l in 0..k {
                for j in 0..n {
                    expected[i * n + j] += a[i * k + l] * b[l * n + j];
                }
            }
        }
        for pool in &pools {
            for &isa in Isa::ALL {
                let mut c = vec![f32::NAN; m * n];
                kernels::gemm(&RunCx { isa, ..RunCx::new(Real::Native, pool) }, m, k, n, a, b, &mut c);
                assert!(c.iter().zip(&expected).all(|(c, e)| c.to_bits() == e.to_bits()), "{m} {k} {n} {isa:?}");
            }
        }
    }
}
