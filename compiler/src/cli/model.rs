//! Models as verbs take them: ONNX files and plan files, limits, and sizes given on the command line.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use convc::{
    ir::Graph,
    onnx::{self, Limits, Model, OnnxError},
    rewrite::{self, Dialect, Options, cost::PLAN},
};
use convc_runtime::{
    Bindings, DType, Dim, Symbol,
    fact::Shape,
    kernels::Isa,
    plan::{Plan, Port, Slot, file::MAGIC, file::PlanFileError},
    session::{Session, SessionOptions},
};

use super::{Failure, rewriting::rewrite_failure};

/// Bounds on what a model may ask for.
#[derive(Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Most nodes, nested ones included
    #[arg(long, value_name = "N", default_value_t = Limits::default().nodes)]
    max_nodes: usize,
    /// Most elements of one tensor
    #[arg(long, value_name = "N", default_value_t = Limits::default().elements)]
    max_elements: usize,
    /// Most bytes of constants that folding may make
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().folded_bytes)]
    max_folded: u64,
    /// Deepest nesting of graphs and functions
    #[arg(long, value_name = "N", default_value_t = Limits::default().depth)]
    max_depth: usize,
}

impl LimitArgs {
    /// As the importer takes them.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            nodes: self.max_nodes,
            elements: self.max_elements,
            folded_bytes: self.max_folded,
            depth: self.max_depth,
            ..Limits::default()
        }
    }
}

/// How to run.
#[derive(Args)]
pub(crate) struct RunArgs {
    /// Number of threads; the default is one for each processor
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Instruction set: portable, avx2 or avx512; the default is the best the machine has
    #[arg(long, value_name = "ISA", value_parser = parse_isa)]
    isa: Option<Isa>,
    /// Run the model as it is
    #[arg(long)]
    no_optimize: bool,
}

fn parse_isa(text: &str) -> Result<Isa, String> {
    let known = || Isa::ALL.iter().map(|i| i.name()).collect::<Vec<_>>().join(", ");
    Isa::from_name(text).ok_or_else(|| format!("it is one of {}", known()))
}

impl RunArgs {
    /// Whether a model that is compiled in memory is rewritten first.
    pub(crate) fn optimize(&self) -> bool {
        !self.no_optimize
    }

    /// As sessions take them.
    pub(crate) fn options(&self, limits: &Limits) -> Result<SessionOptions, Failure> {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        let isa = self.isa.unwrap_or_else(Isa::detect);
        if isa.available() != isa {
            return Err(Failure::usage(format!("this machine does not have {}", isa.name()))
                .help(format!("the best it has is {}", Isa::detect().name())));
        }
        Ok(SessionOptions {
            threads: self.threads.map_or_else(processors, usize::from),
            isa,
            max_elements: limits.elements,
            ..SessionOptions::default()
        })
    }
}

/// Sizes given on the command line.
#[derive(Args, Default)]
pub(crate) struct SizeArgs {
    /// Sizes of an input, such as x:1,3,224,224 or x:1x3x224x224
    #[arg(long = "shape", value_name = "NAME:SIZES", value_parser = parse_shape)]
    shapes: Vec<(String, Vec<i64>)>,
    /// Value of a symbolic size, such as N=1
    #[arg(long = "dim", value_name = "SYMBOL=N", value_parser = parse_dim)]
    dims: Vec<(String, i64)>,
}

fn parse_shape(text: &str) -> Result<(String, Vec<i64>), String> {
    let (name, sizes) = text.rsplit_once(':').ok_or("it lacks a colon between name and sizes")?;
    let sizes: Vec<i64> = if sizes.is_empty() {
        Vec::new()
    } else {
        sizes.split([',', 'x']).map(|s| parse_size(s.trim())).collect::<Result<_, _>>()?
    };
    Ok((name.to_owned(), sizes))
}

fn parse_dim(text: &str) -> Result<(String, i64), String> {
    let (name, size) = text.rsplit_once('=').ok_or("it lacks an = between symbol and size")?;
    Ok((name.to_owned(), parse_size(size.trim())?))
}

fn parse_size(text: &str) -> Result<i64, String> {
    text.parse().ok().filter(|&n: &i64| n >= 0).ok_or_else(|| format!("{text:?} is not a size"))
}

impl SizeArgs {
    /// Gives the symbols of a graph their values.
    pub(crate) fn bind(&self, graph: &mut Graph) -> Result<(), Failure> {
        let port = |v| {
            let fact = graph.fact(v)?;
            let name = graph.value_name(v)?.to_owned();
            Some(Port { name, slot: Slot(0), dtype: fact.dtype, shape: Some(fact.shape.clone()), default: None })
        };
        let ports: Vec<Port> = graph.inputs().into_iter().filter_map(port).collect();
        let (bindings, _) = self.resolve(&ports)?;
        graph.bind(&bindings.into_iter().map(|(s, n)| (s, Dim::from(n))).collect());
        Ok(())
    }

