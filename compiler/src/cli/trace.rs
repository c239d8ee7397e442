//! `convc trace`

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use convc::trace::{
    self, Limits, Trace as Record, TraceError,
    replay::{self, Proof},
    show::{self, Unknown},
    walk::Walk,
    why_not,
};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    Failure,
    model::{self, LimitArgs},
    say::{print, print_json, visible},
};

/// Read the trace of an optimisation
#[derive(Args)]
pub(crate) struct Trace {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Show(Show),
    Explain(Explain),
    WhyNot(WhyNot),
    Html(Html),
    Dot(Dot),
    Replay(Replay),
}

/// Summarise a trace and list its steps
#[derive(Args)]
struct Show {
    /// The trace
    trace: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Say which steps lead to a node or value of the file written, and what became of one of the file read
#[derive(Args)]
struct Explain {
    /// The node or value
    node: String,
    /// The trace
    trace: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Say what kept a rule from firing
#[derive(Args)]
struct WhyNot {
    /// The rule
    rule: String,
    /// A node of the file read, and the trace
    #[arg(value_names = ["NODE", "TRACE"], required = true, num_args = 1..=2)]
    node_and_trace: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Write a trace as one page that loads nothing
#[derive(Args)]
struct Html {
    /// The trace
    trace: PathBuf,
    /// Where the page goes; the default is beside the trace, with the extension .html
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Print the outputs' terms before and after as a Graphviz drawing
#[derive(Args)]
struct Dot {
    /// The trace
    trace: PathBuf,
}

/// Derive every step again, without an e-graph, and prove that the outputs are what they were
#[derive(Args)]
struct Replay {
    /// The trace
    trace: PathBuf,
    /// The model that was read: the trace must begin with it
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The model that was written: the trace must end in it
    #[arg(long, value_name = "FILE", requires = "model")]
    optimized: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

pub(crate) fn run(args: &Trace) -> Result<(), Failure> {
    match &args.verb {
        Verb::Show(a) => show(a),
        Verb::Explain(a) => explain(a),
        Verb::WhyNot(a) => say_why_not(a),
        Verb::Html(a) => html(a),
        Verb::Dot(a) => print(&trace::dot(&read(&a.trace)?)),
        Verb::Replay(a) => replay(a),
    }
}

/// SHA-256 of a file in hexadecimal.
pub(crate) fn sha256_of(path: &Path) -> Result<String, Failure> {
    let failed = |e: io::Error| Failure::io(path, &e);
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect()),
            n => hash.update(buffer.get(..n).unwrap_or_default()),
        }
    }
}

/// Writes a file under a temporary name and renames it when it is complete.
pub(crate) fn save(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let go = || {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".convc-").suffix(".tmp");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(folder)?;
        let mut out = io::BufWriter::new(file.as_file_mut());
        write(&mut out)?;
        out.flush()?;
        drop(out);
        file.persist(path).map(drop).map_err(|e| e.error)
    };
    go().map_err(|e| Failure::io(path, &e))
}

fn read(path: &Path) -> Result<Record, Failure> {
    Record::read(path, &Limits::default()).map_err(|e| match e {
        TraceError::Io { ref source, .. } => Failure::io(path, source),
        TraceError::Limit { .. } => Failure::limit(format!("{}: {e}", path.display())),
        _ => Failure::model(format!("{}: {e}", path.display())),
    })
}

fn unknown(e: &Unknown) -> Failure {
    Failure::unknown(e.what, &e.name, e.known.iter().map(String::as_str))
}

fn show(args: &Show) -> Result<(), Failure> {
    let trace = read(&args.trace)?;
    if args.json {
        return print_json("trace-show", show::summary_json(&trace));
    }
    print(&visible(&show::summary(&trace)))
}

fn explain(args: &Explain) -> Result<(), Failure> {
    let trace = read(&args.trace)?;
    let walk = Walk::new(&trace);
    let explanation = show::explain(&walk, &trace, &args.node).map_err(|e| unknown(&e))?;
    if args.json {
        return print_json("trace-explain", explanation.json(&walk));
    }
    print(&visible(&explanation.text(&walk)))
}

fn say_why_not(args: &WhyNot) -> Result<(), Failure> {
    let (node, path) = match args.node_and_trace.as_slice() {
        [node, path] => (Some(node.to_string_lossy()), path),
        [path] => (None, path),
        _ => return Err(Failure::usage("one trace is needed")),
    };
    let trace = read(path)?;
    let why = why_not::why_not(&trace, &args.rule, node.as_deref()).map_err(|e| unknown(&e))?;
    if args.json {
        return print_json(
            "trace-why-not",
            json!({ "rule": args.rule, "node": node, "not_fired": why.not_fired, "declined": why.declined }),
        );
    }
    print(&visible(&why_not::text(&trace, &args.rule, node.as_deref(), &why)))
}

fn html(args: &Html) -> Result<(), Failure> {
    let trace = read(&args.trace)?;
    let output = args.output.clone().unwrap_or_else(|| model::beside(&args.trace, "html"));
    model::refuse_overwrite(&args.trace, &output)?;
    let name = args.trace.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
    save(&output, |out| out.write_all(trace::html(&trace, &name).as_bytes()))
}

fn replay(args: &Replay) -> Result<(), Failure> {
    let trace = read(&args.trace)?;
    let limits = args.limits.limits();
    let load = |path: &PathBuf| model::load_onnx(path, &limits).map(|m| m.graph);
    let model = args.model.as_ref().map(load).transpose()?;
    let optimized = args.optimized.as_ref().map(load).transpose()?;
    if let (Some(path), Some(said)) = (&args.model, &trace.header.model_sha256)
        && sha256_of(path)? != *said
    {
        return Err(not_proved("the trace is of another file: its SHA-256 differs"));
    }
    let proof = replay::replay(&trace, model.as_ref(), optimized.as_ref()).map_err(not_proved)?;
    if args.json {
        return print_json("trace-replay", serde_json::to_value(&proof).map_err(Failure::internal)?);
    }
    print(&visible(&proof_text(&proof)))
}

fn not_proved(why: impl std::fmt::Display) -> Failure {
    Failure::comparison(format!("not proved: {why}"))
}

fn proof_text(proof: &Proof) -> String {
    let mut out = format!(
        "proved: {} outputs are what they were\n{:>6}  steps derived again from their rules\n",
        proof.outputs, proof.derived
    );
    let mut line = |n: usize, what: &str| {
        if n > 0 {
            out += &format!("{n:>6}  {what}\n");
        }
    };
    line(proof.merged, "values merged, being the same term");
    line(proof.computed, "constants computed again, to the bit");
    line(proof.not_computed, "constants taken as they are: --model has what they are made of");
    line(proof.opaque, "results of nodes that are not looked into, which work on what they worked on");
    line(proof.sizes_taken, "sizes that only the data decides, taken as they are");
    line(proof.in_model.unwrap_or(0), "terms found in the model read");
    line(proof.in_optimized.unwrap_or(0), "terms found in the model written");
    line(proof.written_out, "operators compared with the model written by their definitions");
    out
}
