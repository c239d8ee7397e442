//! Tensors in NumPy's files: `.npy` and `.npz`
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).
//!
//! Nothing in a file is believed: sizes are checked, memory grows with the bytes that are there and stops at a limit,
//! and pickled arrays are refused.

mod header;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    path::{Path, PathBuf},
};

use convc_runtime::{Constant, Data, Tensor, TensorError, dim::element_count};
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

use header::{Header, Kind};

/// Most bytes of elements that one file may hold, packed or not.
pub const MAX_BYTES: u64 = 1 << 32;

/// Most strings of length 0, which take memory but no bytes.
const MAX_EMPTY: u64 = 1 << 20;

/// Why tensors could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NpzError {
    /// The operating system refused.
    #[error("{path:?}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no intact archive.
    #[error("{path:?} is not an intact .npz file: {source}")]
    Zip {
        /// The file.
        path: PathBuf,
        /// Why.
        source: zip::result::ZipError,
    },
    /// An array that is damaged or of a kind that no tensor has.
    #[error("{path:?}: array {name:?}: {problem}")]
    Array {
        /// The file.
        path: PathBuf,
        /// Its name; empty in a `.npy` file.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The file holds more than [`MAX_BYTES`].
    #[error("{path:?} holds more than {limit} bytes of elements")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// A tensor that cannot be written.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

enum Problem {
    Io(io::Error),
    Array(String),
    TooLarge,
}

impl From<io::Error> for Problem {
    fn from(e: io::Error) -> Problem {
        match e.kind() {
            io::ErrorKind::UnexpectedEof => Problem::Array("it is cut short".into()),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Problem::Array(e.to_string()),
            _ => Problem::Io(e),
        }
    }
}

impl Problem {
    fn at(self, path: &Path, name: &str) -> NpzError {
        let path = path.to_owned();
        match self {
            Problem::Io(source) => NpzError::Io { path, source },
            Problem::Array(problem) => NpzError::Array { path, name: name.to_owned(), problem },
            Problem::TooLarge => NpzError::TooLarge { path, limit: MAX_BYTES },
        }
    }
}

/// Reads a `.npy` file.
///
/// # Errors
/// [`NpzError`].
pub fn read_npy(path: &Path) -> Result<Tensor, NpzError> {
    let file = File::open(path).map_err(|source| NpzError::Io { path: path.to_owned(), source })?;
    read_array(&mut BufReader::new(file), &mut { MAX_BYTES }).map_err(|p| p.at(path, ""))
}

/// Reads every array of a `.npz` file, in the file's order.
///
/// # Errors
/// [`NpzError`].
pub fn read_npz(path: &Path) -> Result<Vec<(String, Tensor)>, NpzError> {
    let file = File::open(path).map_err(|source| NpzError::Io { path: path.to_owned(), source })?;
    read_archive(BufReader::new(file), path)
}

fn read_archive(file: impl Read + Seek, path: &Path) -> Result<Vec<(String, Tensor)>, NpzError> {
    let broken = |source| NpzError::Zip { path: path.to_owned(), source };
    let mut archive = ZipArchive::new(file).map_err(broken)?;
    let mut left = MAX_BYTES;
    let mut tensors = Vec::new();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(broken)?;
        let file_name = entry.name().map_err(broken)?.into_owned();
        let name = file_name.strip_suffix(".npy").unwrap_or(&file_name).to_owned();
        let tensor = read_array(&mut entry, &mut left).map_err(|p| p.at(path, &name))?;
        tensors.push((name, tensor));
    }
    Ok(tensors)
}

