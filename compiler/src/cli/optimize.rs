//! `convc optimize`

use std::{collections::BTreeMap, path::PathBuf};

use clap::{Args, ValueEnum};
use convc::{
    ir::{Graph, Kind},
    onnx::{self, ExportOptions, WriteError},
    rewrite::{Dialect, Rewritten, cost::PORTABLE},
    trace::{Meta, Trace, html},
    verify,
};
use serde_json::json;

use super::{
    Failure, Say,
    model::{self, LimitArgs},
    rewriting::{Done, RewriteArgs, VerifyArgs, rewrite, rewrite_failure},
    say::{print, print_json, visible},
    trace,
};

/// Rewrite a model into less work that computes the same, verify it, and write it as standard ONNX
#[derive(Args)]
pub(crate) struct Optimize {
    /// The ONNX model
    model: PathBuf,
    /// Where the result goes; the default is beside the model, with the extension .opt.onnx
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Record every step
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Write a page that shows every step
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    rewriting: RewriteArgs,
    #[command(flatten)]
    verification: VerifyArgs,
    /// How the operators of domain ai.convc are written: as ONNX's own, or as they are
    #[arg(long, value_enum, default_value_t = DialectArg::Onnx)]
    dialect: DialectArg,
    /// Write weights to a file of their own beside the model
    #[arg(long)]
    external_data: bool,
    /// Write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum DialectArg {
    Onnx,
    Convc,
}

pub(crate) fn run(args: &Optimize, say: Say) -> Result<(), Failure> {
    let output = args.output.clone().unwrap_or_else(|| model::beside(&args.model, "opt.onnx"));
    for file in args.trace.iter().chain(&args.report).chain([&output]) {
        model::refuse_overwrite(&args.model, file)?;
    }
    let mut model = model::load_onnx(&args.model, &args.limits.limits())?;
    let dialect = match args.dialect {
        DialectArg::Onnx => Dialect::Onnx,
        DialectArg::Convc => Dialect::Convc,
    };
    let graph = std::mem::take(&mut model.graph);
    let Done { original, rewritten, options: rewriting, report } =
        rewrite(graph, (&PORTABLE, dialect, Some(model.opset)), &args.rewriting, &args.verification, say)?;
    for (name, why) in &rewritten.kept {
        say.note(&format!("{name:?} stays an operator of domain ai.convc: {why}"));
    }
    model.graph = rewritten.graph.clone();
    let options = ExportOptions { external_data: args.external_data, origins: true, ..ExportOptions::default() };
    let written = if args.dry_run {
        onnx::export(&model, &options).map_err(write_failure)?.written
    } else {
        onnx::save(&model, &output, &options).map_err(write_failure)?.written
    };
    if (args.trace.is_some() || args.report.is_some()) && !args.dry_run {
        let model_sha256 = Some(trace::sha256_of(&args.model)?);
        let meta = Meta { model_sha256, options: &rewriting, original: &original, written: &written };
        let record = Trace::from_rewritten(&rewritten, &meta).map_err(rewrite_failure)?;
        if let Some(path) = &args.trace {
            trace::save(path, |out| record.write(out))?;
        }
        if let Some(path) = &args.report {
            let name = args.model.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
            trace::save(path, |out| out.write_all(html(&record, &name).as_bytes()))?;
        }
    }
    let summary = Summary::new(&original, &rewritten);
    if args.json {
        let written = (!args.dry_run).then(|| output.display().to_string());
        return print_json(
            "optimize",
            json!({
                "output": written,
                "nodes_before": summary.total(0),
                "nodes_after": summary.total(1),
                "operators": summary.operators,
                "rules": summary.rules,
                "not_fired": summary.not_fired,
                "verified": report,
            }),
        );
    }
    let where_to =
        if args.dry_run { "nothing is written (--dry-run)".into() } else { format!("written to {}", output.display()) };
    print(&visible(&format!("{}{}\n", summary.text(report.as_ref()), where_to)))
}

fn write_failure(e: WriteError) -> Failure {
    match e {
        WriteError::Io { ref path, ref source } => Failure::io(path, source),
        WriteError::TooLarge { .. } => Failure::limit(e),
        _ => Failure::internal(e),
    }
}

/// What changed, for people.
struct Summary {
    /// Operator: how many before and after.
    operators: BTreeMap<String, [usize; 2]>,
    /// Rule: how often it was used.
    rules: BTreeMap<String, usize>,
    /// Rule, condition and reason: how often, and a node.
    not_fired: Vec<NotFiredRow>,
}

