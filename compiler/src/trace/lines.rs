//! The lines of a trace as data.

use std::collections::BTreeMap;

use convc_runtime::{AttrValue, Constant, DType, Dim, Fact, fact::Known};
use serde::{Deserialize, Serialize};

use crate::rewrite::{keys::ConstantKey, magnitude::largest_of};

/// The schema that this version writes and reads.
pub const SCHEMA: &str = "convc.trace/2";

/// Constants of at most this many elements are stored with their elements, larger ones by their hash.
pub const STORED_ELEMENTS: usize = 4096;

/// A trace.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trace {
    /// What was rewritten, and how.
    pub header: HeaderLine,
    /// The terms, each behind its operands: their numbers ascend.
    pub terms: Vec<TermLine>,
    /// Nodes of the file read and of the file written.
    pub nodes: Vec<NodeLine>,
    /// Values of the file read and of the file written.
    pub values: Vec<ValueLine>,
    /// The steps in their order.
    pub steps: Vec<StepLine>,
    /// What became of each region.
    pub regions: Vec<RegionLine>,
    /// Candidates that did not fire.
    pub not_fired: Vec<NotFiredLine>,
    /// Rewrites that cost decided against.
    pub declined: Vec<DeclinedLine>,
    /// The outputs.
    pub outputs: Vec<OutputLine>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Line {
    Header(HeaderLine),
    Term(TermLine),
    Node(NodeLine),
    Value(ValueLine),
    Step(StepLine),
    Region(RegionLine),
    NotFired(NotFiredLine),
    Declined(DeclinedLine),
    Output(OutputLine),
    End(EndLine),
}

/// What was rewritten, and how.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct HeaderLine {
    /// [`SCHEMA`].
    pub schema: String,
    /// The version of convc that wrote it.
    pub convc: String,
    /// SHA-256 of the model's file, external data not included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_sha256: Option<String>,
    /// Which inexactness was allowed: `strict`, `real` or `fast`.
    pub fp: String,
    /// The cost profile.
    pub profile: String,
    /// The rules that were tried.
    pub rules: Vec<RuleLine>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleLine {
    /// Its name.
    pub name: String,
    /// `left => right`.
    pub equation: String,
    /// `bitwise`, `reassociated` or `analytic`.
    pub exactness: String,
    /// Why it is worth having.
    pub pays: String,
    /// Its conditions: name and what it says.
    pub conditions: BTreeMap<String, String>,
}

/// One term: an operator on terms, a constant, or a value that is not looked into.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TermLine {
    /// Its number.
    pub id: u32,
    /// The operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<String>,
    /// The operator's attributes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, AttributeLine>,
    /// The operator's operands, holes included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operands: Vec<Option<u32>>,
    /// The constant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constant: Option<ConstantLine>,
    /// The name of the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Of an input: whether the model reads every element of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole: bool,
    /// Element type and sizes, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<TypeLine>,
    /// The nodes of the file read that it goes back to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
}

/// A size: a number, or an expression over symbols.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DimLine {
    /// A number.
    Fixed(i64),
    /// An expression.
    Text(String),
}

/// What is known of a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TypeLine {
    /// The element type, such as `f32`.
    pub dtype: String,
    /// The sizes.
    pub shape: Vec<DimLine>,
    /// The elements of a small integer tensor, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elements: Option<Vec<DimLine>>,
}

/// A constant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConstantLine {
    /// The element type.
    pub dtype: String,
    /// The sizes.
    pub shape: Vec<usize>,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// The largest absolute value of its elements, if they are finite floating-point numbers and not stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest: Option<f64>,
    /// Its bytes (little-endian elements) in hexadecimal, if it is small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
    /// Its strings, if it holds strings and is small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strings: Option<Vec<String>>,
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AttributeLine {
    /// An integer.
    Int(i64),
    /// A string.
    Str(String),
    /// Integers.
    Ints(Vec<i64>),
    /// A float, as [`float_text`] writes it.
    Float {
        /// The text.
        float: String,
    },
    /// Floats.
    Floats {
        /// The texts.
        floats: Vec<String>,
    },
    /// Strings.
    Strs {
        /// The strings.
        strings: Vec<String>,
    },
    /// A tensor.
    Tensor {
        /// The tensor.
        tensor: ConstantLine,
    },
}

