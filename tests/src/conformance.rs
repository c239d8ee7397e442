//! The node cases of the package `onnx`, as `tests/conformance/generate.py` writes them: each is imported, lowered and run,
//! and its outputs are held against those of ONNX's reference.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use convc::{
    lower::lower,
    onnx::{Limits, OnnxError, import, read_tensor_file},
};
use convc_runtime::{
    DType, OpError, Tensor, TensorError,
    session::{RunError, Session, SessionOptions},
};

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Every output is the reference's.
    Pass,
    /// It ran, and an output is not the reference's.
    Wrong(String),
    /// convc says that it does not execute it, and names what.
    Refused(String),
    /// A legal model was rejected, or stopped with an error while it ran.
    Failed(String),
    /// convc panicked.
    Panic(String),
}

impl Outcome {
    /// One word for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Wrong(_) => "wrong",
            Outcome::Refused(_) => "refused",
            Outcome::Failed(_) => "failed",
            Outcome::Panic(_) => "panic",
        }
    }

    /// What is wrong; empty for a pass.
    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Outcome::Pass => "",
            Outcome::Wrong(s) | Outcome::Refused(s) | Outcome::Failed(s) | Outcome::Panic(s) => s,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.word(), if self == &Outcome::Pass { "" } else { ": " }, self.detail())
    }
}

/// How far a number may be from the reference: `atol + rtol * |reference|`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// In absolute terms.
    pub atol: f64,
    /// In terms of the reference.
    pub rtol: f64,
}

/// Runs the case in `folder`.
///
/// # Errors
/// If the files of the case cannot be read.
pub fn run_case(folder: &Path) -> io::Result<Outcome> {
    let tolerance = tolerance(&folder.join("tolerance.json"))?;
    let outcome = catch_unwind(AssertUnwindSafe(|| attempt(folder, tolerance)));
    Ok(match outcome {
        Ok(Ok(())) => Outcome::Pass,
        Ok(Err(outcome)) => outcome,
        Err(payload) => {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            Outcome::Panic(text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("of an unknown kind").to_owned())
        }
    })
}

fn tolerance(path: &Path) -> io::Result<Tolerance> {
    let value: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    match (value["atol"].as_f64(), value["rtol"].as_f64()) {
        (Some(atol), Some(rtol)) => Ok(Tolerance { atol, rtol }),
        _ => Err(io::Error::other(format!("{} lacks atol or rtol", path.display()))),
    }
}

fn attempt(folder: &Path, tolerance: Tolerance) -> Result<(), Outcome> {
    let model = import(&folder.join("model.onnx"), &Limits::default()).map_err(|e| match e {
        OnnxError::Model(problem) if problem.problem.contains("is the oldest that convc reads") => {
            Outcome::Refused(problem.to_string())
        }
        e => Outcome::Failed(format!("import: {e}")),
    })?;
    convc::ir::verify(&model.graph).map_err(|e| Outcome::Failed(format!("import leaves a broken graph: {e}")))?;
    let plan = lower(&model.graph).map_err(|e| Outcome::Refused(e.to_string()))?;
    let mut inputs = BTreeMap::new();
    for (k, port) in plan.inputs.iter().enumerate() {
        inputs.insert(port.name.clone(), read(folder, "input", k)?);
    }
    let count = plan.outputs.len();
    let failed = |e: RunError| match &e {
        // The declared types of a model never say so: only an operator's `run` can.
        RunError::Op { source: OpError::Unsupported(_) | OpError::Tensor(TensorError::NotExecuted { .. }), .. }
        | RunError::Constant { source: TensorError::NotExecuted { .. }, .. } => Outcome::Refused(e.to_string()),
        _ => Outcome::Failed(format!("run: {e}")),
    };
    let session = Session::new(Arc::new(plan), SessionOptions::default()).map_err(failed)?;
    let outputs = session.run(&inputs).map_err(failed)?;
    if outputs.len() != count {
        return Err(Outcome::Failed(format!("{} outputs instead of {count}", outputs.len())));
    }
    for (k, got) in outputs.iter().enumerate() {
        let want = read(folder, "output", k)?;
        compare(got, &want, tolerance).map_err(|what| Outcome::Wrong(format!("output {k}: {what}")))?;
    }
    Ok(())
}

/// The `k`-th input or output of the case.
fn read(folder: &Path, role: &str, k: usize) -> Result<Tensor, Outcome> {
    if folder.join(format!("{role}_{k}.kind")).exists() {
        return Err(Outcome::Failed(format!("{role} {k} is no tensor, and nothing refused it")));
    }
    let constant = read_tensor_file(&folder.join(format!("{role}_{k}.pb")))
        .map_err(|e| Outcome::Failed(format!("{role} {k}: {e}")))?;
    constant.to_tensor().map_err(|e| Outcome::Refused(format!("{role} {k}: {e}")))
}

