//! Against figures of the specification's examples, and against a direct sum.

use super::*;
use crate::{
    Real,
    ops::testing::{check_symbolic, close, indices, random_f64, run_threads, run_threads_as},
};

fn vector(v: &[f32]) -> Tensor {
    Tensor::vector(v.to_vec())
}

fn counting(shape: &[usize]) -> Tensor {
    Tensor::new(shape, (1..=shape.iter().product()).map(|i: usize| i as f32).collect::<Vec<_>>()).unwrap()
}

fn op(mode: ResizeMode, coordinates: CoordinateMode) -> Resize {
    Resize {
        mode,
        coordinate_transformation_mode: coordinates,
        nearest_mode: NearestMode::RoundPreferFloor,
        ..Resize::nearest()
    }
}

fn scaled_by(op: &Resize, x: &Tensor, scales: &[f32]) -> Tensor {
    let scales = vector(scales);
    check_symbolic(op, &[Some(x), None, Some(&scales)]);
    run_threads(op, &[Some(x), None, Some(&scales)]).unwrap().swap_remove(0)
}

#[test]
fn examples_of_the_specification() {
    let x = counting(&[1, 1, 4, 4]);
    let y = scaled_by(&op(ResizeMode::Linear, CoordinateMode::HalfPixel), &counting(&[1, 1, 2, 4]), &[1.0, 1.0, 0.6, 0.6]);
    close(&y, &Tensor::new([1, 1, 1, 2], vec![2.666667f32, 4.333333]).unwrap(), 1e-6);
    let y = scaled_by(&op(ResizeMode::Linear, CoordinateMode::AlignCorners), &counting(&[1, 1, 2, 4]), &[1.0, 1.0, 0.6, 0.6]);
    close(&y, &Tensor::new([1, 1, 1, 2], vec![1.0f32, 3.142857]).unwrap(), 1e-6);
    let y = scaled_by(&op(ResizeMode::Cubic, CoordinateMode::HalfPixel), &x, &[1.0, 1.0, 0.8, 0.8]);
    let expected =
        vec![1.471191, 2.78125, 4.08252, 6.711426, 8.021484, 9.322754, 11.916504, 13.226563, 14.527832f32];
    close(&y, &Tensor::new([1, 1, 3, 3], expected).unwrap(), 1e-6);
    let antialias = Resize { antialias: true, ..op(ResizeMode::Linear, CoordinateMode::HalfPixel) };
    let y = scaled_by(&antialias, &x, &[1.0, 1.0, 0.6, 0.6]);
    close(&y, &Tensor::new([1, 1, 2, 2], vec![2.875f32, 4.5, 9.375, 11.0]).unwrap(), 1e-6);
}

#[test]
fn crop_and_extrapolation() {
    let crop = Resize {
        extrapolation_value: 10.0,
        ..op(ResizeMode::Linear, CoordinateMode::TfCropAndResize)
    };
    let roi = vector(&[0.0, 0.0, 0.4, 0.6, 1.0, 1.0, 1.2, 1.7]);
    let sizes = Tensor::vector(vec![1i64, 1, 3, 3]);
    let x = counting(&[1, 1, 4, 4]);
    let y = run_threads(&crop, &[Some(&x), Some(&roi), None, Some(&sizes)]).unwrap().swap_remove(0);
    let expected = vec![7.6, 10.0, 10.0, 12.4, 10.0, 10.0, 10.0, 10.0, 10.0f32];
    close(&y, &Tensor::new([1, 1, 3, 3], expected).unwrap(), 1e-5);
    let missing = run_threads(&crop, &[Some(&x), None, None, Some(&sizes)]);
    assert!(matches!(missing, Err(OpError::MissingInput { index: 1, .. })));
}

#[test]
fn a_single_output_of_pytorch_half_pixel_is_the_first_element() {
    let x = Tensor::new([3], vec![1.0f32, 5.0, 9.0]).unwrap();
    let y = scaled_by(&op(ResizeMode::Cubic, CoordinateMode::PytorchHalfPixel), &x, &[0.5]);
    assert_eq!(y.as_slice::<f32>().unwrap(), [1.0]);
}

#[test]
fn nearest_of_any_type_is_an_index_map() {
    let x = Tensor::new([2, 1, 2, 3], (0..12).map(|i: i32| i.to_string()).collect::<Vec<_>>()).unwrap();
    let scales = vector(&[1.0, 1.0, 2.0, 1.5]);
    let y = run_threads(&Resize::nearest(), &[Some(&x), None, Some(&scales)]).unwrap().swap_remove(0);
    assert_eq!(y.shape(), [2, 1, 4, 4]);
    for (index, v) in indices(y.shape()).into_iter().zip(y.as_slice::<String>().unwrap()) {
        let (h, w) = (index[2] / 2, index[3] * 2 / 3);
        assert_eq!(v, &(index[0] * 6 + h * 3 + w).to_string());
    }
}