fn read_array(from: &mut dyn Read, left: &mut u64) -> Result<Tensor, Problem> {
    let header = Header::read(from)?;
    let count = element_count(&header.shape).ok_or_else(|| Problem::Array("its shape overflows".into()))?;
    let expected = (count as u64).checked_mul(header.item as u64).filter(|&n| n <= *left).ok_or(Problem::TooLarge)?;
    *left -= expected;
    if header.item == 0 && count as u64 > MAX_EMPTY {
        return Err(Problem::Array(format!("it has {count} empty strings")));
    }
    let mut bytes = Vec::new();
    // One byte more shows that there is no end where there should be.
    from.take(expected + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != expected {
        let problem = format!("it has {} bytes of elements where {expected} are due", bytes.len());
        return Err(Problem::Array(problem));
    }
    if header.big_endian {
        bytes.chunks_exact_mut(header.unit()).for_each(<[u8]>::reverse);
    }
    if header.fortran {
        bytes = row_major(&bytes, &header.shape, header.item);
    }
    let tensor = match header.kind {
        Kind::Plain(dtype) => Constant::new(dtype, header.shape, bytes.into()).and_then(|c| c.to_tensor()),
        Kind::Ucs4 | Kind::Utf8 => {
            let text = |item: &[u8]| if header.kind == Kind::Ucs4 { ucs4(item) } else { utf8(item) };
            let strings = match header.item {
                0 => Some(vec![String::new(); count]),
                item => bytes.chunks_exact(item).map(text).collect(),
            };
            let strings: Vec<String> = strings.ok_or_else(|| Problem::Array("it holds no valid text".into()))?;
            Tensor::new(header.shape, strings)
        }
    };
    tensor.map_err(|e| Problem::Array(e.to_string()))
}

fn ucs4(item: &[u8]) -> Option<String> {
    let units = item.chunks_exact(4).map(|c| c.try_into().ok().map(u32::from_le_bytes));
    let text: String = units.map(|u| char::from_u32(u?)).collect::<Option<String>>()?;
    Some(text.trim_end_matches('\0').to_owned())
}

fn utf8(item: &[u8]) -> Option<String> {
    Some(std::str::from_utf8(item).ok()?.trim_end_matches('\0').to_owned())
}

/// Elements of `item` bytes in column-major order, put in row-major order.
fn row_major(bytes: &[u8], shape: &[usize], item: usize) -> Vec<u8> {
    let mut strides = Vec::with_capacity(shape.len());
    let mut step = item;
    for &n in shape {
        strides.push(step);
        step *= n;
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    while out.len() < bytes.len() {
        out.extend_from_slice(&bytes[at..at + item]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    out
}

/// Writes tensors to a `.npz` file in this order: to a temporary name beside `path`, then renamed. The same tensors give
/// the same bytes. bf16 elements, which NumPy lacks, become its 2-byte `V2`, as the package `ml_dtypes` writes them.
///
/// # Errors
/// [`NpzError`].
pub fn write_npz<'a>(path: &Path, tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<(), NpzError> {
    let failed = |source| NpzError::Io { path: path.to_owned(), source };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    let mut zip = ZipWriter::new(BufWriter::new(file.as_file_mut()));
    for (name, tensor) in tensors {
        let (header, elements) = npy_bytes(tensor)?;
        let large = elements.len() as u64 >= u64::from(u32::MAX) - 65536;
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(zip::DateTime::default())
            .large_file(large);
        zip.start_file(format!("{name}.npy"), options)
            .map_err(|source| NpzError::Zip { path: path.to_owned(), source })?;
        zip.write_all(&header).and_then(|()| zip.write_all(&elements)).map_err(failed)?;
    }
    let buffer = zip.finish().map_err(|source| NpzError::Zip { path: path.to_owned(), source })?;
    buffer.into_inner().map_err(|e| failed(e.into_error()))?;
    keep(file, path).map_err(failed)
}

/// Gives a finished temporary file its name, with the permissions that a new file would have.
pub(crate) fn keep(file: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A temporary file is private until it is whole. An existing file's permissions stay.
        let mode = std::fs::metadata(path).map_or(0o644, |m| m.permissions().mode());
        file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    }
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

fn npy_bytes(tensor: &Tensor) -> Result<(Vec<u8>, Vec<u8>), TensorError> {
    let (descr, bytes) = match tensor.data() {
        Data::Str(v) => {
            let longest = v.iter().map(|s| s.chars().count()).max().unwrap_or(0).max(1);
            let pad = |s: &String| {
                let mut units: Vec<u32> = s.chars().map(u32::from).collect();
                units.resize(longest, 0);
                units.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>()
            };
            (format!("<U{longest}"), v.iter().flat_map(pad).collect())
        }
        _ => {
            let constant = Constant::from_tensor(tensor)?;
            (header::descr(constant.dtype()).to_owned(), constant.bytes().as_bytes().to_vec())
        }
    };
    Ok((header::write(&descr, tensor.shape()), bytes))
}
