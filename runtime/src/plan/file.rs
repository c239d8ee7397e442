//! Plan files (`.convc`): the envelope around the plan and its constants.
//!
//! | bytes | what |
//! |---|---|
//! | 0..6 | `CONVC\0` |
//! | 6..8 | format version, u16 little-endian like every number here |
//! | 8..12 | number of sections, u32 |
//! | 12..16 | zero |
//! | 16..24 | length of the file, u64 |
//! | 24.. | the sections, 32 bytes each: kind u32, zero u32, offset u64, length u64, checksum u64 |
//!
//! Zeros fill up to the first section. Sections lie in the order of the table, each at a multiple of 4096, so that a
//! mapped weight section shares no page with another; no two overlap. The checksum is FNV-1a of 64 bits.
//! The plan section is described in `proto/plan.proto`; weight sections are plain bytes that it points into.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use std::ops::Range;

use super::PlanError;
use crate::{Blob, DType, OpError, TensorError, dim::ParseDimError};

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/convc.plan.rs"));
}

/// What a plan file begins with.
pub const MAGIC: [u8; 6] = *b"CONVC\0";
/// The format version that this runtime reads and writes.
pub const VERSION: u16 = 1;

const PREFIX: usize = 24;
const ENTRY: usize = 32;
const MAX_SECTIONS: usize = 64;
const SECTION_ALIGN: usize = 4096;
const CONSTANT_ALIGN: usize = 64;
/// Largest record of the plan section, which bounds what decoding one allocates.
const MAX_RECORD: usize = 4 << 20;
/// Deepest nesting of `If`.
const MAX_DEPTH: usize = 32;
const PLAN: u32 = 1;
const WEIGHTS: u32 = 2;

/// Why a file is not a plan that this runtime can run, or a plan cannot become a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanFileError {
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file does not begin with [`MAGIC`].
    #[error("this is not a plan file")]
    NotAPlan,
    /// Written in a format that this runtime does not know.
    #[error("the plan has format version {found}, this runtime reads version {VERSION}")]
    Version {
        /// The version written in the file.
        found: u16,
    },
    /// The header contradicts itself or the file.
    #[error("the header is damaged: {problem}")]
    Header {
        /// What is wrong.
        problem: String,
    },
    /// A section's bytes are not those that were written.
    #[error("section {section} is damaged: its checksum does not match")]
    Checksum {
        /// Index into the section table.
        section: usize,
    },
    /// The plan needs operators that this runtime was built without.
    #[error("the plan needs operators that this runtime does not have: {}", operators.join(", "))]
    MissingOperators {
        /// Their names.
        operators: Vec<String>,
    },
    /// A record that is no valid protobuf message, of an unknown kind or out of place.
    #[error("record {record} of the plan: {problem}")]
    Record {
        /// Which, counted from 0.
        record: usize,
        /// What is wrong.
        problem: String,
    },
    /// An element type that does not exist.
    #[error("{at}: there is no element type {name:?}")]
    UnknownType {
        /// Which value.
        at: String,
        /// The name written.
        name: String,
    },
    /// A size that is no expression.
    #[error("{at}: {source}")]
    Dim {
        /// Which value.
        at: String,
        /// Why.
        source: ParseDimError,
    },
    /// A constant whose bytes lie outside its section, are not aligned, or do not fit its type and shape.
    #[error("{at}: bytes {range:?} of section {section}: {problem}")]
    Bytes {
        /// Which value.
        at: String,
        /// Index into the section table.
        section: usize,
        /// Where they should be.
        range: Range<u64>,
        /// What is wrong.
        problem: String,
    },
    /// A constant that cannot be.
    #[error("{at}: {source}")]
    Tensor {
        /// Which value.
        at: String,
        /// Why.
        source: TensorError,
    },
    /// An operator whose attributes are not its own.
    #[error("instruction {node:?} ({op}): {source}")]
    Operator {
        /// The instruction.
        node: String,
        /// The operator.
        op: String,
        /// Why.
        source: OpError,
    },
    /// `If`s nested too deeply.
    #[error("branches are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// A record that would be larger than readers accept.
    #[error("{at} takes {bytes} bytes in the plan, at most {MAX_RECORD} are allowed")]
    TooLarge {
        /// Which part of the plan.
        at: String,
        /// How many.
        bytes: usize,
    },
    /// The plan breaks an invariant.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// An entry of the section table.
