//! `convc optimize`

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use convc::{
    ir::{Graph, Kind},
    lower,
    onnx::{self, ExportOptions, WriteError},
    ops,
    rewrite::{self, Fp, Options, RewriteError, Rewritten},
    trace::{Meta, Trace, html},
    verify::{self, VerifyError},
};
use convc_runtime::{
    Bindings, Dim, Symbol, Tensor,
    plan::{Plan, Port},
    session::{RunError, SessionOptions},
};
use serde_json::json;

use super::{
    Failure, Say,
    model::{self, LimitArgs, SizeArgs},
    say::{print, print_json, visible},
    tensors::{InputArgs, made_up},
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
    sizes: SizeArgs,
    #[command(flatten)]
    inputs: InputArgs,
    /// Seed of the inputs that the result is verified on
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// How the operators of domain ai.convc are written: as ONNX's own, or as they are
    #[arg(long, value_enum, default_value_t = Dialect::Onnx)]
    dialect: Dialect,
    /// Do not run the result against the original
    #[arg(long)]
    no_verify: bool,
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

/// Which rewrites are made.
#[derive(Args)]
#[command(next_help_heading = "Rewriting")]
pub(crate) struct RewriteArgs {
    /// Which inexactness is allowed: strict keeps every bit, real allows what is equal over the real numbers
    #[arg(long, value_enum, default_value_t = FpArg::Real)]
    fp: FpArg,
    /// Only these rules
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    only: Vec<String>,
    /// Not these rules
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    skip: Vec<String>,
    /// Stop after so many rewrites
    #[arg(long, value_name = "N")]
    max_rewrites: Option<usize>,
    /// How much larger the constants may become
    #[arg(long, value_name = "PERCENT", default_value = "10%", value_parser = parse_growth)]
    max_growth: f64,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Dialect {
    Onnx,
    Convc,
}

#[derive(Clone, Copy, ValueEnum)]
enum FpArg {
    Strict,
    Real,
    Fast,
}

fn parse_growth(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let percent = number.trim().parse::<f64>().ok().filter(|p| p.is_finite() && *p >= 0.0);
    percent.map(|p| p / 100.0).ok_or_else(|| format!("{text:?} is not a percentage such as 10%"))
}

impl RewriteArgs {
    /// As the rewriter takes them; `bindings` are the sizes that the cost model reckons with.
    pub(crate) fn options(&self, bindings: &Bindings) -> Options {
        Options {
            fp: match self.fp {
                FpArg::Strict => Fp::Strict,
                FpArg::Real => Fp::Real,
                FpArg::Fast => Fp::Fast,
            },
            only: self.only.clone(),
            skip: self.skip.clone(),
            max_rewrites: self.max_rewrites.unwrap_or(usize::MAX),
            max_growth: self.max_growth,
            nominal: bindings.clone(),
            ..Options::default()
        }
    }
}

pub(crate) fn rewrite_failure(e: RewriteError) -> Failure {
    match e {
        RewriteError::UnknownRule { .. } => Failure::usage(e).help("`convc list rules` names them all"),
        RewriteError::Fold(_) => Failure::model(e),
        _ => Failure::internal(e),
    }
}

pub(crate) fn run(args: &Optimize, say: Say) -> Result<(), Failure> {
    let output = args.output.clone().unwrap_or_else(|| model::beside(&args.model, "opt.onnx"));
    for file in args.trace.iter().chain(&args.report).chain([&output]) {
        model::refuse_overwrite(&args.model, file)?;
    }
    let mut model = model::load_onnx(&args.model, &args.limits.limits())?;
    let ports = ports_of(&model.graph);
    let (bindings, unranked) = args.sizes.resolve(&ports)?;
    let given = args.inputs.load(&ports)?;
    let original = model.graph.clone();
    let mut graph = std::mem::take(&mut model.graph);
    if args.dialect == Dialect::Onnx {
        for (id, why) in ops::primitives::expand_all(&mut graph) {
            let node = graph.node(id);
            say.note(&format!("{:?} stays an operator of domain ai.convc: {why}", node.name));
        }
    }
    let rewriting = args.rewriting.options(&bindings);
    let rewritten = rewrite::rewrite(graph, &rewriting).map_err(rewrite_failure)?;
    let verified = if args.no_verify {
        say.note("the result is not verified");
        None
    } else {
        let inputs = verification_inputs(&original, &ports, given, &bindings, &unranked, args.seed, say)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let report = verify::verify(&original, &rewritten, &inputs, threads).map_err(|e| verification_failure(&e))?;
        if let Some(why) = &report.not_run {
            say.note(&format!("the model as a whole could not be run to verify it: {why}"));
        }
        Some(report)
    };
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
                "verified": verified,
            }),
        );
    }
    let where_to =
        if args.dry_run { "nothing is written (--dry-run)".into() } else { format!("written to {}", output.display()) };
    print(&visible(&format!("{}{}\n", summary.text(verified.as_ref()), where_to)))
}

