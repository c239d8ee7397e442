//! [`Limits`]: what a model may ask for.

use super::WireLimits;

/// Bounds on what one model may cost. Exceeding one is an error that names it; none depends on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most nodes, those of nested graphs and of inlined functions included.
    pub nodes: usize,
    /// Most elements of one tensor.
    pub elements: usize,
    /// Most bytes of constants that folding may make.
    pub folded_bytes: u64,
    /// Most bytes that import may copy or make: tensors that cannot stay in the file, and nodes carried as they are.
    pub copied_bytes: u64,
    /// Most bytes of external data that one model may refer to.
    pub external_bytes: u64,
    /// Deepest nesting of graphs in attributes and of functions in functions.
    pub depth: usize,
    /// Most messages and repeated strings in the file.
    pub messages: usize,
    /// Whether external data may lie in files with more than one hard link, as package caches make them.
    pub hard_links: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            nodes: 200_000,
            elements: 1 << 31,
            folded_bytes: 1 << 30,
            copied_bytes: 1 << 29,
            external_bytes: 1 << 40,
            depth: 32,
            messages: 1_000_000,
            hard_links: false,
        }
    }
}

impl Limits {
    /// The bounds of the scan that precedes the parser.
    #[must_use]
    pub fn wire(&self) -> WireLimits {
        WireLimits { messages: self.messages, ..WireLimits::default() }
    }
}
