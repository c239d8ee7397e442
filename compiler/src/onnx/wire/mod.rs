//! The scan of a file's bytes that comes before the protobuf parser.
//!
//! The parser recurses without bound on groups, allocates for lengths it has not checked, keeps unknown fields
//! in a hash table with a fixed key, and copies every weight. `scan` therefore walks the bytes first, with a
//! stack of its own. It checks all that the parser relies on against ONNX's schema and writes a *skeleton*: the
//! same message without the large payloads of its tensors and without unknown fields. The parser sees only the
//! skeleton. Where a payload was, the tensor carries its ordinal in [`MARKER`], a field that no file can forge
//! because the scan drops it along with all other fields that the schema does not know.
//!
//! The skeleton is written in one pass: every edit makes a message shorter, so its length prefix is patched in
//! place and keeps its width, padded as protobuf permits. The skeleton is thus never longer than the file, and
//! longer than the file less its payloads by no more than a marker for each. Apart from it the scan holds one
//! frame per open message and one range per payload.

mod schema;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

use schema::*;

use onnx_protobuf::{Message, ModelProto, TensorProto};
use protobuf::UnknownValueRef;

/// Field of `TensorProto` that stands in a skeleton for an elided payload; its value is the ordinal plus one.
const MARKER: u32 = 99_001;

/// Field number of `TensorProto.raw_data`.
const RAW_DATA: u32 = 9;

/// Nesting at which the protobuf parser gives up, whatever [`WireLimits::depth`] says.
const PARSER_DEPTH: usize = 100;

/// Shortest payload worth a marker, and the shortest that a marker is sure not to outgrow.
const SHORTEST_ELIDED: usize = 16;

/// Bounds on what a file may ask of the scan and of the parser behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireLimits {
    /// Deepest nesting of messages below the outermost one. More than 100 counts as 100, the parser's own limit.
    pub depth: usize,
    /// Most messages, and elements of repeated strings, in one file. Each may take two bytes there but costs the
    /// parser up to a few hundred.
    pub messages: usize,
    /// Length in bytes from which `raw_data` is left in the file. Less than 16 counts as 16.
    pub elide: usize,
}

impl Default for WireLimits {
    fn default() -> Self {
        Self { depth: PARSER_DEPTH, messages: 1_000_000, elide: 1024 }
    }
}