    /// The values of the symbols of `inputs`, and the sizes given for inputs of unknown rank.
    pub(crate) fn resolve(&self, inputs: &[Port]) -> Result<(Bindings, BTreeMap<String, Vec<i64>>), Failure> {
        let mut bindings = Bindings::new();
        let mut unranked = BTreeMap::new();
        let mut bind = |symbol: &Symbol, size: i64| match bindings.insert(Arc::clone(symbol), size) {
            Some(other) if other != size => Err(Failure::usage(format!("{symbol} cannot be both {other} and {size}"))),
            _ => Ok(()),
        };
        let symbols: BTreeSet<Symbol> =
            inputs.iter().flat_map(|p| p.shape.iter().flatten()).flat_map(Dim::symbols).collect();
        for (name, size) in &self.dims {
            let symbol = symbols.get(name.as_str());
            let names = || symbols.iter().map(|s| &**s);
            bind(symbol.ok_or_else(|| Failure::unknown("symbolic size", name, names()))?, *size)?;
        }
        for (name, sizes) in &self.shapes {
            let port = inputs.iter().find(|p| p.name == *name);
            let names = || inputs.iter().map(|p| p.name.as_str());
            let port = port.ok_or_else(|| Failure::unknown("input", name, names()))?;
            let Some(declared) = &port.shape else {
                unranked.insert(name.clone(), sizes.clone());
                continue;
            };
            let misfit = || {
                Failure::usage(format!("input {name:?} is declared {}, which {sizes:?} does not fit", Shape(declared)))
            };
            if declared.len() != sizes.len() {
                return Err(misfit());
            }
            for (d, &size) in declared.iter().zip(sizes) {
                match (d.as_symbol(), d.as_fixed()) {
                    (Some(symbol), _) => bind(symbol, size)?,
                    (None, Some(n)) if n != size => return Err(misfit()),
                    _ => {}
                }
            }
        }
        Ok((bindings, unranked))
    }
}

/// A model as its file holds it.
pub(crate) enum Loaded {
    /// An ONNX model.
    Onnx(Box<Model>),
    /// A plan.
    Plan(Plan),
}

/// Reads a model of either kind; its first bytes say which.
pub(crate) fn load(path: &Path, limits: &Limits) -> Result<Loaded, Failure> {
    let mut start = [0; MAGIC.len()];
    let mut file = std::fs::File::open(path).map_err(|e| Failure::io(path, &e))?;
    if file.read_exact(&mut start).is_ok() && start == MAGIC {
        return Ok(Loaded::Plan(Plan::load(path).map_err(|e| plan_failure(path, &e))?));
    }
    if path.extension().is_some_and(|e| e == "convc") {
        return Err(plan_failure(path, &PlanFileError::NotAPlan));
    }
    Ok(Loaded::Onnx(Box::new(load_onnx(path, limits)?)))
}

/// Reads an ONNX model.
pub(crate) fn load_onnx(path: &Path, limits: &Limits) -> Result<Model, Failure> {
    onnx::import(path, limits).map_err(|e| match e {
        OnnxError::Io { ref source, .. } => Failure::io(path, source),
        OnnxError::Limit { .. } => Failure::limit(e),
        _ => Failure::model(format!("{}: {e}", path.display())),
    })
}

/// What a plan file that is refused means for the user.
pub(crate) fn plan_failure(path: &Path, e: &PlanFileError) -> Failure {
    match e {
        PlanFileError::Io(e) => Failure::io(path, e),
        PlanFileError::Version { .. } | PlanFileError::MissingOperators { .. } => {
            Failure::model(format!("{}: {e}", path.display()))
                .help("compile the model again with this version of convc")
        }
        _ => Failure::model(format!("{}: {e}", path.display())),
    }
}

/// The plan of a model of either kind; an ONNX model is compiled in memory, rewritten first if `optimize` says so.
pub(crate) fn load_plan(path: &Path, limits: &Limits, optimize: bool) -> Result<Plan, Failure> {
    match load(path, limits)? {
        Loaded::Plan(plan) => Ok(plan),
        Loaded::Onnx(mut model) => {
            let plan = lower(path, &model)?;
            if !optimize {
                return Ok(plan);
            }
            let graph = std::mem::take(&mut model.graph);
            model.graph =
                rewrite::rewrite(graph, &Options { profile: &PLAN, dialect: Dialect::Convc, ..Options::default() })
                    .map_err(rewrite_failure)?
                    .graph;
            lower(path, &model)
        }
    }
}

/// Lowers a model to a plan.
pub(crate) fn lower(path: &Path, model: &Model) -> Result<Plan, Failure> {
    convc::lower::lower(&model.graph).map_err(|e| {
        Failure::model(format!("{}: {e}", path.display()))
            .help(format!("`convc check {}` lists all that is in the way", path.display()))
    })
}

/// A session that runs `plan`.
pub(crate) fn session(plan: Plan, options: SessionOptions) -> Result<Session, Failure> {
    Ok(Session::new(Arc::new(plan), options)?)
}

/// Where a result goes if the command line does not say: beside `input`, with `extension` in the place of its own.
pub(crate) fn beside(input: &Path, extension: &str) -> PathBuf {
    input.with_extension(extension)
}

/// Refuses to write over a file that is read.
pub(crate) fn refuse_overwrite(input: &Path, output: &Path) -> Result<(), Failure> {
    let same = match (input.canonicalize(), output.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    };
    if same {
        return Err(Failure::usage(format!("{} would be overwritten by the result", input.display()))
            .help("name another file with -o"));
    }
    Ok(())
}

/// Type and sizes of a port as text.
pub(crate) fn describe(dtype: DType, shape: Option<&[Dim]>) -> String {
    shape.map_or_else(|| format!("{dtype}[..]"), |s| format!("{dtype}{}", Shape(s)))
}
