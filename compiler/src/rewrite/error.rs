//! [`RewriteError`]: what may go wrong when a graph is rewritten.

use convc_runtime::OpError;

/// An error of rewriting: always a defect of convc or a model whose constants break an operator's rules.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RewriteError {
    /// A rule built a term that an operator refuses.
    #[error("the rewritten {op} ({term}) is refused: {source}; this is a defect of convc, --skip leaves a rule out")]
    Emit {
        /// The operator.
        op: &'static str,
        /// The term.
        term: String,
        /// Why.
        source: OpError,
    },
    /// A term refers to a value that is no longer there.
    #[error("the value {value} was lost while rewriting; this is a defect of convc")]
    Lost {
        /// The value.
        value: String,
    },
    /// A phase left a graph behind that breaks an invariant.
    #[error("{phase} broke the graph: {source}; this is a defect of convc")]
    Invariant {
        /// What was done.
        phase: &'static str,
        /// What is broken.
        source: crate::ir::IrError,
    },
    /// Constants could not be folded.
    #[error("constants could not be folded: {0}")]
    Fold(String),
    /// A rule made two values equal whose types exclude each other.
    #[error("rules made {a} equal to {b}; this is a defect of convc, --skip leaves a rule out")]
    Unsound {
        /// One fact.
        a: String,
        /// The other.
        b: String,
    },
    /// A rule name that does not exist.
    #[error("there is no rule {name:?}{}", did_you_mean(suggestion.as_deref()))]
    UnknownRule {
        /// The name given.
        name: String,
        /// The nearest that exists.
        suggestion: Option<String>,
    },
}

fn did_you_mean(s: Option<&str>) -> String {
    s.map(|s| format!("; did you mean {s:?}?")).unwrap_or_default()
}