/// Which file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The file that was read.
    Read,
    /// The file that was written.
    Written,
}

/// A node of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeLine {
    /// Which file.
    pub side: Side,
    /// Its name there; of a node without a name, its place.
    pub name: String,
    /// The operator that it is, or that it spells a part of.
    pub op: String,
    /// The terms of that operator's outputs.
    pub terms: Vec<u32>,
    /// The terms of its operands, for one that is not looked into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operands: Option<Vec<Option<u32>>>,
}

/// A value of a file that has a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValueLine {
    /// Which file.
    pub side: Side,
    /// Its name there.
    pub name: String,
    /// Its term.
    pub term: u32,
}

/// One step: two terms are equal, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepLine {
    /// Its number; they count from 0.
    pub n: usize,
    /// The rule, or `fold-constants`, `fold-weights` or `merge-duplicates`.
    pub rule: String,
    /// The region it belongs to, if it belongs to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<usize>,
    /// The rule's left side.
    pub lhs: u32,
    /// The rule's right side.
    pub rhs: u32,
    /// The conditions that were found to hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
}

/// What became of one region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegionLine {
    /// Its number.
    pub region: usize,
    /// Operators before.
    pub nodes: usize,
    /// Terms of its outputs before and after.
    pub roots: Vec<(u32, u32)>,
    /// Cost before, in microseconds of the profile's nominal machine.
    pub before: f64,
    /// Cost after.
    pub after: f64,
    /// Why saturation stopped.
    pub stop: String,
    /// Rounds of saturation.
    pub iterations: usize,
    /// E-nodes at the end.
    pub e_nodes: usize,
    /// Whether it was replaced.
    pub changed: bool,
}

/// A candidate that did not fire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NotFiredLine {
    /// The rule.
    pub rule: String,
    /// The condition that did not hold.
    pub condition: String,
    /// Why.
    pub reason: String,
    /// The nodes of the file read that it was about.
    pub origins: Vec<String>,
}

/// A rewrite that was found and that cost decided against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeclinedLine {
    /// The rule.
    pub rule: String,
    /// What the operators of its left side cost, in the profile's unit.
    pub before: f64,
    /// What those of its right side would cost.
    pub after: f64,
    /// The nodes of the file read that it was about.
    pub origins: Vec<String>,
}

/// An output of the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputLine {
    /// Its name.
    pub name: String,
    /// Its term in the file read.
    pub before: u32,
    /// Its term in the file written.
    pub after: u32,
}

/// The numbers of lines: a file without them is cut off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndLine {
    /// Terms.
    pub terms: usize,
    /// Nodes.
    pub nodes: usize,
    /// Values.
    pub values: usize,
    /// Steps.
    pub steps: usize,
    /// Regions.
    pub regions: usize,
    /// Candidates that did not fire.
    pub not_fired: usize,
    /// Rewrites that cost decided against.
    pub declined: usize,
    /// Outputs.
    pub outputs: usize,
}

impl Trace {
    /// The term of this number.
    #[must_use]
    pub fn term(&self, id: u32) -> Option<&TermLine> {
        self.terms.binary_search_by_key(&id, |t| t.id).ok().and_then(|i| self.terms.get(i))
    }

    /// The rule of this name as the header says it.
    #[must_use]
    pub fn rule(&self, name: &str) -> Option<&RuleLine> {
        self.header.rules.iter().find(|r| r.name == name)
    }