/// Every output as the sum over all inputs of the product of the weights along each axis.
#[test]
fn linear_agrees_with_a_direct_sum() {
    let x = random_f64(&[2, 3, 5, 4], 1);
    let tent = |op: &Resize, n: usize, m: usize, o: usize, i: usize| {
        let at = match op.coordinate_transformation_mode {
            CoordinateMode::AlignCorners => o as f64 * (n as f64 - 1.0) / (m as f64 - 1.0),
            CoordinateMode::Asymmetric => o as f64 * n as f64 / m as f64,
            _ => (o as f64 + 0.5) * n as f64 / m as f64 - 0.5,
        };
        (1.0 - (at.clamp(0.0, n as f64 - 1.0) - i as f64).abs()).max(0.0)
    };
    for mode in [CoordinateMode::AlignCorners, CoordinateMode::Asymmetric, CoordinateMode::HalfPixel] {
        let op = op(ResizeMode::Linear, mode);
        let sizes = Tensor::vector(vec![2i64, 3, 7, 3]);
        let y = run_threads(&op, &[Some(&x), None, None, Some(&sizes)]).unwrap().swap_remove(0);
        check_symbolic(&op, &[Some(&x), None, None, Some(&sizes)]);
        let expected: Vec<f64> = indices(&[2, 3, 7, 3])
            .iter()
            .map(|o| {
                let terms = indices(&[5, 4]).into_iter().map(|i| {
                    let at = ((o[0] * 3 + o[1]) * 5 + i[0]) * 4 + i[1];
                    x.as_slice::<f64>().unwrap()[at] * tent(&op, 5, 7, o[2], i[0]) * tent(&op, 4, 3, o[3], i[1])
                });
                terms.sum()
            })
            .collect();
        close(&y, &Tensor::new([2, 3, 7, 3], expected).unwrap(), 1e-13);
    }
}

#[test]
fn axes_and_kept_aspect() {
    let x = counting(&[1, 1, 2, 4]);
    let mut op = Resize { axes: vec![-1, 2], ..Resize::nearest() };
    let run = |op: &Resize, sizes: &[i64]| {
        let sizes = Tensor::vector(sizes.to_vec());
        check_symbolic(op, &[Some(&x), None, None, Some(&sizes)]);
        run_threads(op, &[Some(&x), None, None, Some(&sizes)]).unwrap()[0].shape().to_vec()
    };
    assert_eq!(run(&op, &[8, 3]), [1, 1, 3, 8]);
    op.keep_aspect_ratio_policy = AspectPolicy::NotLarger;
    assert_eq!(run(&op, &[8, 3]), [1, 1, 3, 6]);
    op.keep_aspect_ratio_policy = AspectPolicy::NotSmaller;
    assert_eq!(run(&op, &[8, 3]), [1, 1, 4, 8]);
}

#[test]
fn symbolic_sizes() {
    let x = Fact::new(DType::F32, [Dim::symbol("N"), Dim::from(3), Dim::symbol("H"), Dim::symbol("W")]);
    let infer = |scales: &[f32]| {
        let scales = Fact::of(&vector(scales));
        let mut n = 0;
        let mut fresh = || {
            n += 1;
            Dim::symbol(format!("?{n}"))
        };
        let inputs = [Some(&x), None, Some(&scales)];
        Resize::nearest().infer(&inputs, &mut InferCx::new(&mut fresh)).unwrap()[0].to_string()
    };
    assert_eq!(infer(&[1.0, 1.0, 2.0, 0.5]), "f32[N, 3, 2*H, floor(W/2)]");
    assert_eq!(infer(&[1.0, 2.0, 1.0, 0.3]), "f32[N, 6, H, '?1']");
    let target = Fact::new(DType::I64, [Dim::from(4)])
        .with_dims(vec![Dim::symbol("N"), Dim::from(3), Dim::symbol("H") * 2, Dim::symbol("W") + 1]);
    let mut fresh = || Dim::symbol("?");
    let inputs = [Some(&x), None, None, Some(&target)];
    let y = Resize::nearest().infer(&inputs, &mut InferCx::new(&mut fresh)).unwrap();
    assert_eq!(y[0].to_string(), "f32[N, 3, 2*H, W + 1]");
}

#[test]
fn field_elements_stand_for_scales() {
    let x = random_f64(&[1, 1, 2, 2], 3).to_real(Real::Field);
    let scales = vector(&[1.0, 1.0, 2.0, 0.6]).to_real(Real::Field);
    let y = run_threads_as(&Resize::nearest(), &[Some(&x), None, Some(&scales)], Real::Field).unwrap().swap_remove(0);
    assert_eq!(y.shape(), [1, 1, 4, 1]);
    let (x, y) = (x.as_slice::<Field>().unwrap(), y.as_slice::<Field>().unwrap());
    assert_eq!(y, [x[0], x[0], x[2], x[2]]);
}

#[test]
fn integers_lose_their_fraction_and_nonsense_is_refused() {
    let x = Tensor::new([2], vec![0u8, 255]).unwrap();
    let linear = op(ResizeMode::Linear, CoordinateMode::HalfPixel);
    let y = run_threads(&linear, &[Some(&x), None, Some(&vector(&[2.0]))]).unwrap();
    assert_eq!(y[0].as_slice::<u8>().unwrap(), [0, 63, 191, 255]);
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let refused = run_threads(&linear, &[Some(&x), None, Some(&vector(&[scale]))]);
        assert!(matches!(refused, Err(OpError::InputValue { .. })), "{scale}: {refused:?}");
    }
    assert!(matches!(run_threads(&linear, &[Some(&x)]), Err(OpError::MissingInput { .. })));
    let empty = vector(&[]);
    let sizes = Tensor::vector(vec![3i64]);
    let y = run_threads(&linear, &[Some(&x), Some(&empty), Some(&empty), Some(&sizes)]).unwrap();
    assert_eq!(y[0].shape(), [3]);
}
