//! What a verb ends with when it fails: a message, what to do about it, an exit code.

use std::{fmt, io, path::Path};

use convc_runtime::{OpError, session::RunError};

pub(crate) const INTERNAL: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const MODEL: u8 = 3;
pub(crate) const VERIFICATION: u8 = 4;
pub(crate) const LIMIT: u8 = 5;
pub(crate) const COMPARISON: u8 = 6;

/// Why a verb failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: u8,
    /// What went wrong.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) help: Option<String>,
}

impl Failure {
    fn new(code: u8, message: impl fmt::Display) -> Failure {
        Failure { code, message: message.to_string(), help: None }
    }

    /// Our fault, or the machine's.
    pub(crate) fn internal(message: impl fmt::Display) -> Failure {
        Failure::new(INTERNAL, message)
    }

    /// The command line's fault.
    pub(crate) fn usage(message: impl fmt::Display) -> Failure {
        Failure::new(USAGE, message)
    }

    /// The model's fault, or a missing feature.
    pub(crate) fn model(message: impl fmt::Display) -> Failure {
        Failure::new(MODEL, message)
    }

    /// A result that is not what it should be.
    pub(crate) fn verification(message: impl fmt::Display) -> Failure {
        Failure::new(VERIFICATION, message)
    }

    /// A limit that can be raised.
    pub(crate) fn limit(message: impl fmt::Display) -> Failure {
        Failure::new(LIMIT, message)
    }

    /// Two results that differ by more than they may.
    pub(crate) fn comparison(message: impl fmt::Display) -> Failure {
        Failure::new(COMPARISON, message)
    }

    /// A file that could not be read or written.
    pub(crate) fn io(path: &Path, e: &io::Error) -> Failure {
        let failure = Failure::internal(format!("{}: {e}", path.display()));
        match e.kind() {
            io::ErrorKind::NotFound => failure.help("check the path"),
            _ => failure,
        }
    }

    /// The same with advice.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Failure {
        self.help = Some(help.into());
        self
    }

    /// A name that is none of those there are.
    pub(crate) fn unknown<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Failure {
        let known: Vec<&str> = known.into_iter().collect();
        let failure = Failure::usage(format!("there is no {what} {name:?}"));
        match (closest(name, &known), known.len()) {
            (Some(near), _) => failure.help(format!("did you mean {near:?}?")),
            (None, 0) => failure,
            (None, 1..=12) => failure.help(format!("there is {}", known.join(", "))),
            (None, n) => failure.help(format!("there are {n}, such as {}", known[..8].join(", "))),
        }
    }
}

impl From<RunError> for Failure {
    fn from(e: RunError) -> Failure {
        match &e {
            RunError::MissingInput { .. } => {
                Failure::usage(e).help("give it with --inputs FILE.npz or --input NAME=FILE")
            }
            RunError::UnknownInput { .. } | RunError::InputMismatch { .. } | RunError::Symbol { .. } => {
                Failure::usage(e)
            }
            RunError::Op { source: OpError::TooLarge { .. }, .. } => {
                Failure::limit(e).help("raise --max-elements if you trust the model")
            }
            RunError::Op { .. } | RunError::Constant { .. } | RunError::Dim(_) => Failure::model(e),
            RunError::Plan(_) => Failure::internal(format!("{e}; this is a bug in convc")),
        }
    }
}

/// The known name that looks most like `name`, if one does.
fn closest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower = name.to_lowercase();
    known
        .iter()
        .map(|k| (strsim::jaro_winkler(&lower, &k.to_lowercase()), *k))
        .filter(|(score, _)| *score > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}