#[derive(Debug, Clone, PartialEq)]
struct Section {
    kind: u32,
    range: Range<usize>,
    checksum: u64,
}

/// FNV-1a, 64 bits: <https://datatracker.ietf.org/doc/draft-eastlake-fnv/>.
#[derive(Clone, Copy)]
struct Fnv(u64);

impl Fnv {
    fn new() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    fn update(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.0 = (self.0 ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn of(bytes: &[u8]) -> u64 {
        let mut fnv = Fnv::new();
        fnv.update(bytes);
        fnv.0
    }
}

fn round_up(n: usize, to: usize) -> Option<usize> {
    Some(n.checked_add(to - 1)? / to * to)
}

/// The element type of this name.
fn dtype(name: &str, at: &dyn Fn() -> String) -> Result<DType, PlanFileError> {
    DType::from_name(name).ok_or_else(|| PlanFileError::UnknownType { at: at(), name: name.to_owned() })
}

/// Reads the header: what kind each section is and where it lies, proved to be within the file and apart.
fn sections(file: &Blob) -> Result<Vec<Section>, PlanFileError> {
    let bytes = file.as_bytes();
    let header = |problem: String| PlanFileError::Header { problem };
    let u32_at = |at: usize| -> Option<u32> { Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)) };
    let u64_at = |at: usize| -> Option<u64> { Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?)) };
    let short = || header("it is cut short".into());
    if bytes.get(..MAGIC.len()) != Some(&MAGIC[..]) {
        return Err(PlanFileError::NotAPlan);
    }
    let version = bytes.get(6..8).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes).ok_or_else(short)?;
    if version != VERSION {
        return Err(PlanFileError::Version { found: version });
    }
    let count = u32_at(8).ok_or_else(short)? as usize;
    if count > MAX_SECTIONS {
        return Err(header(format!("it lists {count} sections, at most {MAX_SECTIONS} are allowed")));
    }
    let stated = u64_at(16).ok_or_else(short)?;
    if stated != bytes.len() as u64 {
        return Err(header(format!("it says that the file has {stated} bytes, the file has {}", bytes.len())));
    }
    let mut end = PREFIX + count * ENTRY;
    let mut sections = Vec::with_capacity(count);
    for i in 0..count {
        let at = PREFIX + i * ENTRY;
        let (kind, zero) = (u32_at(at).ok_or_else(short)?, u32_at(at + 4).ok_or_else(short)?);
        let (offset, length) = (u64_at(at + 8).ok_or_else(short)?, u64_at(at + 16).ok_or_else(short)?);
        let checksum = u64_at(at + 24).ok_or_else(short)?;
        let place = || format!("section {i} (offset {offset}, {length} bytes)");
        let range = (|| {
            let start = usize::try_from(offset).ok()?;
            let stop = start.checked_add(usize::try_from(length).ok()?)?;
            (stop <= bytes.len()).then_some(start..stop)
        })()
        .ok_or_else(|| header(format!("{} lies outside the file", place())))?;
        if range.start < end {
            return Err(header(format!("{} overlaps what comes before it", place())));
        }
        if !range.start.is_multiple_of(SECTION_ALIGN) || zero != 0 {
            return Err(header(format!(
                "{} is not at a multiple of {SECTION_ALIGN}, or its padding is not 0",
                place()
            )));
        }
        end = range.end;
        sections.push(Section { kind, range, checksum });
    }
    Ok(sections)
}

/// Compares every section of a plan file, the weights included, with its checksum. Loading checks the plan section only,
/// so that no page of the weights is touched before it is needed.
///
/// # Errors
/// [`PlanFileError::Checksum`], or what is wrong with the header.
pub fn verify_checksums(file: &Blob) -> Result<(), PlanFileError> {
    for (i, section) in sections(file)?.iter().enumerate() {
        let bytes = file.as_bytes().get(section.range.clone()).unwrap_or_default();
        if Fnv::of(bytes) != section.checksum {
            return Err(PlanFileError::Checksum { section: i });
        }
    }
    Ok(())
}
