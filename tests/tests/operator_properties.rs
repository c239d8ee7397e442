//! What the compiler claims of operators, against what they compute on random operands.

use std::collections::BTreeSet;

use convc::ops::{
    properties,
    properties::{Movement, Nonnegative, Operands, Properties},
};
use convc_runtime::{DType, Element, Op, Real, Tensor, ops::RunCx, scalar::Field, scalar::Scalar, sys::Pool};
use convc_tests::{
    operators::{Operand, Sample, samples},
    random::Rng,
};

const CASES: u64 = 12;

/// Random elements: multiples of a quarter, small integers, both zeros among them.
fn tensor(rng: &mut Rng, dtype: &str, shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    let mut each = |low: i64, high: i64| (0..n).map(|_| rng.range(low, high)).collect::<Vec<i64>>();
    let made = match dtype {
        "f32" => {
            let v = each(-12, 12).into_iter().map(|v| if v == 0 { -0.0 } else { v as f32 / 4.0 }).collect();
            Tensor::new(shape, v)
        }
        "+f32" => Tensor::new(shape, each(1, 12).into_iter().map(|v| v as f32 / 4.0).collect()),
        "i64" => Tensor::new(shape, each(-9, 9)),
        "i32" => Tensor::new(shape, each(-9, 9).into_iter().map(|v| v as i32).collect()),
        "u8" => Tensor::new(shape, each(1, 7).into_iter().map(|v| v as u8).collect()),
        "bool" => Tensor::new(shape, each(0, 1).into_iter().map(|v| v == 1).collect()),
        other => panic!("no random {other}"),
    };
    made.expect("as many elements")
}

fn draw(rng: &mut Rng, sample: &Sample) -> Vec<Option<Tensor>> {
    let each = sample.operands.iter().map(|o| match o {
        Operand::Hole => None,
        Operand::Fixed(t) => Some(t.clone()),
        Operand::Any(dtype, shape) => Some(tensor(rng, dtype, shape)),
    });
    each.collect()
}

fn run(op: &Op, operands: &[Option<Tensor>], real: Real) -> Option<Tensor> {
    let pool = Pool::new(1);
    let operands: Vec<Option<&Tensor>> = operands.iter().map(Option::as_ref).collect();
    op.run(&operands, &RunCx { max_elements: 1 << 20, ..RunCx::new(real, &pool) }).ok()?.into_iter().next()
}

/// The result in f64; booleans count as 0 and 1.
fn numbers(t: &Tensor) -> Vec<f64> {
    match t.as_slice::<bool>() {
        Some(v) => v.iter().map(|&b| f64::from(u8::from(b))).collect(),
        None => t.to_f64s().or_else(|| Some(t.to_i64s()?.into_iter().map(|v| v as f64).collect())).expect("numbers"),
    }
}

fn evaluate(op: &Op, operands: &[Option<Tensor>]) -> Option<Vec<f64>> {
    let operands: Vec<Option<Tensor>> = operands.iter().map(|o| o.as_ref().map(|t| t.to_real(Real::F64))).collect();
    run(op, &operands, Real::F64).map(|t| numbers(&t))
}

fn is_float(sample: &Sample, i: usize) -> bool {
    matches!(&sample.operands.get(i), Some(Operand::Any("f32", _)))
}

/// The sets that a claim names, down to the operands that the sample has; without those it says nothing of.
fn sets(of: Operands, sample: &Sample) -> Vec<Vec<usize>> {
    let count = sample.operands.len();
    let given = |i: usize| sample.operands.get(i).is_some_and(|o| !matches!(o, Operand::Hole));
    match of {
        Operands::None => Vec::new(),
        Operands::Sets(sets) => {
            let first = sets.iter().filter(|set| given(set[0]));
            first.map(|set| set.iter().copied().filter(|&i| given(i)).collect()).collect()
        }
        Operands::All => vec![(0..count).collect()],
        Operands::Each => (0..count).map(|i| vec![i]).collect(),
    }
}

