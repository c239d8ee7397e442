//! What can be wrong with a file, and [`Problem`], one entry of the list that `check` makes.

use std::{fmt, io, path::PathBuf};

use super::WireError;

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; changes nothing.
    Note,
    /// Legal, but not executed: `optimize` carries it through, `run` and `compile` refuse it.
    Unsupported,
    /// Against the specification: the model is refused.
    Error,
    /// Beyond one of [`super::Limits`]: the model is refused unless the limit is raised.
    Limit,
}

impl Severity {
    /// The word for it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Unsupported => "unsupported",
            Severity::Error => "error",
            Severity::Limit => "limit",
        }
    }
}

/// One thing about a model that a user should know.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What has it, such as `node "conv1"` or `initializer "w"`. Control characters are escaped.
    pub place: String,
    /// The node's operator; empty if it is no node. Control characters are escaped.
    pub op_type: String,
    /// The operator's domain; empty for ONNX's own.
    pub domain: String,
    /// The version of the operator set that the model imports.
    pub opset: Option<i64>,
    /// What is wrong, as a sentence part.
    pub problem: String,
    /// What would help, as a sentence part; may be empty.
    pub help: String,
}

impl Problem {
    /// A problem of something that is no node.
    pub fn new(
        severity: Severity,
        place: impl Into<String>,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) -> Problem {
        Problem {
            severity,
            place: place.into(),
            op_type: String::new(),
            domain: String::new(),
            opset: None,
            problem: visible(problem.into()),
            help: help.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)?;
        if !self.op_type.is_empty() {
            let dot = if self.domain.is_empty() { "" } else { "." };
            write!(f, " ({}{dot}{}", self.domain, self.op_type)?;
            if let Some(opset) = self.opset {
                write!(f, ", opset {opset}")?;
            }
            f.write_str(")")?;
        }
        write!(f, ": {}", self.problem)?;
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        Ok(())
    }
}

/// Why a file was not imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The file could not be read.
    #[error("cannot read {path:?}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no intact protobuf message of ONNX's schema.
    #[error("not an intact ONNX file: {0}; check that the download or export was complete")]
    Wire(#[from] WireError),
    /// The model exceeds one of [`super::Limits`].
    #[error("{place} needs {needed} {what}, the limit is {limit}; raise the limit if you trust the model")]
    Limit {
        /// What exceeds it.
        place: String,
        /// How much it needs.
        needed: String,
        /// The unit.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The model contradicts the specification, or is of a version that is not read.
    #[error("{0}")]
    Model(Box<Problem>),
}

impl OnnxError {
    /// The error as an entry of a list of problems.
    #[must_use]
    pub fn into_problem(self) -> Problem {
        match self {
            OnnxError::Model(p) => *p,
            limit @ OnnxError::Limit { .. } => Problem::new(Severity::Limit, "model", limit.to_string(), ""),
            other => Problem::new(Severity::Error, "model", other.to_string(), ""),
        }
    }
}

impl From<Problem> for OnnxError {
    fn from(p: Problem) -> OnnxError {
        OnnxError::Model(Box::new(p))
    }
}

/// A name from a file as messages show it: quoted, control characters escaped, cut if it is very long.
pub(super) fn shown(name: &str) -> String {
    format!("{:?}", cut(name))
}

/// As [`shown`], without the quotes.
pub(super) fn plain(name: &str) -> String {
    cut(name).escape_debug().to_string()
}

/// A text with what must not reach a terminal as it is escaped: control characters, and marks that change the direction.
pub(super) fn visible(text: String) -> String {
    let hidden = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(hidden) {
        return text;
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if hidden(c) {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

fn cut(name: &str) -> std::borrow::Cow<'_, str> {
    const LONGEST: usize = 200;
    match name.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", name.get(..at).unwrap_or_default()).into(),
        None => name.into(),
    }
}
