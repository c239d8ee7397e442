//! The laws of the join, on random facts that agree and on such that do not.

use convc_runtime::Tensor;

use super::*;

/// A sequence of numbers that depends on its seed alone.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// A size by its text, in which `k` and `l` are sizes that only the data decides.
fn of_text(text: &str) -> Dim {
    let of_data = ["k", "l"].map(|s| (s.into(), Dim::symbol(format!("?{s}"))));
    Dim::parse(text).unwrap().substitute(&of_data.into())
}

/// One of few sizes, so that facts meet.
fn dim(rng: &mut Rng) -> Dim {
    const TEXTS: &[&str] =
        &["1", "2", "3", "N", "H", "N*H", "2*N", "N + 1", "floor(H/2)", "max(0, H - 2)", "k", "k + N", "l"];
    of_text(TEXTS[rng.below(TEXTS.len())])
}

fn known(rng: &mut Rng, dtype: DType) -> Option<Known> {
    let n = 1 + rng.below(2);
    match (rng.below(3), dtype) {
        (0, _) => None,
        (1, DType::I64) => Some(Known::Dims((0..n).map(|_| dim(rng)).collect())),
        (_, DType::I64) => Some(Known::Constant(Tensor::vector((0..n).map(|_| rng.below(3) as i64).collect()))),
        _ => {
            const FLOATS: &[f32] = &[0.0, -0.0, 1.0, f32::NAN, f32::INFINITY];
            Some(Known::Constant(Tensor::vector((0..n).map(|_| FLOATS[rng.below(FLOATS.len())]).collect())))
        }
    }
}

fn fact(rng: &mut Rng) -> Option<Fact> {
    if rng.below(12) == 0 {
        return None;
    }
    let dtype = if rng.below(4) == 0 { DType::F32 } else { DType::I64 };
    let rank = if rng.below(6) == 0 { 1 } else { 2 };
    let shape: Vec<Dim> = (0..rank).map(|_| dim(rng)).collect();
    Some(Fact { known: known(rng, dtype), ..Fact::new(dtype, shape) })
}

fn joined(a: &Option<Fact>, b: &Option<Fact>) -> (Option<Fact>, Joined) {
    let mut out = a.clone();
    let how = join(&mut out, b.clone());
    (out, how)
}

/// Facts compare by what their text is: a NaN is itself.
fn text(f: &Option<Fact>) -> String {
    format!("{f:?}")
}

#[test]
fn the_laws_of_a_join_hold() {
    let mut rng = Rng(1);
    for _ in 0..20_000 {
        let (a, b, c) = (fact(&mut rng), fact(&mut rng), fact(&mut rng));
        let (ab, how) = joined(&a, &b);
        let (ba, back) = joined(&b, &a);
        assert_eq!(text(&ab), text(&ba), "commutative: {a:?} and {b:?}");
        assert_eq!((how.left, how.right, how.conflict), (back.right, back.left, back.conflict), "{a:?} and {b:?}");
        assert_eq!(how.left, text(&ab) != text(&a), "what changed on the left: {a:?} and {b:?}");
        assert_eq!(how.right, text(&ab) != text(&b), "what changed on the right: {a:?} and {b:?}");
        assert_eq!(joined(&a, &a).1, Joined::default(), "idempotent: {a:?}");
        let bc = joined(&b, &c).0;
        assert_eq!(text(&joined(&ab, &c).0), text(&joined(&a, &bc).0), "associative: {a:?}, {b:?}, {c:?}");
        // Monotone: what a joined with b stands below, a stands below.
        let (ac, abc) = (joined(&a, &c).0, joined(&ab, &c).0);
        assert_eq!(text(&joined(&ac, &abc).0), text(&abc), "monotone: {a:?}, {b:?}, {c:?}");
        for part in [&a, &b] {
            assert!(!joined(&ab, part).1.left, "an old fact came back: {part:?} into {ab:?}");
        }
    }
}

#[test]
fn a_chain_of_joins_ends() {
    let mut rng = Rng(2);
    for _ in 0..200 {
        let (mut fact_of_class, mut changes) = (None, 0);
        for _ in 0..500 {
            changes += usize::from(join(&mut fact_of_class, fact(&mut rng)).left);
        }
        assert!(changes < 40, "{changes} changes");
    }
}

#[test]
fn facts_that_exclude_each_other_are_a_conflict() {
    let of = |shape: &[&str]| Some(Fact::new(DType::F32, shape.iter().map(|d| of_text(d)).collect::<Vec<_>>()));
    let conflict = |a: &[&str], b: &[&str]| joined(&of(a), &of(b)).1.conflict;
    assert!(conflict(&["2", "N"], &["3", "N"]));
    assert!(conflict(&["N"], &["N + 1"]));
    assert!(conflict(&["N"], &["N", "1"]));
    assert!(!conflict(&["N", "4"], &["3", "H"]));
    let ints = |v: &[i64]| Some(Fact::of(&Tensor::vector(v.to_vec())));
    assert!(joined(&ints(&[1, 2]), &ints(&[1, 3])).1.conflict);
    assert!(joined(&ints(&[1]), &Some(Fact::fixed(DType::I32, &[1]))).1.conflict);
    assert!(!joined(&ints(&[1, 2]), &Some(Fact::fixed(DType::I64, &[2]))).1.conflict);
}

/// Each axis and each element is kept from the fact that says it best.
#[test]
fn the_best_of_both_is_kept() {
    let dims = |texts: &[&str]| texts.iter().map(|d| of_text(d)).collect::<Vec<_>>();
    let a = Some(Fact::new(DType::I64, dims(&["2"])).with_dims(dims(&["4", "H"])));
    let b = Some(Fact::new(DType::I64, dims(&["2"])).with_dims(dims(&["N", "5"])));
    assert_eq!(joined(&a, &b).0.and_then(|f| f.i64s()), Some(vec![4, 5]));
    let (a, b) = (Fact::new(DType::F32, dims(&["N", "3"])), Fact::new(DType::F32, dims(&["2", "k"])));
    assert_eq!(joined(&Some(a), &Some(b)).0.and_then(|f| f.fixed_shape()), Some(vec![2, 3]));
}