/// `operands` with those of `set` changed by `f`.
fn changed(operands: &[Option<Tensor>], set: &[usize], mut f: impl FnMut(&Tensor) -> Tensor) -> Vec<Option<Tensor>> {
    let each = operands.iter().enumerate();
    each.map(|(i, o)| o.as_ref().map(|t| if set.contains(&i) { f(t) } else { t.clone() })).collect()
}

fn map<T: Element, U: Element>(t: &Tensor, f: impl FnMut(&T) -> U) -> Tensor {
    let v = t.as_slice::<T>().expect("elements of this type").iter().map(f).collect();
    Tensor::new(t.shape(), v).expect("as many elements")
}

fn to_field(operands: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
    operands.iter().map(|o| o.as_ref().map(|t| t.to_real(Real::Field))).collect()
}

/// Whether `f(a x + b y) = a f(x) + b f(y)` in the field, where a, b, x and y are random.
fn is_linear(rng: &mut Rng, sample: &Sample, set: &[usize]) -> Option<bool> {
    let mut element = || Field::from_f64(rng.range(-1_000_000, 1_000_000) as f64 / 8.0);
    let (a, b) = (element(), element());
    let rest = to_field(&draw(rng, sample));
    let mut scatter = |t: &Tensor| map(t, |_: &Field| Field::from_f64(rng.range(-1_000_000, 1_000_000) as f64 / 8.0));
    let (x, y) = (changed(&rest, set, &mut scatter), changed(&rest, set, &mut scatter));
    let combined: Vec<Option<Tensor>> = rest
        .iter()
        .enumerate()
        .map(|(i, o)| {
            let (true, Some(_), Some(x), Some(y)) = (set.contains(&i), o, &x[i], &y[i]) else { return o.clone() };
            let (x, y) = (x.as_slice::<Field>()?, y.as_slice::<Field>()?);
            let v = x.iter().zip(y).map(|(x, y)| a.mul(*x).add(b.mul(*y))).collect();
            Tensor::new(o.as_ref()?.shape(), v).ok()
        })
        .collect();
    let of = |operands: &[Option<Tensor>]| run(&sample.op, operands, Real::Field);
    let (fx, fy, f) = (of(&x)?, of(&y)?, of(&combined)?);
    let (fx, fy, f) = (fx.as_slice::<Field>()?, fy.as_slice::<Field>()?, f.as_slice::<Field>()?);
    Some(f.iter().zip(fx.iter().zip(fy)).all(|(f, (x, y))| *f == a.mul(*x).add(b.mul(*y))))
}

fn describe(sample: &Sample) -> String {
    format!("{} {:?} on {:?}", sample.op.name(), sample.op.to_attrs(), sample.operands)
}

fn for_each(mut check: impl FnMut(&mut Rng, &Sample, &Properties)) {
    for (i, sample) in samples().iter().enumerate() {
        for case in 0..CASES {
            let mut rng = Rng::new(case * 1000 + i as u64);
            check(&mut rng, sample, &properties(&sample.op));
        }
    }
}

#[test]
fn every_operator_has_a_sample_that_runs() {
    let mut missing: BTreeSet<&str> = Op::names().into_iter().collect();
    for sample in samples() {
        missing.remove(sample.op.name());
        let operands = draw(&mut Rng::new(1), &sample);
        let pool = Pool::new(1);
        let operands: Vec<Option<&Tensor>> = operands.iter().map(Option::as_ref).collect();
        let result = sample.op.run(&operands, &RunCx { max_elements: 1 << 20, ..RunCx::new(Real::Native, &pool) });
        assert!(result.is_ok(), "{}: {:?}", describe(&sample), result.err());
    }
    assert!(missing.is_empty(), "operators without a sample in tests/src/operators.rs: {missing:?}");
}

#[test]
fn linear_in_the_operands_that_are_named() {
    for_each(|rng, sample, claimed| {
        for set in sets(claimed.linear, sample).iter().filter(|set| set.iter().all(|&i| is_float(sample, i))) {
            let holds = is_linear(rng, sample, set);
            assert_eq!(holds, Some(true), "{} is not linear in operands {set:?}", describe(sample));
        }
    });
}

