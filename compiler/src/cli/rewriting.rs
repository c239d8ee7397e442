//! Rewriting and verification, as `optimize` and `compile` share them.

use clap::{Args, ValueEnum};
use convc::{
    ir::Graph,
    rewrite::{self, Dialect, Fp, Options, RewriteError, Rewritten, cost::Profile},
    verify::{self, Request, VerifyError},
};
use convc_runtime::{Bindings, plan::Port};

use super::{Failure, Say, model::SizeArgs, tensors::InputArgs};

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

/// How the result is verified.
#[derive(Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) sizes: SizeArgs,
    #[command(flatten)]
    inputs: InputArgs,
    /// Seed of the inputs that the result is verified on
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Do not run the result against the original
    #[arg(long)]
    no_verify: bool,
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
    /// As the rewriter takes them, for this target; `bindings` are the sizes that the cost model reckons with.
    fn options(&self, (profile, dialect, opset): Target, bindings: &Bindings) -> Options {
        Options {
            fp: match self.fp {
                FpArg::Strict => Fp::Strict,
                FpArg::Real => Fp::Real,
                FpArg::Fast => Fp::Fast,
            },
            only: self.only.clone(),
            skip: self.skip.clone(),
            max_rewrites: self.max_rewrites.unwrap_or(usize::MAX),
            profile,
            dialect,
            opset,
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

/// A graph before and after, and what verification found.
pub(crate) struct Done {
    /// As it was.
    pub(crate) original: Graph,
    /// As it is, and how that came about.
    pub(crate) rewritten: Rewritten,
    /// The options it was rewritten with.
    pub(crate) options: Options,
    /// What verification found, unless it was left out.
    pub(crate) report: Option<verify::Report>,
}

/// Whose costs decide, how operators of domain `ai.convc` are left, and the operator set of the file that is written.
pub(crate) type Target = (&'static Profile, Dialect, Option<i64>);

/// Rewrites a graph, and verifies the result against the graph as it was.
pub(crate) fn rewrite(
    graph: Graph,
    target: Target,
    rewriting: &RewriteArgs,
    verification: &VerifyArgs,
    say: Say,
) -> Result<Done, Failure> {
    let ports = ports_of(&graph);
    let (bindings, unranked) = verification.sizes.resolve(&ports)?;
    let given = verification.inputs.load(&ports)?;
    let original = graph.clone();
    let options = rewriting.options(target, &bindings);
    let rewritten = rewrite::rewrite(graph, &options).map_err(rewrite_failure)?;
    let report = if verification.no_verify {
        say.note("the result is not verified");
        None
    } else {
        let request = Request {
            given,
            sizes: bindings,
            unranked,
            specialised: target.1 == Dialect::Convc && target.2.is_none(),
            seed: verification.seed,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        };
        let report = verify::verify_request(&original, &rewritten, &request).map_err(|e| verification_failure(&e))?;
        for checked in &report.bindings {
            say.detail(|| match &checked.skipped {
                Some(why) => format!("not verified at {} ({}): {why}", checked.sizes_text(), checked.why),
                None => format!("verified at {} ({})", checked.sizes_text(), checked.why),
            });
        }
        if let Some(why) = &report.not_run {
            say.note(&format!("the model as a whole could not be run to verify it: {why}"));
        }
        Some(report)
    };
    Ok(Done { original, rewritten, options, report })
}

fn verification_failure(e: &VerifyError) -> Failure {
    match e {
        VerifyError::Rank { name } => {
            Failure::usage(e).help(format!("give its sizes, such as --shape '{name}:1,3,224,224'"))
        }
        VerifyError::NoSizes(_) => {
            Failure::usage(e).help("give sizes it runs at, such as --shape 'x:1,3,224,224', or --inputs FILE.npz")
        }
        VerifyError::Inputs { .. } => Failure::model(e),
        VerifyError::TooLarge { .. } => Failure::limit(e),
        _ => Failure::verification(format!("verification failed, so nothing is written: {e}"))
            .help("--skip RULE leaves a rule out; please report the model"),
    }
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
