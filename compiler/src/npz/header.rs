//! The header of a `.npy` file: a Python dictionary of three known keys.

use std::io::Read;

use convc_runtime::DType;

use super::Problem;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longest header read; NumPy's own limit is 10000 unless one insists.
const LONGEST: usize = 1 << 16;
const MAX_RANK: usize = 64;

/// What the elements are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Plain(DType),
    /// Text of fixed length in UTF-32, padded with zeros.
    Ucs4,
    /// Text of fixed length in bytes, padded with zeros.
    Utf8,
}

#[derive(Debug, PartialEq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// Bytes per element.
    pub(super) item: usize,
    pub(super) big_endian: bool,
    pub(super) fortran: bool,
    pub(super) shape: Vec<usize>,
}

const PLAIN: &[(&str, DType)] = &[
    ("f4", DType::F32),
    ("f8", DType::F64),
    ("f2", DType::F16),
    ("V2", DType::BF16),
    ("i1", DType::I8),
    ("i2", DType::I16),
    ("i4", DType::I32),
    ("i8", DType::I64),
    ("u1", DType::U8),
    ("u2", DType::U16),
    ("u4", DType::U32),
    ("u8", DType::U64),
    ("b1", DType::Bool),
];

/// NumPy's name of an executed element type, byte order included.
pub(super) fn descr(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::F16 => "<f2",
        DType::I8 => "|i1",
        DType::I16 => "<i2",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
        DType::U8 => "|u1",
        DType::U16 => "<u2",
        DType::U32 => "<u4",
        DType::U64 => "<u8",
        DType::Bool => "|b1",
        _ => "<V2",
    }
}

/// A header of version 1, padded so that the elements begin at a multiple of 64.
pub(super) fn write(descr: &str, shape: &[usize]) -> Vec<u8> {
    let dims: String = shape.iter().map(|d| format!("{d}, ")).collect();
    let dims = if shape.len() > 1 { dims.trim_end_matches(", ") } else { dims.trim_end() };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    let before = MAGIC.len() + 4;
    let total = (before + text.len() + 1).next_multiple_of(64);
    text.extend(std::iter::repeat_n(' ', total - before - text.len() - 1));
    text.push('\n');
    let mut out = MAGIC.to_vec();
    out.extend([1, 0]);
    // A shape of at most 64 sizes is far shorter than 64 KiB.
    out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend(text.as_bytes());
    out
}

impl Header {
    /// Bytes that swap places in an element of the other byte order.
    pub(super) fn unit(&self) -> usize {
        match self.kind {
            Kind::Plain(_) => self.item.max(1),
            Kind::Ucs4 => 4,
            Kind::Utf8 => 1,
        }
    }

    pub(super) fn read(from: &mut dyn Read) -> Result<Header, Problem> {
        let bad = |what: &str| Problem::Array(what.to_owned());
        let mut start = [0; 8];
        from.read_exact(&mut start)?;
        if &start[..6] != MAGIC {
            return Err(bad("it is not in .npy format"));
        }
        let length = if start[6] == 1 {
            let mut n = [0; 2];
            from.read_exact(&mut n)?;
            usize::from(u16::from_le_bytes(n))
        } else if matches!(start[6], 2 | 3) {
            let mut n = [0; 4];
            from.read_exact(&mut n)?;
            u32::from_le_bytes(n) as usize
        } else {
            return Err(bad("its format version is unknown"));
        };
        if length > LONGEST {
            return Err(bad("its header is too long"));
        }
        let mut text = vec![0; length];
        from.read_exact(&mut text)?;
        let text = String::from_utf8(text).map_err(|_| bad("its header is not text"))?;
        Header::parse(&text)
    }

    fn parse(text: &str) -> Result<Header, Problem> {
        let mut p = Parser { rest: text.trim() };
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        p.expect("{")?;
        while !p.eat("}") {
            let key = p.string()?;
            p.expect(":")?;
            match key {
                "descr" if p.rest.trim_start().starts_with('[') => {
                    return Err(Problem::Array("structured arrays are not tensors".into()));
                }
                "descr" => descr = Some(p.string()?),
                "fortran_order" => fortran = Some(p.boolean()?),
                "shape" => shape = Some(p.shape()?),
                _ => return Err(Problem::Array(format!("its header has an unknown key {key:?}"))),
            }
            if !p.eat(",") {
                p.expect("}")?;
                break;
            }
        }
        let (Some(descr), Some(fortran), Some(shape)) = (descr, fortran, shape) else {
            return Err(Problem::Array("its header lacks a key".into()));
        };
        let (kind, item, big_endian) = element(descr)?;
        Ok(Header { kind, item, big_endian, fortran, shape })
    }
}

fn element(descr: &str) -> Result<(Kind, usize, bool), Problem> {
    let name = descr.trim_start_matches(['<', '>', '|', '=']);
    let big_endian = descr.starts_with('>');
    if let Some((_, dtype)) = PLAIN.iter().find(|(n, _)| *n == name) {
        return Ok((Kind::Plain(*dtype), dtype.bits() / 8, big_endian));
    }
    let text = |unit: usize| name.get(1..)?.parse::<usize>().ok()?.checked_mul(unit);
    match name.chars().next() {
        Some('U') => text(4).map(|item| (Kind::Ucs4, item, big_endian)),
        Some('S' | 'a') => text(1).map(|item| (Kind::Utf8, item, false)),
        Some('O') => return Err(Problem::Array("pickled objects are not read".into())),
        _ => None,
    }
    .ok_or_else(|| Problem::Array(format!("no tensor has elements of type {descr:?}")))
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn bad(&self) -> Problem {
        let near: String = self.rest.chars().take(20).collect();
        Problem::Array(format!("its header is malformed near {near:?}"))
    }

    fn eat(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), Problem> {
        if self.eat(token) { Ok(()) } else { Err(self.bad()) }
    }

    fn string(&mut self) -> Result<&'a str, Problem> {
        let quote = if self.eat("'") {
            '\''
        } else {
            self.expect("\"")?;
            '"'
        };
        let (text, rest) = self.rest.split_once(quote).ok_or_else(|| self.bad())?;
        self.rest = rest;
        Ok(text)
    }

    fn boolean(&mut self) -> Result<bool, Problem> {
        if self.eat("True") {
            return Ok(true);
        }
        self.expect("False")?;
        Ok(false)
    }

    fn shape(&mut self) -> Result<Vec<usize>, Problem> {
        self.expect("(")?;
        let mut shape = Vec::new();
        while !self.eat(")") {
            self.rest = self.rest.trim_start();
            let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
            let (digits, rest) = self.rest.split_at(end);
            let n = digits.parse().map_err(|_| self.bad())?;
            // Python 2 wrote long integers with a suffix.
            self.rest = rest.strip_prefix('L').unwrap_or(rest);
            shape.push(n);
            if shape.len() > MAX_RANK {
                return Err(Problem::Array(format!("it has more than {MAX_RANK} dimensions")));
            }
            if !self.eat(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(shape)
    }
}