#[test]
fn zeros_make_zeros() {
    for_each(|rng, sample, claimed| {
        for set in sets(claimed.zeros, sample) {
            let zero = |t: &Tensor| match t.dtype() {
                DType::F32 => map(t, |v: &f32| v * 0.0),
                DType::I32 => map(t, |_: &i32| 0),
                DType::I64 => map(t, |_: &i64| 0),
                DType::U8 => map(t, |_: &u8| 0),
                other => panic!("no zeros of {other}"),
            };
            let operands = changed(&draw(rng, sample), &set, zero);
            let y = run(&sample.op, &operands, Real::Native).expect("it runs");
            let zeros = numbers(&y).iter().all(|&v| v == 0.0);
            assert!(zeros, "{}: not 0 where operands {set:?} are", describe(sample));
        }
    });
}

#[test]
fn no_element_is_negative() {
    for_each(|rng, sample, claimed| {
        let sets = match claimed.nonnegative {
            Nonnegative::Always => vec![Vec::new()],
            Nonnegative::Where(operands) => sets(operands, sample),
        };
        for set in sets.iter().filter(|set| set.iter().all(|&i| is_float(sample, i))) {
            let operands = changed(&draw(rng, sample), set, |t| map(t, |v: &f32| v.abs()));
            let y = run(&sample.op, &operands, Real::Native).expect("it runs");
            let negative = numbers(&y).iter().any(|&v| v < 0.0);
            assert!(!negative, "{}: negative where operands {set:?} are not", describe(sample));
        }
    });
}

#[test]
fn larger_operands_make_no_smaller_results() {
    for_each(|rng, sample, claimed| {
        if !claimed.monotone || !is_float(sample, 0) {
            return;
        }
        let x = draw(rng, sample);
        let y = changed(&x, &[0], |t| map(t, |v: &f32| v + rng.range(0, 8) as f32 / 4.0));
        let (fx, fy) = (evaluate(&sample.op, &x).expect("it runs"), evaluate(&sample.op, &y).expect("it runs"));
        let smaller = fx.iter().zip(&fy).any(|(a, b)| *b < *a - 1e-9 * (1.0 + a.abs()));
        assert!(!smaller, "{} is not monotone: {fx:?}, {fy:?}", describe(sample));
    });
}

#[test]
fn operands_may_change_places() {
    for_each(|rng, sample, claimed| {
        if !claimed.commutative {
            return;
        }
        let x = draw(rng, sample);
        let mut y = x.clone();
        y.reverse();
        let (fx, fy) = (run(&sample.op, &x, Real::Native), run(&sample.op, &y, Real::Native));
        let bits =
            |t: Option<Tensor>| numbers(&t.expect("it runs")).into_iter().map(f64::to_bits).collect::<Vec<u64>>();
        assert_eq!(bits(fx), bits(fy), "{}", describe(sample));
    });
}

#[test]
fn elements_at_other_places_do_not_matter() {
    let reversed = |t: &Tensor| match t.dtype() {
        _ if t.rank() == 0 => t.clone(),
        DType::Bool => Tensor::new(t.shape(), t.as_slice::<bool>().unwrap().iter().rev().copied().collect()).unwrap(),
        DType::F32 => Tensor::new(t.shape(), t.as_slice::<f32>().unwrap().iter().rev().copied().collect()).unwrap(),
        DType::I32 => Tensor::new(t.shape(), t.as_slice::<i32>().unwrap().iter().rev().copied().collect()).unwrap(),
        DType::I64 => Tensor::new(t.shape(), t.as_slice::<i64>().unwrap().iter().rev().copied().collect()).unwrap(),
        DType::U8 => Tensor::new(t.shape(), t.as_slice::<u8>().unwrap().iter().rev().copied().collect()).unwrap(),
        other => panic!("no {other} to reverse"),
    };
    for_each(|rng, sample, claimed| {
        if !claimed.elementwise {
            return;
        }
        let x = draw(rng, sample);
        let y: Vec<Option<Tensor>> = x.iter().map(|o| o.as_ref().map(reversed)).collect();
        let of = |x: &[Option<Tensor>]| Some(numbers(&run(&sample.op, x, Real::Native)?));
        // An integer that is divided by 0 is no number.
        let (Some(fx), Some(mut fy)) = (of(&x), of(&y)) else { return };
        fy.reverse();
        let bits = |v: Vec<f64>| v.into_iter().map(f64::to_bits).collect::<Vec<u64>>();
        assert_eq!(bits(fx), bits(fy), "{}", describe(sample));
    });
}