    pub(crate) fn end(&self) -> EndLine {
        EndLine {
            terms: self.terms.len(),
            nodes: self.nodes.len(),
            values: self.values.len(),
            steps: self.steps.len(),
            regions: self.regions.len(),
            not_fired: self.not_fired.len(),
            declined: self.declined.len(),
            outputs: self.outputs.len(),
        }
    }
}

/// The shortest decimal that reads back as this very number; the bits, such as `0x7fc00000`, of one that no decimal is.
#[must_use]
pub fn float_text(v: f32) -> String {
    if v.is_finite() { format!("{v:?}") } else { format!("{:#010x}", v.to_bits()) }
}

fn float_of(text: &str) -> Result<f32, String> {
    let bits = text.strip_prefix("0x").map(|h| u32::from_str_radix(h, 16).map(f32::from_bits).map_err(drop));
    bits.unwrap_or_else(|| text.parse().map_err(drop)).map_err(|()| format!("{text:?} is not a float"))
}

impl AttributeLine {
    /// From a value.
    #[must_use]
    pub fn of(value: &AttrValue) -> AttributeLine {
        match value {
            AttrValue::Int(v) => AttributeLine::Int(*v),
            AttrValue::Float(v) => AttributeLine::Float { float: float_text(*v) },
            AttrValue::Str(v) => AttributeLine::Str(v.clone()),
            AttrValue::Ints(v) => AttributeLine::Ints(v.clone()),
            AttrValue::Floats(v) => AttributeLine::Floats { floats: v.iter().map(|x| float_text(*x)).collect() },
            AttrValue::Strs(v) => AttributeLine::Strs { strings: v.clone() },
            AttrValue::Tensor(t) => match Constant::from_tensor(t) {
                Ok(c) => AttributeLine::Tensor { tensor: ConstantLine::of(&c, usize::MAX) },
                // Field elements exist in test runs only.
                Err(e) => AttributeLine::Str(e.to_string()),
            },
        }
    }

    /// The value.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn value(&self) -> Result<AttrValue, String> {
        Ok(match self {
            AttributeLine::Int(v) => AttrValue::Int(*v),
            AttributeLine::Str(v) => AttrValue::Str(v.clone()),
            AttributeLine::Ints(v) => AttrValue::Ints(v.clone()),
            AttributeLine::Float { float } => AttrValue::Float(float_of(float)?),
            AttributeLine::Floats { floats } => {
                AttrValue::Floats(floats.iter().map(|x| float_of(x)).collect::<Result<_, _>>()?)
            }
            AttributeLine::Strs { strings } => AttrValue::Strs(strings.clone()),
            AttributeLine::Tensor { tensor } => {
                let constant = tensor.constant()?.ok_or("a tensor attribute lacks its elements")?;
                AttrValue::Tensor(constant.to_tensor().map_err(|e| e.to_string())?)
            }
        })
    }
}

impl std::fmt::Display for AttributeLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AttributeLine::Int(v) => write!(f, "{v}"),
            AttributeLine::Str(v) => write!(f, "{v:?}"),
            AttributeLine::Ints(v) => write!(f, "{v:?}"),
            AttributeLine::Float { float } => f.write_str(float),
            AttributeLine::Floats { floats } => write!(f, "[{}]", floats.join(", ")),
            AttributeLine::Strs { strings } => write!(f, "{strings:?}"),
            AttributeLine::Tensor { tensor } => write!(f, "{}{:?}", tensor.dtype, tensor.shape),
        }
    }
}

impl ConstantLine {
    /// From a constant; its elements are kept if they are at most `stored`.
    #[must_use]
    pub fn of(c: &Constant, stored: usize) -> ConstantLine {
        let small = c.len() <= stored;
        let is_text = c.dtype() == DType::Str;
        ConstantLine {
            dtype: c.dtype().name().to_owned(),
            shape: c.shape().to_vec(),
            sha256: ConstantKey::of(c).hex(),
            largest: largest_of(c).filter(|v| !small && v.is_finite()),
            bytes: (small && !is_text).then(|| hex(c.bytes().as_bytes())),
            strings: (small && is_text).then(|| c.as_strings().to_vec()),
        }
    }