/// What `scan` makes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// The message without its large payloads and unknown fields, safe to parse.
    pub skeleton: Vec<u8>,
    /// Byte ranges in the file of the elided payloads, to be looked up by `payload_index`.
    pub payloads: Vec<Range<usize>>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Byte offset in the file.
    pub offset: usize,
    /// Path to the innermost message or field known there, such as `graph.node[12].attribute[0].t`. It is empty
    /// for the outermost message.
    pub path: String,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "the outermost message" } else { &self.path };
        write!(f, "{path} (byte {})", self.offset)
    }
}

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// A field is cut short by the end of its message.
    #[error("{at} breaks off in the middle of a field")]
    Truncated {
        /// Where the cut field begins.
        at: Site,
    },
    /// A varint has more bits than its use allows: 32 for tags and lengths, 64 for values.
    #[error("{at} holds a varint of more than {bits} bits")]
    Varint {
        /// Where the varint begins.
        at: Site,
        /// The bits allowed.
        bits: u32,
    },
    /// A length reaches beyond the enclosing message.
    #[error("{at} declares {length} bytes where the enclosing message has {left} left")]
    Length {
        /// Where the length is written.
        at: Site,
        /// The length declared.
        length: usize,
        /// Bytes left in the enclosing message.
        left: usize,
    },
    /// A field has the number 0.
    #[error("{at} holds a field of number 0, which protobuf does not allow")]
    FieldZero {
        /// Where the field begins.
        at: Site,
    },
    /// A group begins or ends.
    #[error("{at} holds a protobuf group, which ONNX does not use")]
    Group {
        /// Where the group's tag is.
        at: Site,
    },
    /// A field has wire type 6 or 7.
    #[error("{at} holds a field of wire type {wire}, which protobuf does not define")]
    WireType {
        /// Where the field begins.
        at: Site,
        /// The wire type found.
        wire: u32,
    },
    /// A field of the schema has another field's wire type.
    #[error("{at} has wire type {wire} although the ONNX schema makes it {wanted}")]
    Mismatch {
        /// Where the field begins.
        at: Site,
        /// The wire type found.
        wire: u32,
        /// What the schema says the field is.
        wanted: &'static str,
    },
    /// A string is not UTF-8.
    #[error("{at} is not valid UTF-8")]
    Utf8 {
        /// Where the first invalid byte is.
        at: Site,
    },
    /// A packed list of fixed-size numbers has a fraction of a number at its end.
    #[error("{at} packs numbers of {width} bytes into {length} bytes, which leaves a fraction of one")]
    Packed {
        /// Where the field begins.
        at: Site,
        /// Bytes in the list.
        length: usize,
        /// Bytes in each number.
        width: usize,
    },
    /// A value of a 32-bit integer or enumeration has more bits.
    #[error("{at} holds {value}, which does not fit in 32 bits")]
    Int32 {
        /// Where the value is.
        at: Site,
        /// The value found.
        value: i64,
    },
    /// A sub-message, or one of several that exclude each other, occurs again. Parsers disagree on the outcome.
    #[error("{at} occurs in a message that already holds it or an alternative to it")]
    Duplicate {
        /// Where the second occurrence begins.
        at: Site,
    },
    /// Messages are nested too deeply.
    #[error("{at} is nested more than {limit} messages deep")]
    Depth {
        /// Where the message that is one too deep begins.
        at: Site,
        /// The limit it exceeds.
        limit: usize,
    },
    /// There are too many messages or repeated strings.
    #[error("{at} is one message or string more than the {limit} allowed in a file")]
    Count {
        /// Where the message or string that is one too many begins.
        at: Site,
        /// The limit it exceeds.
        limit: usize,
    },
    /// The parser refused what the scan accepted.
    #[error("the protobuf parser refused the scanned message: {source}")]
    Parser {
        /// The parser's reason.
        source: protobuf::Error,
    },
}

/// Checks a file that holds a `ModelProto` and separates its large payloads from the rest.
pub(super) fn scan(bytes: &[u8], limits: &WireLimits) -> Result<Scanned, WireError> {
    Scanner::new(bytes, limits, &MODEL).run()
}

/// Does what `scan` does for a file that holds a single `TensorProto`.
pub(super) fn scan_tensor(bytes: &[u8], limits: &WireLimits) -> Result<Scanned, WireError> {
    Scanner::new(bytes, limits, &TENSOR).run()
}

/// Scans and parses a file that holds a `ModelProto`. The ranges are those of its payloads in `bytes`.
pub(super) fn parse(bytes: &[u8], limits: &WireLimits) -> Result<(ModelProto, Vec<Range<usize>>), WireError> {
    decode(scan(bytes, limits)?)
}

/// Scans and parses a file that holds a single `TensorProto`.
pub(super) fn parse_tensor(bytes: &[u8], limits: &WireLimits) -> Result<(TensorProto, Vec<Range<usize>>), WireError> {
    decode(scan_tensor(bytes, limits)?)
}

fn decode<M: Message>(scanned: Scanned) -> Result<(M, Vec<Range<usize>>), WireError> {
    let message = M::parse_from_bytes(&scanned.skeleton).map_err(|source| WireError::Parser { source })?;
    Ok((message, scanned.payloads))
}

