//! The trace: the record of a rewriting as a file, and what reads it.
//!
//! A [`Trace`] states what was read and what was written as terms, and the steps that make them equal. It is written as
//! JSON lines; `docs/trace.md` describes each kind of line. [`replay`] derives every step again without an e-graph and
//! proves the outputs equal; [`walk`] leads from any node of the file written back to nodes of the file read.

mod closure;
mod dot;
mod file;
mod html;
mod known;
pub mod lines;
mod record;
pub mod replay;
pub mod show;
mod table;
pub mod walk;
pub mod why_not;
mod written;

pub use dot::dot;
pub use file::{Limits, TraceError};
pub use html::html;
pub use lines::{SCHEMA, Side, Trace};
pub use record::Meta;