    /// The element type.
    ///
    /// # Errors
    /// If there is no type of this name.
    pub fn element_type(&self) -> Result<DType, String> {
        DType::from_name(&self.dtype).ok_or_else(|| format!("{:?} is not an element type", self.dtype))
    }

    /// The key by which terms know it.
    ///
    /// # Errors
    /// If there is no such element type, or the hash is none.
    pub fn key(&self) -> Result<ConstantKey, String> {
        let key = ConstantKey::from_hex(self.element_type()?, &self.shape, &self.sha256);
        key.ok_or_else(|| format!("{:?} is no SHA-256 in hexadecimal digits", self.sha256))
    }

    /// The constant, if its elements are stored; they are checked against the hash.
    ///
    /// # Errors
    /// If elements, type, sizes and hash do not agree.
    pub fn constant(&self) -> Result<Option<Constant>, String> {
        let dtype = self.element_type()?;
        let constant = match (&self.bytes, &self.strings) {
            (Some(text), None) => Constant::new(dtype, self.shape.clone(), unhex(text)?.into()),
            (None, Some(strings)) => Constant::strings(self.shape.clone(), strings.clone()),
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => return Err("a constant has both bytes and strings".into()),
        };
        let constant = constant.map_err(|e| e.to_string())?;
        if ConstantKey::of(&constant) != self.key()? {
            return Err("the elements of a constant have another hash than it states".into());
        }
        Ok(Some(constant))
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 * bytes.len());
    for b in bytes {
        let _ = write!(text, "{b:02x}");
    }
    text
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[a, b]| Some(digit(*a)? << 4 | digit(*b)?)).collect();
    bytes.filter(|_| rest.is_empty()).ok_or_else(|| "bytes are not pairs of hexadecimal digits".to_owned())
}

impl DimLine {
    /// From a size.
    #[must_use]
    pub fn of(d: &Dim) -> DimLine {
        d.as_fixed().map_or_else(|| DimLine::Text(d.to_string()), DimLine::Fixed)
    }

    /// The size.
    ///
    /// # Errors
    /// If it is not an expression.
    pub fn dim(&self) -> Result<Dim, String> {
        match self {
            DimLine::Fixed(n) => Ok(Dim::from(*n)),
            DimLine::Text(text) => Dim::parse(text).map_err(|e| e.to_string()),
        }
    }
}

impl std::fmt::Display for DimLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DimLine::Fixed(n) => write!(f, "{n}"),
            DimLine::Text(text) => f.write_str(text),
        }
    }
}

impl TypeLine {
    /// From what is known of a value.
    #[must_use]
    pub fn of(fact: &Fact) -> TypeLine {
        let elements = match &fact.known {
            Some(Known::Dims(dims)) => Some(dims.iter().map(DimLine::of).collect()),
            _ => None,
        };
        TypeLine { dtype: fact.dtype.name().to_owned(), shape: fact.shape.iter().map(DimLine::of).collect(), elements }
    }

    /// What it says of a value.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn fact(&self) -> Result<Fact, String> {
        let dtype = DType::from_name(&self.dtype).ok_or_else(|| format!("{:?} is not an element type", self.dtype))?;
        let dims = |list: &[DimLine]| list.iter().map(DimLine::dim).collect::<Result<Vec<Dim>, _>>();
        let fact = Fact::new(dtype, dims(&self.shape)?);
        match &self.elements {
            Some(list) => Ok(fact.with_dims(dims(list)?)),
            None => Ok(fact),
        }
    }
}

impl std::fmt::Display for TypeLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shape: Vec<String> = self.shape.iter().map(ToString::to_string).collect();
        write!(f, "{}[{}]", self.dtype, shape.join(", "))
    }
}