fn write_failure(e: WriteError) -> Failure {
    match e {
        WriteError::Io { ref path, ref source } => Failure::io(path, source),
        WriteError::TooLarge { .. } => Failure::limit(e),
        _ => Failure::internal(e),
    }
}

fn verification_failure(e: &VerifyError) -> Failure {
    Failure::verification(format!("verification failed, so nothing is written: {e}"))
        .help("--skip RULE leaves a rule out; please report the model")
}

/// The inputs of a graph as sessions see them.
fn ports_of(graph: &Graph) -> Vec<Port> {
    let port = |v| {
        let fact = graph.fact(v);
        Some(Port {
            name: graph.value_name(v)?.to_owned(),
            slot: convc_runtime::plan::Slot(0),
            dtype: fact.map_or(convc_runtime::DType::F32, |f| f.dtype),
            shape: fact.map(|f| f.shape.clone()),
            default: graph.default_of(v).cloned(),
        })
    };
    graph.inputs().into_iter().filter_map(port).collect()
}

/// Sizes to try for axes that the model leaves open and the command line does not give, until the original runs.
const TRIED: &[i64] = &[64, 224, 56, 320, 48, 33];

/// Inputs on which the original runs: as given, or made up for the sizes given, or for sizes that are tried.
fn verification_inputs(
    original: &Graph,
    ports: &[Port],
    given: BTreeMap<String, Tensor>,
    bindings: &Bindings,
    unranked: &BTreeMap<String, Vec<i64>>,
    seed: u64,
    say: Say,
) -> Result<BTreeMap<String, Tensor>, Failure> {
    let of_given = ports.iter().filter(|p| given.contains_key(&p.name)).flat_map(|p| p.shape.iter().flatten());
    let known: BTreeSet<Symbol> = of_given.flat_map(Dim::symbols).chain(bindings.keys().cloned()).collect();
    let mut open: BTreeMap<Symbol, bool> = BTreeMap::new();
    for port in ports.iter().filter(|p| !given.contains_key(&p.name)) {
        for (axis, d) in port.shape.iter().flatten().enumerate() {
            for s in d.symbols().into_iter().filter(|s| !known.contains(s)) {
                *open.entry(s).or_insert(true) &= axis == 0;
            }
        }
    }
    let Ok(plan) = lower::lower(original) else {
        return made_up(ports, given, bindings, unranked, seed, say);
    };
    if open.is_empty() {
        return made_up(ports, given, bindings, unranked, seed, say);
    }
    let mut last: Option<RunError> = None;
    for &size in TRIED {
        let mut bound = bindings.clone();
        bound.extend(open.iter().map(|(s, batch)| (s.clone(), if *batch { 2 } else { size })));
        let inputs = made_up(ports, given.clone(), &bound, unranked, seed, say)?;
        match try_run(plan.clone(), &inputs) {
            Ok(()) => {
                let sizes: Vec<String> = open.keys().map(|s| format!("{s} = {}", bound[s])).collect();
                say.detail(|| format!("verified at {}", sizes.join(", ")));
                return Ok(inputs);
            }
            Err(e) => last = Some(e),
        }
        if open.values().all(|batch| *batch) {
            break;
        }
    }
    let why = last.map(|e| e.to_string()).unwrap_or_default();
    Err(Failure::usage(format!("the model runs at none of the sizes tried for its open axes: {why}"))
        .help("give sizes it runs at, such as --shape 'x:1,3,224,224', or --inputs FILE.npz"))
}

fn try_run(plan: Plan, inputs: &BTreeMap<String, Tensor>) -> Result<(), RunError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let options = SessionOptions { threads, ..SessionOptions::default() };
    convc_runtime::session::Session::new(plan.into(), options)?.run(inputs).map(|_| ())
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
            }
            Some(v) => out += &format!("\nverified: {} regions in f64; the whole was not run\n", v.regions.len()),
            None => out += "\nnot verified\n",
        }
        out
    }
}
