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

use std::fmt;
use std::ops::Range;

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

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;
const START_GROUP: u32 = 3;
const END_GROUP: u32 = 4;
const FIXED32: u32 = 5;

/// Most fields in any message of the schema.
const SLOTS: usize = 18;

struct Schema {
    fields: &'static [Field],
}

struct Field {
    number: u32,
    name: &'static str,
    label: Label,
    data: Data,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    One,
    Many,
    /// One of the alternatives of a `oneof` of messages.
    Choice,
}

#[derive(Clone, Copy)]
enum Data {
    Message(&'static Schema),
    String,
    Bytes,
    /// Bytes that may be elided.
    Raw,
    /// `int32` and enumerations.
    Int32,
    /// `int64` and `uint64`.
    Int64,
    Fixed32,
    Fixed64,
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl Data {
    fn describe(self) -> &'static str {
        match self {
            Data::Message(_) => "a message",
            Data::String => "a string",
            Data::Bytes | Data::Raw => "bytes",
            Data::Int32 | Data::Int64 => "an integer",
            Data::Fixed32 => "a float",
            Data::Fixed64 => "a double",
        }
    }
}

const fn schema(fields: &'static [Field]) -> Schema {
    assert!(fields.len() <= SLOTS);
    Schema { fields }
}

const fn one(number: u32, name: &'static str, data: Data) -> Field {
    Field { number, name, label: Label::One, data }
}

const fn many(number: u32, name: &'static str, data: Data) -> Field {
    Field { number, name, label: Label::Many, data }
}

const fn choice(number: u32, name: &'static str, data: Data) -> Field {
    Field { number, name, label: Label::Choice, data }
}

static MODEL: Schema = schema(&[
    one(1, "ir_version", Data::Int64),
    one(2, "producer_name", Data::String),
    one(3, "producer_version", Data::String),
    one(4, "domain", Data::String),
    one(5, "model_version", Data::Int64),
    one(6, "doc_string", Data::String),
    one(7, "graph", Data::Message(&GRAPH)),
    many(8, "opset_import", Data::Message(&OPERATOR_SET)),
    many(14, "metadata_props", Data::Message(&STRING_ENTRY)),
    many(20, "training_info", Data::Message(&TRAINING_INFO)),
    many(25, "functions", Data::Message(&FUNCTION)),
]);

static ATTRIBUTE: Schema = schema(&[
    one(1, "name", Data::String),
    one(2, "f", Data::Fixed32),
    one(3, "i", Data::Int64),
    one(4, "s", Data::Bytes),
    one(5, "t", Data::Message(&TENSOR)),
    one(6, "g", Data::Message(&GRAPH)),
    many(7, "floats", Data::Fixed32),
    many(8, "ints", Data::Int64),
    many(9, "strings", Data::Bytes),
    many(10, "tensors", Data::Message(&TENSOR)),
    many(11, "graphs", Data::Message(&GRAPH)),
    one(13, "doc_string", Data::String),
    one(14, "tp", Data::Message(&TYPE)),
    many(15, "type_protos", Data::Message(&TYPE)),
    one(20, "type", Data::Int32),
    one(21, "ref_attr_name", Data::String),
    one(22, "sparse_tensor", Data::Message(&SPARSE_TENSOR)),
    many(23, "sparse_tensors", Data::Message(&SPARSE_TENSOR)),
]);

static VALUE_INFO: Schema = schema(&[
    one(1, "name", Data::String),
    one(2, "type", Data::Message(&TYPE)),
    one(3, "doc_string", Data::String),
    many(4, "metadata_props", Data::Message(&STRING_ENTRY)),
]);

static NODE: Schema = schema(&[
    many(1, "input", Data::String),
    many(2, "output", Data::String),
    one(3, "name", Data::String),
    one(4, "op_type", Data::String),
    many(5, "attribute", Data::Message(&ATTRIBUTE)),
    one(6, "doc_string", Data::String),
    one(7, "domain", Data::String),
    one(8, "overload", Data::String),
    many(9, "metadata_props", Data::Message(&STRING_ENTRY)),
]);

static TRAINING_INFO: Schema = schema(&[
    one(1, "initialization", Data::Message(&GRAPH)),
    one(2, "algorithm", Data::Message(&GRAPH)),
    many(3, "initialization_binding", Data::Message(&STRING_ENTRY)),
    many(4, "update_binding", Data::Message(&STRING_ENTRY)),
]);

static STRING_ENTRY: Schema = schema(&[one(1, "key", Data::String), one(2, "value", Data::String)]);

static TENSOR_ANNOTATION: Schema = schema(&[
    one(1, "tensor_name", Data::String),
    many(2, "quant_parameter_tensor_names", Data::Message(&STRING_ENTRY)),
]);

static GRAPH: Schema = schema(&[
    many(1, "node", Data::Message(&NODE)),
    one(2, "name", Data::String),
    many(5, "initializer", Data::Message(&TENSOR)),
    one(10, "doc_string", Data::String),
    many(11, "input", Data::Message(&VALUE_INFO)),
    many(12, "output", Data::Message(&VALUE_INFO)),
    many(13, "value_info", Data::Message(&VALUE_INFO)),
    many(14, "quantization_annotation", Data::Message(&TENSOR_ANNOTATION)),
    many(15, "sparse_initializer", Data::Message(&SPARSE_TENSOR)),
    many(16, "metadata_props", Data::Message(&STRING_ENTRY)),
]);

static TENSOR_SEGMENT: Schema = schema(&[one(1, "begin", Data::Int64), one(2, "end", Data::Int64)]);

static TENSOR: Schema = schema(&[
    many(1, "dims", Data::Int64),
    one(2, "data_type", Data::Int32),
    one(3, "segment", Data::Message(&TENSOR_SEGMENT)),
    many(4, "float_data", Data::Fixed32),
    many(5, "int32_data", Data::Int32),
    many(6, "string_data", Data::Bytes),
    many(7, "int64_data", Data::Int64),
    one(8, "name", Data::String),
    one(9, "raw_data", Data::Raw),
    many(10, "double_data", Data::Fixed64),
    many(11, "uint64_data", Data::Int64),
    one(12, "doc_string", Data::String),
    many(13, "external_data", Data::Message(&STRING_ENTRY)),
    one(14, "data_location", Data::Int32),
    many(16, "metadata_props", Data::Message(&STRING_ENTRY)),
]);

static SPARSE_TENSOR: Schema = schema(&[
    one(1, "values", Data::Message(&TENSOR)),
    one(2, "indices", Data::Message(&TENSOR)),
    many(3, "dims", Data::Int64),
]);

static TENSOR_SHAPE_DIMENSION: Schema =
    schema(&[one(1, "dim_value", Data::Int64), one(2, "dim_param", Data::String), one(3, "denotation", Data::String)]);

static TENSOR_SHAPE: Schema = schema(&[many(1, "dim", Data::Message(&TENSOR_SHAPE_DIMENSION))]);

static TYPE_TENSOR: Schema = schema(&[one(1, "elem_type", Data::Int32), one(2, "shape", Data::Message(&TENSOR_SHAPE))]);

static TYPE_SEQUENCE: Schema = schema(&[one(1, "elem_type", Data::Message(&TYPE))]);

static TYPE_MAP: Schema = schema(&[one(1, "key_type", Data::Int32), one(2, "value_type", Data::Message(&TYPE))]);

static TYPE_OPTIONAL: Schema = schema(&[one(1, "elem_type", Data::Message(&TYPE))]);

static TYPE_SPARSE_TENSOR: Schema =
    schema(&[one(1, "elem_type", Data::Int32), one(2, "shape", Data::Message(&TENSOR_SHAPE))]);

static TYPE: Schema = schema(&[
    choice(1, "tensor_type", Data::Message(&TYPE_TENSOR)),
    choice(4, "sequence_type", Data::Message(&TYPE_SEQUENCE)),
    choice(5, "map_type", Data::Message(&TYPE_MAP)),
    one(6, "denotation", Data::String),
    choice(8, "sparse_tensor_type", Data::Message(&TYPE_SPARSE_TENSOR)),
    choice(9, "optional_type", Data::Message(&TYPE_OPTIONAL)),
]);

static OPERATOR_SET: Schema = schema(&[one(1, "domain", Data::String), one(2, "version", Data::Int64)]);

static FUNCTION: Schema = schema(&[
    one(1, "name", Data::String),
    many(4, "input", Data::String),
    many(5, "output", Data::String),
    many(6, "attribute", Data::String),
    many(7, "node", Data::Message(&NODE)),
    one(8, "doc_string", Data::String),
    many(9, "opset_import", Data::Message(&OPERATOR_SET)),
    one(10, "domain", Data::String),
    many(11, "attribute_proto", Data::Message(&ATTRIBUTE)),
    many(12, "value_info", Data::Message(&VALUE_INFO)),
    one(13, "overload", Data::String),
    many(14, "metadata_props", Data::Message(&STRING_ENTRY)),
]);

#[cfg(test)]
mod tests {
    use onnx_protobuf::{
        AttributeProto, FunctionProto, GraphProto, NodeProto, SparseTensorProto, TypeProto, tensor_shape_proto,
        type_proto,
    };
    use proptest::prelude::*;
    use protobuf::{EnumOrUnknown, MessageField};