/// Index into [`Scanned::payloads`] of a tensor of the parsed skeleton, or `None` when its data is in the message.
pub(super) fn payload_index(t: &TensorProto) -> Option<usize> {
    match t.special_fields.unknown_fields().get(MARKER)? {
        UnknownValueRef::Varint(ordinal) => usize::try_from(ordinal).ok()?.checked_sub(1),
        _ => None,
    }
}

/// A message that is being read.
struct Frame {
    schema: &'static Schema,
    /// The field of the enclosing message that this is; `None` for the outermost message.
    step: Option<Step>,
    /// First byte of the message in the file, and the first after it.
    body: Range<usize>,
    /// First byte of the message in the skeleton.
    copy: usize,
    /// Bytes of the length prefix.
    prefix: usize,
    /// Occurrences so far of each field, in the schema's order.
    seen: [u32; SLOTS],
    /// The last `raw_data` of a tensor, which is written when the tensor ends.
    raw: Option<Range<usize>>,
}

/// One step of a path: a field and which of its occurrences.
#[derive(Clone, Copy)]
struct Step {
    field: &'static Field,
    index: u32,
}

struct Scanner<'a> {
    bytes: &'a [u8],
    elide: usize,
    depth: usize,
    /// Messages and repeated strings seen so far, and the most there may be.
    count: usize,
    most: usize,
    pos: usize,
    /// Start of the bytes before `pos` that are yet to be copied to the skeleton.
    pending: usize,
    top: Frame,
    /// The messages around `top`, outermost first.
    stack: Vec<Frame>,
    /// The field of `top` that is being read, once it is known.
    step: Option<Step>,
    skeleton: Vec<u8>,
    payloads: Vec<Range<usize>>,
}

impl<'a> Scanner<'a> {
    fn new(bytes: &'a [u8], limits: &WireLimits, schema: &'static Schema) -> Self {
        Self {
            bytes,
            elide: limits.elide.max(SHORTEST_ELIDED),
            depth: limits.depth.min(PARSER_DEPTH),
            count: 0,
            most: limits.messages,
            pos: 0,
            pending: 0,
            top: Frame { schema, step: None, body: 0..bytes.len(), copy: 0, prefix: 0, seen: [0; SLOTS], raw: None },
            stack: Vec::new(),
            step: None,
            skeleton: Vec::new(),
            payloads: Vec::new(),
        }
    }

    fn run(mut self) -> Result<Scanned, WireError> {
        loop {
            while self.pos < self.top.body.end {
                self.field()?;
            }
            self.write_raw();
            let Some(parent) = self.stack.pop() else {
                break;
            };
            self.patch_length();
            self.top = parent;
        }
        self.flush(self.pos);
        Ok(Scanned { skeleton: self.skeleton, payloads: self.payloads })
    }