/// Says how `got` differs from `want` by more than `tolerance` allows: types, shapes and strings must be equal, NaN stands
/// only where NaN is wanted.
///
/// # Errors
/// The first difference.
pub fn compare(got: &Tensor, want: &Tensor, tolerance: Tolerance) -> Result<(), String> {
    if (got.dtype(), got.shape()) != (want.dtype(), want.shape()) {
        return Err(format!("{}{:?} instead of {}{:?}", got.dtype(), got.shape(), want.dtype(), want.shape()));
    }
    if let (Some(g), Some(w)) = (got.as_slice::<String>(), want.as_slice::<String>()) {
        let differ = g.iter().zip(w).position(|(g, w)| g != w);
        return differ.map_or(Ok(()), |i| Err(format!("element {i} is {:?} instead of {:?}", g[i], w[i])));
    }
    if let (Some(g), Some(w)) = (got.to_i64s(), want.to_i64s()) {
        let allowed = |w: i64| tolerance.atol + tolerance.rtol * w.unsigned_abs() as f64;
        let differ = g.iter().zip(&w).position(|(&g, &w)| g.abs_diff(w) as f64 > allowed(w));
        return differ.map_or(Ok(()), |i| Err(format!("element {i} is {} instead of {}", g[i], w[i])));
    }
    let (Some(g), Some(w)) = (got.to_f64s(), want.to_f64s()) else {
        return if got == want { Ok(()) } else { Err("the elements differ".to_owned()) };
    };
    // bfloat16 has 8 bits of precision: ONNX's own runner allows this much.
    let rtol = if want.dtype() == DType::BF16 { tolerance.rtol.max(1.0 / 64.0) } else { tolerance.rtol };
    let equal = |g: f64, w: f64| {
        g == w || (g.is_nan() && w.is_nan()) || (w.is_finite() && (g - w).abs() <= tolerance.atol + rtol * w.abs())
    };
    let differ = g.iter().zip(&w).position(|(&g, &w)| !equal(g, w));
    differ.map_or(Ok(()), |i| Err(format!("element {i} is {} instead of {}", g[i], w[i])))
}

/// What the allow-list has to say about a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Listed, and did not pass.
    pub lost: Vec<String>,
    /// Passed, and is not listed.
    pub unlisted: Vec<String>,
    /// Listed, and there is no such case.
    pub unknown: Vec<String>,
    /// Gave a wrong result or panicked, listed or not.
    pub bad: Vec<String>,
}

impl Judgement {
    /// Judges `outcomes` by the names that must pass.
    #[must_use]
    pub fn of(outcomes: &BTreeMap<String, Outcome>, listed: &BTreeSet<String>) -> Judgement {
        let mut judgement = Judgement::default();
        for (name, outcome) in outcomes {
            match (outcome, listed.contains(name)) {
                (Outcome::Pass, false) => judgement.unlisted.push(name.clone()),
                (Outcome::Pass, true) => {}
                (_, true) => judgement.lost.push(name.clone()),
                (_, false) => {}
            }
            if matches!(outcome, Outcome::Wrong(_) | Outcome::Panic(_)) {
                judgement.bad.push(name.clone());
            }
        }
        judgement.unknown = listed.iter().filter(|n| !outcomes.contains_key(*n)).cloned().collect();
        judgement
    }

    /// Whether all is as it should be.
    #[must_use]
    pub fn good(&self) -> bool {
        *self == Judgement::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Tolerance = Tolerance { atol: 1e-7, rtol: 1e-3 };

    #[test]
    fn comparison_knows_what_is_close() {
        let v = |x: f32| Tensor::vector(vec![1.0, x]);
        assert_eq!(compare(&v(2.001), &v(2.0), T), Ok(()));
        assert!(compare(&v(2.01), &v(2.0), T).is_err());
        assert_eq!(compare(&v(f32::NAN), &v(f32::NAN), T), Ok(()));
        for (got, want) in [(f32::NAN, 1.0), (1.0, f32::NAN), (f32::INFINITY, f32::NEG_INFINITY), (1.0, f32::INFINITY)]
        {
            assert!(compare(&v(got), &v(want), T).is_err(), "{got} for {want}");
        }
        assert_eq!(compare(&v(f32::INFINITY), &v(f32::INFINITY), T), Ok(()));
        assert!(compare(&v(1.0), &Tensor::vector(vec![1.0_f64, 1.0]), T).is_err());
        assert!(compare(&v(1.0), &Tensor::new([1, 2], vec![1.0_f32, 1.0]).unwrap(), T).is_err());
        let bf = |x: f32| Tensor::scalar(half::bf16::from_f32(x));
        assert_eq!(compare(&bf(1.0), &bf(1.0078), T), Ok(()));
        assert!(compare(&bf(1.0), &bf(1.03), T).is_err());
        let s = |x: &str| Tensor::scalar(x.to_owned());
        assert_eq!(compare(&s("a"), &s("a"), T), Ok(()));
        assert!(compare(&s("a"), &s("b"), T).is_err());
        assert!(compare(&Tensor::scalar(7_i64), &Tensor::scalar(8_i64), T).is_err());
        assert!(compare(&Tensor::scalar(u64::MAX), &Tensor::scalar(1_u64), T).is_err());
        assert!(compare(&Tensor::scalar(true), &Tensor::scalar(false), T).is_err());
    }

    #[test]
    fn the_list_is_held_against_both_ways() {
        let outcomes: BTreeMap<String, Outcome> = [
            ("lost", Outcome::Failed(String::new())),
            ("new", Outcome::Pass),
            ("old", Outcome::Pass),
            ("other", Outcome::Refused(String::new())),
            ("wrong", Outcome::Wrong(String::new())),
        ]
        .map(|(n, o)| (n.to_owned(), o))
        .into();
        let names = |list: &[&str]| list.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        let judgement = Judgement::of(&outcomes, &names(&["gone", "lost", "old"]).into_iter().collect());
        assert_eq!(judgement.lost, names(&["lost"]));
        assert_eq!(judgement.unlisted, names(&["new"]));
        assert_eq!(judgement.unknown, names(&["gone"]));
        assert_eq!(judgement.bad, names(&["wrong"]));
        assert!(!judgement.good());
    }
}
