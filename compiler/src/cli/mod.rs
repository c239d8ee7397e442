//! The command line: one file per verb. stdout carries results, stderr everything else.

mod bench;
mod check;
mod compare;
mod compile;
mod completions;
mod failure;
mod inspect;
mod list;
mod model;
mod optimize;
mod profile;
mod rewriting;
mod run;
mod say;
mod tensors;
mod trace;

use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind};

pub(crate) use failure::Failure;
pub(crate) use say::Say;

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 internal or I/O error, 2 usage, 3 invalid or unsupported model, \
4 verification failed, 5 limit reached, 6 a comparison or gate failed.";

/// Compiler for convolutional ONNX models: rewrites them into less work, proves and explains every step, and runs them.
#[derive(Parser)]
#[command(name = "convc", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Options of every verb.
#[derive(Args)]
struct Global {
    /// Print results and errors only
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Print more of what is done; twice for more still
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Verb {
    Optimize(optimize::Optimize),
    Compile(compile::Compile),
    Run(run::Run),
    Bench(bench::Bench),
    Compare(compare::Compare),
    Check(check::Check),
    Inspect(inspect::Inspect),
    Trace(trace::Trace),
    List(list::List),
    Completions(completions::Completions),
}

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let code = match e.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
                _ => failure::USAGE,
            };
            // A closed pipe is all that can go wrong here.
            let _ = e.print();
            return ExitCode::from(code);
        }
    };
    let say = Say::new(cli.global.quiet, cli.global.verbose);
    let result = match cli.verb {
        Verb::Optimize(a) => optimize::run(&a, say),
        Verb::Compile(a) => compile::run(&a, say),
        Verb::Run(a) => run::run(&a, say),
        Verb::Bench(a) => bench::run(&a, say),
        Verb::Compare(a) => compare::run(&a, say),
        Verb::Check(a) => check::run(&a),
        Verb::Inspect(a) => inspect::run(&a),
        Verb::Trace(a) => trace::run(&a),
        Verb::List(a) => list::run(&a),
        Verb::Completions(a) => completions::run(&a, &mut Cli::command()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say.failure(&failure);
            ExitCode::from(failure.code)
        }
    }
}
