//! Traces as files: one JSON object a line.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use super::lines::{Line, SCHEMA, Trace};

/// Bounds on what a trace file may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest line in bytes.
    pub line: usize,
    /// Largest file in bytes.
    pub bytes: u64,
    /// Most lines.
    pub lines: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { line: 1 << 24, bytes: 1 << 30, lines: 1 << 22 }
    }
}

/// Why a trace was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The file could not be read.
    #[error("{path:?}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is not what it should be.
    #[error("line {line}: {problem}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// The file ends before its last line.
    #[error("the trace is cut off: it has no line that ends it")]
    CutOff,
    /// The file exceeds a limit.
    #[error("the trace exceeds the limit of {limit} {what}")]
    Limit {
        /// Which.
        what: &'static str,
        /// How much it allows.
        limit: u64,
    },
}

impl Trace {
    /// Writes the trace.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut line = |line: Line| -> io::Result<()> {
            let mut text = serde_json::to_string(&line)?;
            text.push('\n');
            out.write_all(text.as_bytes())
        };
        line(Line::Header(self.header.clone()))?;
        self.terms.iter().try_for_each(|t| line(Line::Term(t.clone())))?;
        self.nodes.iter().try_for_each(|n| line(Line::Node(n.clone())))?;
        self.values.iter().try_for_each(|v| line(Line::Value(v.clone())))?;
        self.steps.iter().try_for_each(|s| line(Line::Step(s.clone())))?;
        self.regions.iter().try_for_each(|r| line(Line::Region(r.clone())))?;
        self.not_fired.iter().try_for_each(|n| line(Line::NotFired(n.clone())))?;
        self.declined.iter().try_for_each(|d| line(Line::Declined(d.clone())))?;
        self.outputs.iter().try_for_each(|o| line(Line::Output(o.clone())))?;
        line(Line::End(self.end()))
    }

    /// Reads the trace at `path`.
    ///
    /// # Errors
    /// If the file cannot be read, is not a trace of this schema, contradicts itself or exceeds `limits`.
    pub fn read(path: &Path, limits: &Limits) -> Result<Trace, TraceError> {
        let failed = |source| TraceError::Io { path: path.into(), source };
        Trace::read_from(std::fs::File::open(path).map_err(failed)?, limits).map_err(|e| match e {
            TraceError::Io { source, .. } => failed(source),
            e => e,
        })
    }

    /// As [`Trace::read`], from any source.
    ///
    /// # Errors
    /// As [`Trace::read`].
    pub fn read_from(source: impl Read, limits: &Limits) -> Result<Trace, TraceError> {
        let mut input = BufReader::new(source.take(limits.bytes.saturating_add(1)));
        let mut trace = Trace::default();
        let mut buffer = Vec::new();
        let mut total = 0u64;
        for number in 1.. {
            let wrong = |problem: String| TraceError::Line { line: number, problem };
            if number > limits.lines {
                return Err(TraceError::Limit { what: "lines", limit: wide(limits.lines) });
            }
            buffer.clear();
            let longest = wide(limits.line);
            let read = (&mut input).take(longest.saturating_add(1)).read_until(b'\n', &mut buffer);
            let read = read.map_err(|source| TraceError::Io { path: PathBuf::new(), source })?;
            total = total.saturating_add(wide(read));
            if total > limits.bytes {
                return Err(TraceError::Limit { what: "bytes", limit: limits.bytes });
            }
            if read > limits.line {
                return Err(TraceError::Limit { what: "bytes in a line", limit: longest });
            }
            if read == 0 {
                return Err(TraceError::CutOff);
            }
            let line: Line = serde_json::from_slice(&buffer).map_err(|e| wrong(e.to_string()))?;
            if (number == 1) != matches!(line, Line::Header(_)) {
                return Err(wrong("the first line, and only the first, is the header".into()));
            }
            if let Line::End(end) = line {
                if end != trace.end() {
                    return Err(wrong("the numbers of lines are others than it says".into()));
                }
                buffer.clear();
                let rest = input.read_until(b'\n', &mut buffer);
                return match rest {
                    Ok(0) => Ok(trace),
                    Ok(_) => Err(TraceError::Line { line: number + 1, problem: "behind the end".into() }),
                    Err(source) => Err(TraceError::Io { path: PathBuf::new(), source }),
                };
            }
            trace.push(line).map_err(wrong)?;
        }
        Err(TraceError::CutOff)
    }

    /// Adds a line, whose terms must have been added before.
    fn push(&mut self, line: Line) -> Result<(), String> {
        let known = |t: &u32| {
            let found = self.terms.binary_search_by_key(t, |x| x.id).is_ok();
            if found { Ok(()) } else { Err(format!("there is no term {t} before it")) }
        };
        match line {
            Line::Header(h) if h.schema == SCHEMA => self.header = h,
            Line::Header(h) => return Err(format!("the schema is {:?}, this version reads {SCHEMA:?}", h.schema)),
            Line::Term(t) => {
                if self.terms.last().is_some_and(|last| last.id >= t.id) {
                    return Err(format!("term {} does not ascend", t.id));
                }
                let heads = [t.op.is_some(), t.constant.is_some(), t.value.is_some()];
                if heads.iter().filter(|h| **h).count() != 1 {
                    return Err("a term is one of op, constant and value".into());
                }
                if t.op.is_none() && !(t.operands.is_empty() && t.attributes.is_empty()) {
                    return Err("only operators have operands and attributes".into());
                }
                t.operands.iter().flatten().try_for_each(known)?;
                self.terms.push(t);
            }
            Line::Node(n) => {
                n.terms.iter().chain(n.operands.iter().flatten().flatten()).try_for_each(known)?;
                self.nodes.push(n);
            }
            Line::Value(v) => {
                known(&v.term)?;
                self.values.push(v);
            }
            Line::Step(s) => {
                if s.n != self.steps.len() {
                    return Err(format!("step {} is numbered {}", self.steps.len(), s.n));
                }
                known(&s.lhs)?;
                known(&s.rhs)?;
                self.steps.push(s);
            }
            Line::Region(r) => {
                r.roots.iter().flat_map(|(a, b)| [a, b]).try_for_each(known)?;
                self.regions.push(r);
            }
            Line::NotFired(n) => self.not_fired.push(n),
            Line::Declined(d) => self.declined.push(d),
            Line::Output(o) => {
                known(&o.before)?;
                known(&o.after)?;
                self.outputs.push(o);
            }
            Line::End(_) => return Err("a second end".into()),
        }
        Ok(())
    }
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