    fn field(&mut self) -> Result<(), WireError> {
        let start = self.pos;
        self.step = None;
        let tag = self.varint(self.top.body.end, 32)?;
        let wire = u32::try_from(tag & 7).unwrap_or(u32::MAX);
        match (tag >> 3, wire) {
            (0, _) => {
                return Err(WireError::FieldZero { at: self.site(start) });
            }
            (_, START_GROUP | END_GROUP) => {
                return Err(WireError::Group { at: self.site(start) });
            }
            (_, VARINT | FIXED64 | LENGTH | FIXED32) => {}
            _ => {
                return Err(WireError::WireType { at: self.site(start), wire });
            }
        }
        let fields = self.top.schema.fields;
        let Some(slot) = fields.iter().position(|f| u64::from(f.number) == tag >> 3) else {
            self.flush(start);
            self.skip(wire)?;
            self.pending = self.pos;
            return Ok(());
        };
        let (Some(field), Some(seen)) = (fields.get(slot), self.top.seen.get_mut(slot)) else {
            return Ok(());
        };
        self.step = Some(Step { field, index: *seen });
        *seen = seen.saturating_add(1);

        let many = field.label == Label::Many;
        match (field.data, wire) {
            (Data::Message(schema), LENGTH) => return self.open(start, field, schema),
            (Data::String, LENGTH) => {
                self.admit(start, many)?;
                let range = self.length()?;
                if let Err(e) = std::str::from_utf8(self.slice(range.clone())) {
                    return Err(WireError::Utf8 { at: self.site(range.start.saturating_add(e.valid_up_to())) });
                }
                self.pos = range.end;
            }
            (Data::Bytes, LENGTH) => {
                self.admit(start, many)?;
                self.pos = self.length()?.end;
            }
            (Data::Raw, LENGTH) => {
                self.flush(start);
                let range = self.length()?;
                self.pos = range.end;
                self.pending = self.pos;
                self.top.raw = Some(range);
            }
            (Data::Int32 | Data::Int64, VARINT) => self.integer(field, self.top.body.end)?,
            (Data::Int32 | Data::Int64, LENGTH) if many => {
                let end = self.length()?.end;
                while self.pos < end {
                    self.integer(field, end)?;
                }
            }
            (Data::Fixed32, FIXED32) | (Data::Fixed64, FIXED64) => self.skip(wire)?,
            (Data::Fixed32 | Data::Fixed64, LENGTH) if many => {
                let range = self.length()?;
                let width = if field.data == Data::Fixed32 { 4 } else { 8 };
                if !range.len().is_multiple_of(width) {
                    return Err(WireError::Packed { at: self.site(start), length: range.len(), width });
                }
                self.pos = range.end;
            }
            (data, _) => {
                return Err(WireError::Mismatch { at: self.site(start), wire, wanted: data.describe() });
            }
        }
        Ok(())
    }

    /// Enters the message in `field`, whose tag is at `start` and has been read.
    fn open(&mut self, start: usize, field: &Field, schema: &'static Schema) -> Result<(), WireError> {
        let repeated = match field.label {
            Label::Many => false,
            Label::One => self.step.is_some_and(|s| s.index > 0),
            Label::Choice => {
                let choices = self.top.schema.fields.iter().zip(&self.top.seen);
                choices.filter(|(f, _)| f.label == Label::Choice).map(|(_, &n)| u64::from(n)).sum::<u64>() > 1
            }
        };
        if repeated {
            return Err(WireError::Duplicate { at: self.site(start) });
        }
        if self.stack.len() >= self.depth {
            return Err(WireError::Depth { at: self.site(start), limit: self.depth });
        }
        self.admit(start, true)?;
        let prefix = self.pos;
        let body = self.length()?;
        let child = Frame {
            schema,
            step: self.step.take(),
            copy: self.skeleton.len().saturating_add(self.pos.saturating_sub(self.pending)),
            prefix: self.pos.saturating_sub(prefix),
            body,
            seen: [0; SLOTS],
            raw: None,
        };
        self.stack.push(std::mem::replace(&mut self.top, child));
        Ok(())
    }

    /// Writes the payload that counts in a tensor that ends here, or its marker.
    fn write_raw(&mut self) {
        let Some(range) = self.top.raw.take() else {
            return;
        };
        self.flush(self.pos);
        if range.len() >= self.elide {
            self.payloads.push(range);
            push_varint(&mut self.skeleton, u64::from(MARKER << 3 | VARINT));
            push_varint(&mut self.skeleton, wide(self.payloads.len()));
        } else {
            push_varint(&mut self.skeleton, u64::from(RAW_DATA << 3 | LENGTH));
            push_varint(&mut self.skeleton, wide(range.len()));
            self.skeleton.extend_from_slice(self.slice(range));
        }
    }

    /// Corrects the length prefix of `top`, which ends here, if something in it has been dropped. The prefix has
    /// been flushed in that case.
    fn patch_length(&mut self) {
        let copied = self.skeleton.len().saturating_add(self.pos.saturating_sub(self.pending));
        let length = copied.saturating_sub(self.top.copy);
        if length == self.top.body.len() {
            return;
        }
        let prefix = self.top.copy.saturating_sub(self.top.prefix)..self.top.copy;
        let mut rest = wide(length);
        if let Some([front @ .., last]) = self.skeleton.get_mut(prefix) {
            for byte in front {
                *byte = low_bits(rest) | 0x80;
                rest >>= 7;
            }
            *last = low_bits(rest);
        }
    }