#[derive(serde::Serialize)]
struct NotFiredRow {
    rule: String,
    condition: String,
    reason: String,
    count: usize,
    at: Option<String>,
}

impl Summary {
    fn new(before: &Graph, r: &Rewritten) -> Summary {
        let mut operators: BTreeMap<String, [usize; 2]> = BTreeMap::new();
        for (side, graph) in [before, &r.graph].into_iter().enumerate() {
            for id in graph.nodes() {
                let kind = &graph.node(id).kind;
                if !matches!(kind, Kind::Input | Kind::Constant(_)) {
                    operators.entry(kind.name().to_owned()).or_default()[side] += 1;
                }
            }
        }
        let mut rules: BTreeMap<String, usize> = BTreeMap::new();
        for s in &r.steps {
            *rules.entry(s.rule.clone()).or_default() += 1;
        }
        let mut rows: Vec<NotFiredRow> = Vec::new();
        for n in &r.not_fired {
            match rows.iter_mut().find(|x| (&x.rule, &x.condition, &x.reason) == (&n.rule, &n.condition, &n.reason)) {
                Some(row) => row.count += 1,
                None => rows.push(NotFiredRow {
                    rule: n.rule.clone(),
                    condition: n.condition.clone(),
                    reason: n.reason.clone(),
                    count: 1,
                    at: n.origins.first().map(ToString::to_string),
                }),
            }
        }
        // Conditions that merely say "this is another pattern" come last.
        rows.sort_by_key(|r| (r.condition != "border-exact", r.rule.clone(), std::cmp::Reverse(r.count)));
        Summary { operators, rules, not_fired: rows }
    }

    fn total(&self, side: usize) -> usize {
        self.operators.values().map(|c| c[side]).sum()
    }

    fn text(&self, verified: Option<&verify::Report>) -> String {
        let mut out = format!("{:<28}{:>8}{:>8}\n", "operator", "before", "after");
        for (name, [before, after]) in &self.operators {
            let mark = if before == after { "" } else { "  *" };
            out += &format!("{name:<28}{before:>8}{after:>8}{mark}\n");
        }
        out += &format!("{:<28}{:>8}{:>8}\n", "all", self.total(0), self.total(1));
        if !self.rules.is_empty() {
            out += "\nrules used:\n";
            for (rule, n) in &self.rules {
                out += &format!("{n:>6}  {rule}\n");
            }
        }
        let told: Vec<&NotFiredRow> = self.not_fired.iter().filter(|r| r.condition == "border-exact").take(8).collect();
        if !told.is_empty() {
            out += "\nleft alone:\n";
            for r in told {
                let at = r.at.as_deref().unwrap_or("?");
                out += &format!("{:>6}  {} at {at:?}: {}\n", r.count, r.rule, r.reason);
            }
        }
        match verified {
            Some(v) if v.not_run.is_none() => {
                let worst = v.outputs.iter().filter_map(|d| d.max_abs).fold(0.0, f64::max);
                out += &format!(
                    "\nverified: {} regions in f64, {} outputs in f32 (largest difference {worst:.1e})\n",
                    v.regions.len(),
                    v.outputs.len()
                );
                out += &bindings_text(v);
            }
            Some(v) => out += &format!("\nverified: {} regions in f64; the whole was not run\n", v.regions.len()),
            None => out += "\nnot verified\n",
        }
        out
    }
}

/// At which sizes a model was verified, a few of them by name.
fn bindings_text(report: &verify::Report) -> String {
    const NAMED: usize = 4;
    let mut out = String::new();
    let (skipped, checked): (Vec<_>, Vec<_>) = report.bindings.iter().partition(|b| b.skipped.is_some());
    if checked.iter().any(|b| !b.sizes.is_empty()) {
        for b in checked.iter().take(NAMED) {
            out += &format!("  at {} ({})\n", b.sizes_text(), b.why);
        }
        if checked.len() > NAMED {
            out += &format!("  and at {} other sizes (-v names them)\n", checked.len() - NAMED);
        }
    }
    if let Some(first) = skipped.first() {
        let why = first.skipped.as_deref().unwrap_or_default();
        out += &format!(
            "  not at {} sizes where the original does not run: {}: {why}\n",
            skipped.len(),
            first.sizes_text()
        );
    }
    if report.left_out > 0 {
        out += &format!("  not at {} sizes that need too many operations\n", report.left_out);
    }
    if checked.iter().any(|b| b.zeros) {
        out += "  with integer inputs that are all 0, since the original runs with no others\n";
    }
    out
}
