//! Tensors between ONNX and convc: every encoding of `TensorProto`, and back.

use std::{ops::Range, path::Path};

use convc_runtime::{Blob, Constant, DType, dim::element_count};
use onnx_protobuf::{SparseTensorProto, TensorProto, tensor_proto::DataLocation};

use super::{Limits, OnnxError, Problem, Severity, error::shown, external::Folder, wire};
use crate::ops::{dtype_from_onnx, dtype_to_onnx};

/// What tensors are read from: the file, and the folder of its external data.
pub(super) struct Source<'a> {
    /// The bytes of the file.
    pub(super) file: Blob,
    /// Where in it the payloads lie that the parser did not see.
    pub(super) payloads: Vec<Range<usize>>,
    /// The folder of external data.
    pub(super) folder: Folder,
    /// What may be asked for.
    pub(super) limits: &'a Limits,
    /// Bytes copied so far.
    pub(super) copied: u64,
}

/// Why a tensor was not read, as a sentence part, or a limit that it exceeds.
pub(super) enum TensorFault {
    /// The tensor's fault.
    Bad(String),
    /// A limit.
    Limit(&'static str, String, u64),
}

impl TensorFault {
    /// The error of `place`.
    pub(super) fn at(self, place: impl Into<String>) -> OnnxError {
        match self {
            TensorFault::Bad(problem) => Problem::new(Severity::Error, place, problem, "").into(),
            TensorFault::Limit(what, needed, limit) => OnnxError::Limit { place: place.into(), needed, what, limit },
        }
    }
}

impl From<String> for TensorFault {
    fn from(problem: String) -> TensorFault {
        TensorFault::Bad(problem)
    }
}

impl<'a> Source<'a> {
    /// A source over a file whose scan found `payloads`.
    pub(super) fn new(file: Blob, payloads: Vec<Range<usize>>, folder: Folder, limits: &'a Limits) -> Source<'a> {
        Source { file, payloads, folder, limits, copied: 0 }
    }

    /// Counts bytes that are about to be copied.
    pub(super) fn copy(&mut self, bytes: usize) -> Result<(), TensorFault> {
        self.copied = self.copied.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if self.copied > self.limits.copied_bytes {
            return Err(TensorFault::Limit("bytes copied", self.copied.to_string(), self.limits.copied_bytes));
        }
        Ok(())
    }

    fn shape(&self, dims: &[i64]) -> Result<(Vec<usize>, usize), TensorFault> {
        let shape: Option<Vec<usize>> = dims.iter().map(|&d| usize::try_from(d).ok()).collect();
        let shape = shape.ok_or_else(|| format!("has a negative size in {dims:?}"))?;
        let count = element_count(&shape).ok_or_else(|| format!("has more elements than can be counted: {dims:?}"))?;
        if count > self.limits.elements {
            let limit = u64::try_from(self.limits.elements).unwrap_or(u64::MAX);
            return Err(TensorFault::Limit("elements", count.to_string(), limit));
        }
        Ok((shape, count))
    }

    /// The constant that a tensor holds; its bytes stay where they are if they can.
    pub(super) fn constant(&mut self, t: &TensorProto) -> Result<Constant, TensorFault> {
        let dtype = dtype_from_onnx(t.data_type)
            .ok_or_else(|| format!("has element type {}, which ONNX does not define", t.data_type))?;
        if t.segment.is_some() {
            return Err("is stored in segments, which no ONNX version uses".to_owned().into());
        }
        if t.dims.len() > 64 {
            return Err(format!("has {} dimensions", t.dims.len()).into());
        }
        let (shape, count) = self.shape(&t.dims)?;
        let payload = wire::payload_index(t);
        let fields = [
            payload.is_some() || !t.raw_data.is_empty(),
            !t.float_data.is_empty(),
            !t.int32_data.is_empty(),
            !t.int64_data.is_empty(),
            !t.uint64_data.is_empty(),
            !t.double_data.is_empty(),
            !t.string_data.is_empty(),
        ];
        let filled = fields.iter().filter(|&&f| f).count();
        if t.data_location.enum_value() == Ok(DataLocation::EXTERNAL) {
            if filled > 0 {
                return Err("holds data although it says that its data is external".to_owned().into());
            }
            let bytes = dtype.bytes_for(count).ok_or_else(|| format!("of type {dtype} cannot be external"))?;
            let blob = self.folder.read(&t.external_data, bytes, self.limits)?;
            return Constant::new(dtype, shape, blob).map_err(|e| e.to_string().into());
        }
        if filled > 1 {
            return Err("holds its data in more than one field".to_owned().into());
        }
        if dtype == DType::Str {
            if t.string_data.len() != count {
                return Err(format!("declares {count} strings in {shape:?} and holds {}", t.string_data.len()).into());
            }
            self.copy(t.string_data.iter().map(|s| s.len() + size_of::<String>()).sum())?;
            let strings: Result<Vec<String>, _> = t.string_data.iter().map(|s| String::from_utf8(s.clone())).collect();
            let strings = strings.map_err(|_| "holds a string that is not UTF-8".to_owned())?;
            return Constant::strings(shape, strings).map_err(|e| e.to_string().into());
        }
        let expected = dtype.bytes_for(count).ok_or_else(|| format!("of type {dtype} has no size"))?;
        let blob = if let Some(i) = payload {
            let range = self.payloads.get(i).cloned();
            range.and_then(|r| self.file.slice(r)).ok_or_else(|| "refers to data outside the file".to_owned())?
        } else if !t.raw_data.is_empty() {
            self.copy(t.raw_data.len())?;
            Blob::from(t.raw_data.clone())
        } else {
            self.copy(expected)?;
            Blob::from(typed_bytes(t, dtype, expected)?)
        };
        if blob.len() != expected {
            return Err(format!("declares {dtype}{shape:?}, {expected} bytes, and holds {}", blob.len()).into());
        }
        Constant::new(dtype, shape, blob).map_err(|e| e.to_string().into())
    }

    /// The dense constant that a sparse tensor stands for: zero wherever no index points.
    pub(super) fn dense(&mut self, t: &SparseTensorProto) -> Result<Constant, TensorFault> {
        let (shape, count) = self.shape(&t.dims)?;
        let values = self.constant(&t.values)?;
        let indices = self.constant(&t.indices)?;
        let dtype = values.dtype();
        if dtype.bits() % 8 != 0 || dtype.bits() == 0 {
            return Err(format!("is sparse with elements of type {dtype}").into());
        }
        if values.shape().len() != 1 {
            return Err(format!("is sparse with values of shape {:?}, one dimension is needed", values.shape()).into());
        }
        let n = values.len();
        let linear = match indices.shape() {
            [m] if *m == n => true,
            [m, r] if *m == n && *r == shape.len() => false,
            other => return Err(format!("is sparse with {n} values and indices of shape {other:?}").into()),
        };
        let list = match indices.dtype() {
            DType::I64 => indices.to_tensor().ok().and_then(|t| t.to_i64s()),
            _ => None,
        };
        let list = list.ok_or_else(|| "is sparse with indices that are not i64".to_owned())?;
        let width = dtype.bits() / 8;
        let size = dtype.bytes_for(count).ok_or_else(|| format!("of type {dtype} has no size"))?;
        self.copy(size)?;
        let mut bytes = vec![0_u8; size];
        let rank = if linear { 1 } else { shape.len() };
        let extents = if linear { vec![count] } else { shape.clone() };
        let source = values.bytes().clone();
        for (i, value) in source.as_bytes().chunks_exact(width).enumerate() {
            let index = list.get(i * rank..(i + 1) * rank).unwrap_or_default();
            let mut at = 0_usize;
            for (&extent, &k) in extents.iter().zip(index) {
                let k = usize::try_from(k).ok().filter(|&k| k < extent);
                let k = k.ok_or_else(|| format!("is sparse with index {index:?} outside {shape:?}"))?;
                at = at * extent + k;
            }
            match bytes.get_mut(at * width..(at + 1) * width) {
                Some(slot) => slot.copy_from_slice(value),
                None => return Err(format!("is sparse with index {index:?} outside {shape:?}").into()),
            }
        }
        Constant::new(dtype, shape, Blob::from(bytes)).map_err(|e| e.to_string().into())
    }
}

/// The bytes of a tensor that is stored in one of the typed fields.
fn typed_bytes(t: &TensorProto, dtype: DType, expected: usize) -> Result<Vec<u8>, String> {
    let wrong = |field: &str, n: usize| format!("holds {n} numbers in {field}, which do not fill {dtype}{:?}", t.dims);
    let narrow = |v: &i32, low: i32, high: i32| {
        if (low..=high).contains(v) { Ok(*v) } else { Err(format!("holds {v} in int32_data, out of range of {dtype}")) }
    };
    let i32s = |low: i32, high: i32| -> Result<Vec<u8>, String> {
        t.int32_data.iter().map(|v| narrow(v, low, high).map(|v| v.to_le_bytes()[0])).collect()
    };
    let words = |low: i32, high: i32| -> Result<Vec<u8>, String> {
        let list: Result<Vec<[u8; 2]>, String> = t
            .int32_data
            .iter()
            .map(|v| {
                narrow(v, low, high).map(|v| {
                    let [a, b, ..] = v.to_le_bytes();
                    [a, b]
                })
            })
            .collect();
        Ok(list?.concat())
    };
    let (field, n, bytes) = match dtype {
        DType::F32 | DType::C64 => {
            ("float_data", t.float_data.len(), t.float_data.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        DType::F64 | DType::C128 => {
            ("double_data", t.double_data.len(), t.double_data.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        DType::I64 => ("int64_data", t.int64_data.len(), t.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect()),
        DType::U64 => {
            ("uint64_data", t.uint64_data.len(), t.uint64_data.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        DType::U32 => {
            let mut bytes: Vec<u8> = Vec::with_capacity(expected.min(t.uint64_data.len().saturating_mul(4)));
            for v in &t.uint64_data {
                let v = u32::try_from(*v).map_err(|_| format!("holds {v} in uint64_data, out of range of {dtype}"))?;
                bytes.extend(v.to_le_bytes());
            }
            ("uint64_data", t.uint64_data.len(), bytes)
        }
        DType::I32 => ("int32_data", t.int32_data.len(), t.int32_data.iter().flat_map(|v| v.to_le_bytes()).collect()),
        DType::I16 => ("int32_data", t.int32_data.len(), words(i16::MIN.into(), i16::MAX.into())?),
        DType::U16 | DType::F16 | DType::BF16 => ("int32_data", t.int32_data.len(), words(0, u16::MAX.into())?),
        DType::I8 => ("int32_data", t.int32_data.len(), i32s(i8::MIN.into(), i8::MAX.into())?),
        DType::Bool => ("int32_data", t.int32_data.len(), i32s(0, 1)?),
        // The packed types hold several elements in each byte; some writers sign-extend the byte.
        DType::I4 | DType::U4 | DType::I2 | DType::U2 | DType::F4E2M1 => {
            ("int32_data", t.int32_data.len(), i32s(i8::MIN.into(), u8::MAX.into())?)
        }
        DType::U8 | DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 => {
            ("int32_data", t.int32_data.len(), i32s(0, u8::MAX.into())?)
        }
        DType::Str => ("string_data", t.string_data.len(), Vec::new()),
    };
    if bytes.len() != expected {
        return Err(wrong(field, n));
    }
    Ok(bytes)
}

/// A constant as ONNX writes it, its bytes as `raw_data`.
pub(super) fn tensor_proto(name: &str, c: &Constant) -> TensorProto {
    TensorProto { raw_data: c.bytes().as_bytes().to_vec(), ..tensor_header(name, c) }
}

/// A constant as ONNX writes it, without its bytes.
pub(super) fn tensor_header(name: &str, c: &Constant) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: c.shape().iter().map(|&d| i64::try_from(d).unwrap_or(i64::MAX)).collect(),
        data_type: dtype_to_onnx(c.dtype()),
        string_data: c.as_strings().iter().map(|s| s.clone().into_bytes()).collect(),
        ..TensorProto::default()
    }
}

/// Reads a file that holds a single `TensorProto` (`.pb`), as ONNX's own test data does. External data is not followed.
///
/// # Errors
/// [`OnnxError::Io`] if the file cannot be read, otherwise what is wrong with it.
pub fn read_tensor_file(path: &Path) -> Result<Constant, OnnxError> {
    let limits = Limits::default();
    let file = convc_runtime::sys::map_file(path).map_err(|source| OnnxError::Io { path: path.into(), source })?;
    let (t, payloads) = wire::parse_tensor(file.as_bytes(), &limits.wire())?;
    let mut source = Source::new(file, payloads, Folder::none(), &limits);
    source.constant(&t).map_err(|e| e.at(format!("tensor {}", shown(&t.name))))
}

#[cfg(test)]
mod tests {
    use convc_runtime::Data;
    use onnx_protobuf::Message;
    use protobuf::MessageField;

    use super::*;

    fn read(t: &TensorProto, limits: &Limits) -> Result<Constant, String> {
        let file = Blob::from(t.write_to_bytes().unwrap());
        let (t, payloads) = wire::parse_tensor(file.as_bytes(), &limits.wire()).unwrap();
        Source::new(file, payloads, Folder::none(), limits).constant(&t).map_err(text)
    }

    fn text(fault: TensorFault) -> String {
        fault.at("t").to_string()
    }

    fn proto(dtype: DType, dims: &[i64]) -> TensorProto {
        TensorProto { data_type: dtype_to_onnx(dtype), dims: dims.to_vec(), ..Default::default() }
    }

    #[test]
    fn every_encoding_gives_the_same_bytes() {
        for &dtype in DType::ALL.iter().filter(|d| **d != DType::Str) {
            let bits = if dtype == DType::C128 { 64 } else { dtype.bits() };
            let bytes: Vec<u8> = if dtype == DType::Bool { vec![1, 0, 1, 1] } else { (1..=4).collect() };
            let bytes = bytes.repeat(dtype.bits().div_ceil(2)).into_iter().take(dtype.bits() / 2).collect::<Vec<u8>>();
            let raw = TensorProto { raw_data: bytes.clone(), ..proto(dtype, &[2, 2]) };
            let expected = read(&raw, &Limits::default()).unwrap();
            assert_eq!(expected.bytes().as_bytes(), bytes, "{dtype}");
            let mut typed = proto(dtype, &[4]);
            let chunk = |n: usize| bytes.chunks_exact(n);
            let eight = |b: &[u8]| <[u8; 8]>::try_from(b).unwrap();
            let four = |b: &[u8]| <[u8; 4]>::try_from(b).unwrap();
            match dtype {
                DType::F32 | DType::C64 => typed.float_data = chunk(4).map(|b| f32::from_le_bytes(four(b))).collect(),
                DType::F64 | DType::C128 => {
                    typed.double_data = chunk(8).map(|b| f64::from_le_bytes(eight(b))).collect()
                }
                DType::I64 => typed.int64_data = chunk(8).map(|b| i64::from_le_bytes(eight(b))).collect(),
                DType::U64 => typed.uint64_data = chunk(8).map(|b| u64::from_le_bytes(eight(b))).collect(),
                DType::U32 => typed.uint64_data = chunk(4).map(|b| u32::from_le_bytes(four(b)).into()).collect(),
                DType::I32 => typed.int32_data = chunk(4).map(|b| i32::from_le_bytes(four(b))).collect(),
                _ if bits == 16 => {
                    typed.int32_data = chunk(2).map(|b| i32::from(b[0]) | i32::from(b[1]) << 8).collect();
                }
                _ => typed.int32_data = bytes.iter().map(|&b| b.into()).collect(),
            }
            let got = read(&typed, &Limits::default()).unwrap();
            assert_eq!((got.dtype(), got.bytes().as_bytes()), (dtype, bytes.as_slice()));
            assert_eq!(read(&tensor_proto("", &got), &Limits::default()).unwrap(), got);
        }
        let strings = TensorProto { string_data: vec![b"a".to_vec(), b"b".to_vec()], ..proto(DType::Str, &[2]) };
        assert_eq!(read(&strings, &Limits::default()).unwrap().as_strings(), ["a", "b"]);
    }

    #[test]
    fn large_data_stays_in_the_file() {
        let t = TensorProto { raw_data: vec![5; 4000], ..proto(DType::F32, &[1000]) };
        let limits = Limits { copied_bytes: 0, ..Limits::default() };
        assert_eq!(read(&t, &limits).unwrap().bytes().len(), 4000);
        let small = TensorProto { raw_data: vec![5; 4], ..proto(DType::F32, &[1]) };
        assert!(read(&small, &limits).unwrap_err().contains("needs 4 bytes copied, the limit is 0"));
    }

    #[test]
    fn tensors_that_lie_are_refused() {
        let raw = |n| vec![0; n];
        let few = Limits { elements: 10, ..Limits::default() };
        let two_fields = TensorProto { raw_data: raw(4), float_data: vec![1.], ..proto(DType::F32, &[1]) };
        let mut segment = TensorProto { raw_data: raw(4), ..proto(DType::F32, &[1]) };
        segment.segment.mut_or_insert_default().end = 1;
        for (t, why) in [
            (TensorProto { raw_data: raw(8), ..proto(DType::F32, &[1]) }, "4 bytes, and holds 8"),
            (TensorProto { raw_data: raw(4), ..proto(DType::F32, &[-1]) }, "negative size"),
            (proto(DType::F32, &[i64::MAX, 4]), "more elements than can be counted"),
            (proto(DType::F32, &[11]), "needs 11 elements, the limit is 10"),
            (proto(DType::F32, &[2]), "0 numbers in float_data"),
            (proto(DType::Str, &[2]), "declares 2 strings"),
            (TensorProto { data_type: 99, ..Default::default() }, "element type 99"),
            (TensorProto { int32_data: vec![300], ..proto(DType::U8, &[1]) }, "300 in int32_data, out of range of u8"),
            (two_fields, "more than one field"),
            (segment, "segments"),
        ] {
            let problem = read(&t, &few).unwrap_err();
            assert!(problem.contains(why), "{problem}");
        }
    }

    #[test]
    fn sparse_tensors_become_dense() {
        let limits = Limits::default();
        let mut source = Source::new(Blob::from(Vec::new()), Vec::new(), Folder::none(), &limits);
        let mut sparse = |shape: &[i64], indices: Vec<i64>, dims: &[i64]| {
            let values = TensorProto { float_data: vec![1., 2.], ..proto(DType::F32, &[2]) };
            let indices = TensorProto { int64_data: indices, ..proto(DType::I64, shape) };
            let (values, indices) = (MessageField::some(values), MessageField::some(indices));
            let t = SparseTensorProto { values, indices, dims: dims.to_vec(), ..Default::default() };
            source.dense(&t).map(|c| c.to_tensor().unwrap().into_data()).map_err(text)
        };
        let dense = Ok(Data::F32(std::sync::Arc::new(vec![0., 1., 0., 0., 0., 2.])));
        assert_eq!(sparse(&[2], vec![1, 5], &[2, 3]), dense);
        assert_eq!(sparse(&[2, 2], vec![0, 1, 1, 2], &[2, 3]), dense);
        assert!(sparse(&[2, 2], vec![0, 1, 2, 0], &[2, 3]).unwrap_err().contains("index [2, 0] outside [2, 3]"));
        assert!(sparse(&[2], vec![0, -1], &[2, 3]).unwrap_err().contains("outside"));
        assert!(sparse(&[3], vec![0, 1, 2], &[2, 3]).unwrap_err().contains("2 values and indices of shape [3]"));
        assert!(sparse(&[2], vec![0, 1], &[1 << 40, 1 << 40]).unwrap_err().contains("more elements"));
    }
}