    use super::*;

    const LIMITS: WireLimits = WireLimits { depth: 100, messages: 1_000_000, elide: 1024 };

    fn tensor(name: &str, len: usize) -> TensorProto {
        TensorProto {
            dims: vec![1, i64::MAX, -1],
            data_type: 2,
            name: name.into(),
            raw_data: (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect(),
            ..Default::default()
        }
    }

    fn attribute(name: &str) -> AttributeProto {
        AttributeProto { name: name.into(), ints: vec![3, -3], ..Default::default() }
    }

    fn graph(levels: usize) -> GraphProto {
        let mut dim = tensor_shape_proto::Dimension::new();
        dim.set_dim_param("batch".into());
        let shape = onnx_protobuf::TensorShapeProto { dim: vec![dim; 2], ..Default::default() };
        let mut ty = TypeProto::new();
        ty.set_tensor_type(type_proto::Tensor { elem_type: 1, shape: MessageField::some(shape), ..Default::default() });
        let value = onnx_protobuf::ValueInfoProto {
            name: "x".into(),
            type_: MessageField::some(ty.clone()),
            ..Default::default()
        };
        let sparse = SparseTensorProto {
            values: MessageField::some(tensor("values", 1500)),
            indices: MessageField::some(tensor("indices", 8)),
            dims: vec![4, 4],
            ..Default::default()
        };
        let mut branch = attribute("then_branch");
        branch.type_ = EnumOrUnknown::from_i32(5);
        branch.g = (levels > 0).then(|| graph(levels - 1)).into();
        let mut many = attribute("all");
        many.f = 0.5;
        many.s = vec![0xff, 0x00];
        many.t = MessageField::some(tensor("t", 1024));
        many.floats = vec![1.0, f32::NEG_INFINITY];
        many.strings = vec![b"a".to_vec(), vec![0xfe]];
        many.tensors = vec![tensor("a", 0), tensor("b", 1023), tensor("c", 5000)];
        many.sparse_tensor = MessageField::some(sparse.clone());
        many.tp = MessageField::some(ty);
        let mut numbers = tensor("numbers", 0);
        numbers.float_data = vec![0.25; 3];
        numbers.int32_data = vec![-1, i32::MAX];
        numbers.int64_data = vec![i64::MIN, 7];
        numbers.double_data = vec![2.5];
        numbers.uint64_data = vec![u64::MAX];
        numbers.string_data = vec![vec![0xff; 2000]];
        GraphProto {
            name: format!("graph {levels}"),
            node: vec![NodeProto {
                input: vec!["x".into(), String::new()],
                output: vec!["y".into()],
                op_type: "If".into(),
                attribute: vec![branch, many],
                ..Default::default()
            }],
            initializer: vec![tensor("small", 40), tensor("large", 70_000), numbers],
            sparse_initializer: vec![sparse],
            input: vec![value],
            ..Default::default()
        }
    }

    fn model() -> ModelProto {
        ModelProto {
            ir_version: 8,
            producer_name: "tests – é".into(),
            graph: MessageField::some(graph(2)),
            training_info: vec![onnx_protobuf::TrainingInfoProto {
                algorithm: MessageField::some(graph(0)),
                ..Default::default()
            }],
            functions: vec![FunctionProto {
                name: "f".into(),
                attribute_proto: vec![AttributeProto {
                    t: MessageField::some(tensor("in function", 3000)),
                    ..Default::default()
                }],
                node: graph(1).node,
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn join_tensor(t: &mut TensorProto, bytes: &[u8], payloads: &[Range<usize>]) -> usize {
        let Some(index) = payload_index(t) else {
            return 0;
        };
        assert!(t.raw_data.is_empty());
        t.raw_data = bytes[payloads[index].clone()].to_vec();
        t.special_fields = Default::default();
        1
    }

    fn join_nodes(nodes: &mut [NodeProto], bytes: &[u8], payloads: &[Range<usize>]) -> usize {
        let attributes = nodes.iter_mut().flat_map(|n| &mut n.attribute);
        attributes.map(|a| join_attribute(a, bytes, payloads)).sum()
    }

    fn join_attribute(a: &mut AttributeProto, bytes: &[u8], payloads: &[Range<usize>]) -> usize {
        let tensors = a.t.as_mut().into_iter().chain(&mut a.tensors);
        let sparse = a.sparse_tensor.as_mut().into_iter().chain(&mut a.sparse_tensors);
        let sparse = sparse.flat_map(|s| s.values.as_mut().into_iter().chain(s.indices.as_mut()));
        let own: usize = tensors.chain(sparse).map(|t| join_tensor(t, bytes, payloads)).sum();
        let graphs = a.g.as_mut().into_iter().chain(&mut a.graphs);
        own + graphs.map(|g| join_graph(g, bytes, payloads)).sum::<usize>()
    }

    fn join_graph(g: &mut GraphProto, bytes: &[u8], payloads: &[Range<usize>]) -> usize {
        let sparse = g.sparse_initializer.iter_mut();
        let sparse = sparse.flat_map(|s| s.values.as_mut().into_iter().chain(s.indices.as_mut()));
        let tensors = g.initializer.iter_mut().chain(sparse);
        let own: usize = tensors.map(|t| join_tensor(t, bytes, payloads)).sum();
        own + join_nodes(&mut g.node, bytes, payloads)
    }

    /// Puts the payloads back and returns how many there were.
    fn join(m: &mut ModelProto, bytes: &[u8], payloads: &[Range<usize>]) -> usize {
        let training = m.training_info.iter_mut();
        let training = training.flat_map(|t| t.initialization.as_mut().into_iter().chain(t.algorithm.as_mut()));
        let graphs = m.graph.as_mut().into_iter().chain(training);
        let mut count: usize = graphs.map(|g| join_graph(g, bytes, payloads)).sum();
        for f in &mut m.functions {
            count += join_nodes(&mut f.node, bytes, payloads);
            count += f.attribute_proto.iter_mut().map(|a| join_attribute(a, bytes, payloads)).sum::<usize>();
        }
        count
    }

    fn varint(n: u64) -> Vec<u8> {
        let mut out = Vec::new();
        push_varint(&mut out, n);
        out
    }

    /// A length-delimited field.
    fn field(number: u32, body: &[u8]) -> Vec<u8> {
        [varint(u64::from(number << 3 | LENGTH)), varint(wide(body.len())), body.to_vec()].concat()
    }

    fn refusal(bytes: &[u8]) -> String {
        scan(bytes, &LIMITS).unwrap_err().to_string()
    }

    #[test]
    fn joins_to_the_original() {
        let original = model();
        let bytes = original.write_to_bytes().unwrap();
        for elide in [0, 16, 40, 1024, 5000, usize::MAX] {
            let limits = WireLimits { elide, ..LIMITS };
            let scanned = scan(&bytes, &limits).unwrap();
            let elided: usize = scanned.payloads.iter().map(Range::len).sum();
            assert!(scanned.skeleton.len() <= bytes.len());
            assert!(scanned.skeleton.len() + elided <= bytes.len() + 8 * scanned.payloads.len());
            let (mut parsed, payloads) = parse(&bytes, &limits).unwrap();
            assert_eq!(payloads, scanned.payloads);
            assert_eq!(join(&mut parsed, &bytes, &payloads), payloads.len());
            assert_eq!(parsed, original);
        }
        assert_eq!(scan(&bytes, &WireLimits { elide: usize::MAX, ..LIMITS }).unwrap().payloads, []);
        assert!(scan(&bytes, &LIMITS).unwrap().payloads.len() > 10);
        assert!(scan(&[], &LIMITS).unwrap().skeleton.is_empty());
    }

    #[test]
    fn scans_a_lone_tensor() {
        for len in [0, 15, 1023, 1024, 100_000] {
            let original = tensor("lone", len);
            let bytes = original.write_to_bytes().unwrap();
            let (mut parsed, payloads) = parse_tensor(&bytes, &LIMITS).unwrap();
            assert_eq!(payload_index(&parsed), (len >= 1024).then_some(0));
            join_tensor(&mut parsed, &bytes, &payloads);
            assert_eq!(parsed, original);
        }
    }

    #[test]
    fn last_raw_data_counts() {
        let (small, large) = (field(9, &[1; 20]), field(9, &[2; 2000]));
        for parts in [[&small, &large], [&large, &small], [&small, &small], [&large, &large]] {
            let bytes = [parts[0].as_slice(), &field(8, b"name"), parts[1]].concat();
            let expected = TensorProto::parse_from_bytes(&bytes).unwrap();
            let (mut parsed, payloads) = parse_tensor(&bytes, &LIMITS).unwrap();
            assert_eq!(payloads.len(), usize::from(parts[1].len() > 1024));
            join_tensor(&mut parsed, &bytes, &payloads);
            assert_eq!(parsed, expected);
        }
    }

    #[test]
    fn markers_and_unknown_fields_of_the_file_are_dropped() {
        let forged = [varint(u64::from(MARKER << 3)), varint(1)].concat();
        let unknown = [field(77, &[0xff; 9]), vec![0x7d, 1, 2, 3, 4], vec![0x79; 9]].concat();
        let bytes = [forged.as_slice(), &field(9, &[7; 3]), &unknown, &field(8, b"n"), &forged].concat();
        let (parsed, payloads) = parse_tensor(&bytes, &LIMITS).unwrap();
        assert_eq!((payload_index(&parsed), payloads), (None, vec![]));
        assert_eq!((parsed.raw_data.as_slice(), parsed.name.as_str()), (&[7; 3][..], "n"));
        assert!(parsed.special_fields.unknown_fields().iter().next().is_none());

        let node = [unknown.as_slice(), &field(4, b"Relu")].concat();
        let (parsed, _) = parse(&field(7, &field(1, &node)), &LIMITS).unwrap();
        assert_eq!(parsed.graph.node[0].op_type, "Relu");
    }

    #[test]
    fn packed_and_unpacked_numbers_are_alike() {
        let packed = [field(1, &[1, 2]), field(4, &[0; 8]), field(5, &[5]), field(10, &[0; 8])].concat();
        let float = [0x25, 0, 0, 0, 0];
        let double = [0x51, 0, 0, 0, 0, 0, 0, 0, 0];
        let loose = [&[8, 1, 8, 2][..], &float, &float, &[0x28, 5], &double].concat();
        let parsed = parse_tensor(&packed, &LIMITS).unwrap().0;
        assert_eq!(parsed, parse_tensor(&loose, &LIMITS).unwrap().0);
        assert_eq!((parsed.dims.len(), parsed.float_data.len(), parsed.double_data.len()), (2, 2, 1));
    }

    #[test]
    fn every_refusal_says_where_and_why() {
        let in_node = |body: &[u8]| field(7, &[field(1, b""), field(1, body)].concat());
        let cases: &[(Vec<u8>, &str)] = &[
            (vec![0x08], "ir_version (byte 1) breaks off in the middle of a field"),
            (vec![0x80], "the outermost message (byte 0) breaks off in the middle of a field"),
            (vec![0x79, 0], "the outermost message (byte 1) breaks off in the middle of a field"),
            ([&[8][..], &[0xff; 9], &[2]].concat(), "ir_version (byte 1) holds a varint of more than 64 bits"),
            ([&[8][..], &[0x80; 10], &[0]].concat(), "ir_version (byte 1) holds a varint of more than 64 bits"),
            (
                vec![0x88, 0x80, 0x80, 0x80, 0x80, 0],
                "the outermost message (byte 0) holds a varint of more than 32 bits",
            ),
            (vec![0x3a, 5, 0], "graph (byte 1) declares 5 bytes where the enclosing message has 1 left"),
            (
                in_node(&[0x0a, 1]),
                "graph.node[1].input[0] (byte 7) declares 1 bytes where the enclosing message has 0 left",
            ),
            (vec![0], "the outermost message (byte 0) holds a field of number 0, which protobuf does not allow"),
            (in_node(&[0x0b]), "graph.node[1] (byte 6) holds a protobuf group, which ONNX does not use"),
            (vec![0x0c], "the outermost message (byte 0) holds a protobuf group, which ONNX does not use"),
            (vec![0x7e], "the outermost message (byte 0) holds a field of wire type 6, which protobuf does not define"),
            (vec![0x7f], "the outermost message (byte 0) holds a field of wire type 7, which protobuf does not define"),
            (vec![0x38, 0], "graph (byte 0) has wire type 0 although the ONNX schema makes it a message"),
            (vec![0x0a, 0], "ir_version (byte 0) has wire type 2 although the ONNX schema makes it an integer"),
            (vec![0x10, 0], "producer_name (byte 0) has wire type 0 although the ONNX schema makes it a string"),
            (in_node(&field(4, b"R\xff")), "graph.node[1].op_type (byte 9) is not valid UTF-8"),
            (
                in_node(&field(5, &field(7, &[0; 6]))),
                "graph.node[1].attribute[0].floats[0] (byte 8) packs numbers of 4 bytes into 6 bytes, which leaves a fraction of one",
            ),
            (
                in_node(&field(5, &field(5, &[0x10, 0xff, 0xff, 0xff, 0xff, 0x0f]))),
                "graph.node[1].attribute[0].t.data_type (byte 11) holds 4294967295, which does not fit in 32 bits",
            ),
            (
                in_node(&field(5, &field(5, &field(7, &[0x80])))),
                "graph.node[1].attribute[0].t.int64_data[0] (byte 12) breaks off in the middle of a field",
            ),
            (
                [field(7, b""), field(7, b"")].concat(),
                "graph (byte 2) occurs in a message that already holds it or an alternative to it",
            ),
            (
                field(7, &field(11, &field(2, &[field(1, b""), field(4, b"")].concat()))),
                "graph.input[0].type.sequence_type (byte 8) occurs in a message that already holds it or an alternative to it",
            ),
        ];
        for (bytes, message) in cases {
            assert_eq!(&refusal(bytes), message);
        }
        let few = WireLimits { messages: 3, ..LIMITS };
        let bytes = in_node(&field(1, b"x"));
        assert_eq!(
            scan(&bytes, &few).unwrap_err().to_string(),
            "graph.node[1].input[0] (byte 6) is one message or string more than the 3 allowed in a file"
        );
        assert!(scan(&bytes, &WireLimits { messages: 4, ..LIMITS }).is_ok());
        let shallow = WireLimits { depth: 1, ..LIMITS };
        assert!(matches!(scan(&bytes, &shallow), Err(WireError::Depth { at: Site { offset: 2, .. }, limit: 1 })));
    }

    /// `levels` messages, each the only field of the one before: an attribute's graph's node's attribute and so on.
    fn nested(levels: usize) -> Vec<u8> {
        let cycle = [6, 1, 5];
        let mut reversed = Vec::new();
        for level in (0..levels).rev() {
            let number = if level == 0 { 7 } else { cycle[level % 3] };
            let header = [varint(u64::from(number << 3 | LENGTH)), varint(wide(reversed.len()))].concat();
            reversed.extend(header.iter().rev());
        }
        reversed.reverse();
        reversed
    }

    #[test]
    fn depth_is_bounded() {
        assert!(parse(&nested(100), &LIMITS).is_ok());
        for levels in [101, 1_000_000] {
            let deep = nested(levels);
            let unbounded = WireLimits { depth: usize::MAX, ..LIMITS };
            for limits in [LIMITS, unbounded] {
                assert!(matches!(scan(&deep, &limits), Err(WireError::Depth { limit: 100, .. })));
            }
        }
        assert!(matches!(scan(&[0x7b; 1_000_000], &LIMITS), Err(WireError::Group { .. })));
        let inside = field(7, &field(1, &[0x7b; 1_000_000]));
        assert!(matches!(scan(&inside, &LIMITS), Err(WireError::Group { .. })));
    }

    #[test]
    fn many_tiny_messages_stay_small() {
        let limits = WireLimits { messages: usize::MAX, ..LIMITS };
        let bytes = field(7, &[0x0a, 0x00].repeat(1_000_000));
        assert_eq!(scan(&bytes, &limits).unwrap().skeleton, bytes);
        assert!(matches!(scan(&bytes, &LIMITS), Err(WireError::Count { .. })));
    }

    #[derive(Debug, Clone)]
    enum Mutation {
        Set(u8),
        Flip(u8),
        Insert(Vec<u8>),
        Delete(usize),
        Truncate,
        Copy(usize, usize),
    }

    fn mutations() -> impl Strategy<Value = Vec<(prop::sample::Index, Mutation)>> {
        let tags = prop::sample::select(vec![
            vec![0x0b],
            vec![0x0c],
            vec![0x7e],
            vec![0],
            vec![0xff; 10],
            vec![0x80, 0],
            vec![0x3a, 0],
            vec![0x4a, 1, 2],
            vec![0xc8, 0xab, 0x30, 1],
            vec![0xff, 0xff, 0xff, 0xff, 0x0f],
        ]);
        let one = prop_oneof![
            any::<u8>().prop_map(Mutation::Set),
            (0..8u32).prop_map(|bit| Mutation::Flip(1 << bit)),
            tags.prop_map(Mutation::Insert),
            prop::collection::vec(any::<u8>(), 1..6).prop_map(Mutation::Insert),
            (1..20usize).prop_map(Mutation::Delete),
            Just(Mutation::Truncate),
            (1..50usize, 1..50usize).prop_map(|(length, back)| Mutation::Copy(length, back)),
        ];
        prop::collection::vec((any::<prop::sample::Index>(), one), 1..6)
    }

    fn mutate(bytes: &mut Vec<u8>, changes: Vec<(prop::sample::Index, Mutation)>) {
        for (index, mutation) in changes {
            if bytes.is_empty() {
                return;
            }
            let at = index.index(bytes.len());
            match mutation {
                Mutation::Set(byte) => bytes[at] = byte,
                Mutation::Flip(mask) => bytes[at] ^= mask,
                Mutation::Insert(new) => drop(bytes.splice(at..at, new)),
                Mutation::Delete(length) => drop(bytes.drain(at..bytes.len().min(at + length))),
                Mutation::Truncate => bytes.truncate(at),
                Mutation::Copy(length, back) => {
                    let from = at.saturating_sub(back);
                    let copy = bytes[from..at.min(from + length)].to_vec();
                    bytes.splice(at..at, copy);
                }
            }
        }
    }

    /// What holds of any bytes: no panic, and the parser takes every skeleton and finds each payload once.
    fn check(bytes: &[u8], limits: &WireLimits) {
        let Ok(scanned) = scan(bytes, limits) else {
            return;
        };
        let elided: usize = scanned.payloads.iter().map(Range::len).sum();
        assert!(scanned.skeleton.len() <= bytes.len());
        assert!(scanned.skeleton.len() + elided <= bytes.len() + 8 * scanned.payloads.len());
        let mut parsed = ModelProto::parse_from_bytes(&scanned.skeleton).unwrap();
        assert_eq!(join(&mut parsed, bytes, &scanned.payloads), scanned.payloads.len());
        let mut whole = ModelProto::parse_from_bytes(bytes).unwrap();
        let known = scan(&whole.write_to_bytes().unwrap(), &WireLimits { elide: usize::MAX, ..*limits });
        whole = ModelProto::parse_from_bytes(&known.unwrap().skeleton).unwrap();
        // As bytes, for a float may be NaN.
        assert_eq!(parsed.write_to_bytes().unwrap(), whole.write_to_bytes().unwrap());
        let again = scan(&scanned.skeleton, &WireLimits { elide: usize::MAX, ..*limits }).unwrap();
        assert_eq!(again.payloads, []);
    }

    /// A random message that is valid, though oddly encoded: fields in any order and number, unknown fields and
    /// forged markers between them, padded lengths.
    fn build(schema: &Schema, choices: &mut impl Iterator<Item = u8>, depth: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut used = Vec::new();
        for _ in 0..choices.next().unwrap() % 8 {
            let (pick, n) = (choices.next().unwrap(), choices.next().unwrap());
            let odd = n % 2 == 1;
            if pick >= 240 {
                out.extend(if odd { field(500, &[n; 40]) } else { field(MARKER, &[1]) });
                out.extend([varint(u64::from(MARKER << 3)), varint(u64::from(n))].concat());
                continue;
            }
            let f = &schema.fields[usize::from(pick) % schema.fields.len()];
            let many = f.label == Label::Many;
            let (wire, body) = match f.data {
                Data::Message(child) => {
                    let exclusive = if f.label == Label::Choice { 0 } else { f.number };
                    if depth == 0 || (!many && used.contains(&exclusive)) {
                        continue;
                    }
                    used.push(exclusive);
                    (LENGTH, build(child, choices, depth - 1))
                }
                Data::String => (LENGTH, "é".repeat(usize::from(n % 4)).into_bytes()),
                Data::Bytes | Data::Raw => (LENGTH, vec![pick; usize::from(n)]),
                Data::Int32 | Data::Int64 if many && odd => (LENGTH, vec![n & 0x7f; 3]),
                Data::Fixed32 | Data::Fixed64 if many && odd => (LENGTH, vec![1; 16]),
                Data::Int32 | Data::Int64 => (VARINT, varint(u64::from(n))),
                Data::Fixed32 => (FIXED32, vec![n; 4]),
                Data::Fixed64 => (FIXED64, vec![n; 8]),
            };
            push_varint(&mut out, u64::from(f.number << 3 | wire));
            if wire == LENGTH {
                push_varint(&mut out, wide(body.len()));
                if n % 4 == 3 {
                    *out.last_mut().unwrap() |= 0x80;
                    out.push(0);
                }
            }
            out.extend(body);
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn mutated_models_never_panic(changes in mutations(), elide in prop::sample::select(vec![0, 20, 1024])) {
            let mut small = graph(1);
            small.initializer[1].raw_data.truncate(30);
            small.sparse_initializer.clear();
            let mut all = small.node[0].attribute.pop().unwrap();
            all.sparse_tensor = MessageField::none();
            all.tensors.truncate(1);
            small.node[0].attribute.push(all);
            let model = ModelProto { graph: MessageField::some(small), ..Default::default() };
            let mut bytes = model.write_to_bytes().unwrap();
            mutate(&mut bytes, changes);
            check(&bytes, &WireLimits { elide, ..LIMITS });
        }

        #[test]
        fn mutated_tags_never_panic(changes in mutations()) {
            // Little but structure, so that most mutations hit a tag or a length.
            let node = [field(1, b"x"), field(5, &field(5, &[field(9, &[3; 40]), vec![16, 1]].concat()))].concat();
            let mut bytes = field(7, &[field(1, &node), field(5, &field(9, &[1; 20])), field(2, b"g")].concat());
            mutate(&mut bytes, changes);
            check(&bytes, &WireLimits { elide: 16, ..LIMITS });
        }

        #[test]
        fn valid_messages_are_accepted(
            choices in prop::collection::vec(any::<u8>(), 20..400),
            changes in mutations(),
            elide in prop::sample::select(vec![0, 50, 200]),
        ) {
            let limits = WireLimits { elide, ..LIMITS };
            let mut choices = choices.into_iter().chain(std::iter::repeat(0));
            let mut bytes = field(7, &build(&GRAPH, &mut choices, 8));
            bytes.extend(field(25, &build(&FUNCTION, &mut choices, 8)));
            prop_assert!(scan(&bytes, &limits).is_ok());
            check(&bytes, &limits);
            mutate(&mut bytes, changes);
            check(&bytes, &limits);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            check(&bytes, &LIMITS);
            let _ = parse_tensor(&bytes, &LIMITS);
        }
    }
}