#[test]
fn elements_are_moved_as_is_said() {
    for_each(|rng, sample, claimed| {
        if claimed.movement == Movement::Computes {
            return;
        }
        // Every element of a floating-point operand is another one.
        let mut next = rng.range(1, 100) as f32;
        let mut fresh = |t: &Tensor| {
            map(t, |_: &f32| {
                next += 1.0;
                next
            })
        };
        let floats: Vec<usize> = (0..sample.operands.len()).filter(|&i| is_float(sample, i)).collect();
        let operands = changed(&draw(rng, sample), &floats, &mut fresh);
        let from = |i: usize| operands[i].as_ref().map(numbers).unwrap_or_default();
        let y = numbers(&run(&sample.op, &operands, Real::Native).expect("it runs"));
        let sorted = |mut v: Vec<f64>| {
            v.sort_by(f64::total_cmp);
            v
        };
        let mut all: Vec<f64> = floats.iter().flat_map(|&i| from(i)).collect();
        let holds = match claimed.movement {
            Movement::Computes => true,
            Movement::View => y == from(0),
            Movement::Permutes => sorted(y) == sorted(from(0)),
            Movement::Picks => y.iter().all(|v| from(0).contains(v)),
            Movement::Pads => {
                all.push(0.0);
                y.iter().all(|v| all.contains(v))
            }
            Movement::Joins => y.iter().all(|v| all.contains(v)),
        };
        assert!(holds, "{} does not move elements as {:?}", describe(sample), claimed.movement);
    });
}

/// Whether the result changes by much more than the operands, somewhere at multiples of a quarter.
fn jumps(rng: &mut Rng, sample: &Sample) -> bool {
    let floats: Vec<usize> = (0..sample.operands.len()).filter(|&i| is_float(sample, i)).collect();
    let x = draw(rng, sample);
    let Some(fx) = evaluate(&sample.op, &x) else { return false };
    (0..4).any(|_| {
        let near = |t: &Tensor| map(t, |v: &f32| v + rng.pick(&[-1.0, 0.0, 1.0]) * 2f32.powi(-21));
        let Some(fy) = evaluate(&sample.op, &changed(&x, &floats, near)) else { return false };
        // Beyond the edge of a function's domain, and at a pole, there is nothing to compare.
        let far = |(a, b): (&f64, &f64)| a.is_finite() && b.is_finite() && (a - b).abs() > 1e-3 * (1.0 + a.abs());
        fx.len() != fy.len() || fx.iter().zip(&fy).any(far)
    })
}

#[test]
fn what_does_not_jump_changes_little() {
    for_each(|rng, sample, claimed| {
        assert!(claimed.jumps || !jumps(rng, sample), "{} jumps", describe(sample));
    });
}

/// What holds on all random operands and is not claimed. Nothing is wrong with that, but it may be worth a claim.
#[test]
fn what_could_be_claimed() {
    for sample in samples() {
        let claimed = properties(&sample.op);
        let name = sample.op.name();
        let mut rng = Rng::new(7);
        for i in (0..sample.operands.len()).filter(|&i| is_float(&sample, i)) {
            let known = sets(claimed.linear, &sample).iter().any(|set| set.contains(&i));
            if !known && (0..3).all(|_| is_linear(&mut rng, &sample, &[i]) == Some(true)) {
                println!("{name} is linear in operand {i}");
            }
        }
        if claimed.jumps && !(0..40).any(|case| jumps(&mut Rng::new(case), &sample)) {
            println!("{name} does not jump on {:?}", sample.operands);
        }
    }
}
