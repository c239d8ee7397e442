//! Time per instruction.

use std::{collections::BTreeMap, time::Duration};

use convc_runtime::plan::{Action, Instruction};

/// Times of instructions, summed over runs.
#[derive(Default)]
pub(crate) struct Profile {
    order: Vec<(String, String)>,
    times: BTreeMap<(String, String), (Duration, usize)>,
}

/// One line of a profile.
#[derive(serde::Serialize)]
pub(crate) struct Row {
    name: String,
    operator: String,
    calls: usize,
    total_ms: f64,
    share: f64,
}

impl Profile {
    /// Adds one execution of an instruction.
    pub(crate) fn add(&mut self, step: &Instruction, time: Duration) {
        let operator = match &step.action {
            Action::Op(op) => op.name(),
            Action::If { .. } => "If",
        };
        let key = (step.name.clone(), operator.to_owned());
        let entry = self.times.entry(key.clone()).or_insert_with(|| {
            self.order.push(key);
            (Duration::ZERO, 0)
        });
        entry.0 += time;
        entry.1 += 1;
    }

    /// The lines, the longest first.
    pub(crate) fn rows(&self) -> Vec<Row> {
        // An If's time is that of instructions which are here themselves.
        let whole: f64 = self.times.iter().filter(|(k, _)| k.1 != "If").map(|(_, t)| t.0.as_secs_f64()).sum();
        let mut rows: Vec<Row> = self
            .order
            .iter()
            .filter_map(|key| {
                let (time, calls) = *self.times.get(key)?;
                let total = time.as_secs_f64();
                let share = if whole > 0.0 { total / whole } else { 0.0 };
                Some(Row { name: key.0.clone(), operator: key.1.clone(), calls, total_ms: total * 1e3, share })
            })
            .collect();
        rows.sort_by(|a, b| b.total_ms.total_cmp(&a.total_ms));
        rows
    }

    /// The lines as text.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{:>10}  {:>6}  {:>6}  {:<20}  node\n", "ms", "share", "calls", "operator");
        for r in self.rows() {
            let share = format!("{:.1}%", r.share * 100.0);
            text.push_str(&format!(
                "{:>10.3}  {share:>6}  {:>6}  {:<20}  {}\n",
                r.total_ms, r.calls, r.operator, r.name
            ));
        }
        text
    }
}
