//! Two graphs on the same inputs.

use std::collections::BTreeSet;

use convc::{ir::Graph, lower::lower};
use convc_runtime::{
    Bindings, Dim,
    session::{Session, SessionOptions},
};

use crate::{
    oracle::{self, Number},
    random::Rng,
};

/// Values of the graph's symbols to try; a single empty list if it has none. `N` stays small.
#[must_use]
pub fn bindings(graph: &Graph, seed: u64) -> Vec<Bindings> {
    let symbols: BTreeSet<_> = graph
        .inputs()
        .into_iter()
        .filter_map(|v| graph.fact(v))
        .flat_map(|f| f.shape.iter().flat_map(Dim::symbols).collect::<Vec<_>>())
        .collect();
    if symbols.is_empty() {
        return vec![Bindings::new()];
    }
    let mut rng = Rng::new(seed);
    // The last ones are large enough for most windows.
    let size =
        |s: &str, least: i64, rng: &mut Rng| if s == "N" { rng.range(1, 3) } else { rng.range(least, least + 6) };
    let least = [1, 1, 1, 3, 6];
    least.iter().map(|&least| symbols.iter().map(|s| (s.clone(), size(s, least, &mut rng))).collect()).collect()
}

/// Runs `rewritten` in a session against the oracle's value of `original`, on several sizes and random inputs. Returns on how
/// many sizes the original ran.
///
/// # Errors
/// Where they differ.
pub fn agree<S: Number>(original: &Graph, rewritten: &Graph, seed: u64, tolerance: f64) -> Result<usize, String> {
    let plan = lower(rewritten).map_err(|e| e.to_string())?;
    let options = SessionOptions { real: S::REAL, ..SessionOptions::default() };
    let session = Session::new(plan.into(), options).map_err(|e| e.to_string())?;
    let mut tried = 0;
    for b in bindings(original, seed) {
        let inputs = oracle::random_inputs(original, &b, seed);
        let Ok(expected) = oracle::run::<S>(original, &inputs) else { continue };
        let found = session.run(&inputs).map_err(|e| format!("with {b:?}: {e}"))?;
        oracle::compare(&expected, &found, tolerance).map_err(|e| format!("with {b:?}: {e}"))?;
        tried += 1;
    }
    Ok(tried)
}