    /// Counts a message or repeated string that begins at `start`.
    fn admit(&mut self, start: usize, counts: bool) -> Result<(), WireError> {
        if counts {
            if self.count >= self.most {
                return Err(WireError::Count { at: self.site(start), limit: self.most });
            }
            self.count = self.count.saturating_add(1);
        }
        Ok(())
    }

    /// Reads past a field of no interest.
    fn skip(&mut self, wire: u32) -> Result<(), WireError> {
        let width = match wire {
            VARINT => return self.varint(self.top.body.end, 64).map(drop),
            LENGTH => {
                self.pos = self.length()?.end;
                return Ok(());
            }
            FIXED32 => 4,
            _ => 8,
        };
        match self.pos.checked_add(width) {
            Some(end) if end <= self.top.body.end => self.pos = end,
            _ => {
                return Err(WireError::Truncated { at: self.site(self.pos) });
            }
        }
        Ok(())
    }

    /// Reads a length and returns the range it spans, which lies within `top`.
    fn length(&mut self) -> Result<Range<usize>, WireError> {
        let start = self.pos;
        let value = self.varint(self.top.body.end, 32)?;
        let length = usize::try_from(value).unwrap_or(usize::MAX);
        let left = self.top.body.end.saturating_sub(self.pos);
        match self.pos.checked_add(length) {
            Some(end) if length <= left => Ok(self.pos..end),
            _ => Err(WireError::Length { at: self.site(start), length, left }),
        }
    }

    fn integer(&mut self, field: &Field, end: usize) -> Result<(), WireError> {
        let start = self.pos;
        let value = self.varint(end, 64)?.cast_signed();
        if field.data == Data::Int32 && i32::try_from(value).is_err() {
            return Err(WireError::Int32 { at: self.site(start), value });
        }
        Ok(())
    }

    /// Reads a varint that ends before `end` and has at most `bits` bits, padding included.
    #[inline]
    fn varint(&mut self, end: usize, bits: u32) -> Result<u64, WireError> {
        let mut value = 0;
        let mut shift = 0;
        for &byte in self.slice(self.pos..end) {
            let room = bits.saturating_sub(shift);
            if room < 7 && byte >> room != 0 {
                return Err(WireError::Varint { at: self.site(self.pos), bits });
            }
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                self.pos = self.pos.saturating_add(usize::try_from(shift / 7).unwrap_or(usize::MAX));
                return Ok(value);
            }
        }
        Err(WireError::Truncated { at: self.site(self.pos) })
    }

    /// Copies the file up to `end` to the skeleton.
    fn flush(&mut self, end: usize) {
        self.skeleton.extend_from_slice(self.slice(self.pending..end));
        self.pending = end;
    }

    fn slice(&self, range: Range<usize>) -> &'a [u8] {
        debug_assert!(range.start <= range.end && range.end <= self.bytes.len());
        self.bytes.get(range).unwrap_or_default()
    }

    #[cold]
    fn site(&self, offset: usize) -> Site {
        let mut path = String::new();
        let frames = self.stack.iter().chain([&self.top]);
        for step in frames.filter_map(|frame| frame.step).chain(self.step) {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(step.field.name);
            if step.field.label == Label::Many {
                path.push_str(&format!("[{}]", step.index));
            }
        }
        Site { offset, path }
    }
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn low_bits(n: u64) -> u8 {
    u8::try_from(n & 0x7f).unwrap_or(0)
}

fn push_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(low_bits(n) | 0x80);
        n >>= 7;
    }
    out.push(low_bits(n));
}
