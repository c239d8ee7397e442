//! Files: pieces of bytes, and how they reach the disk.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use convc_runtime::Blob;
use sha2::{Digest, Sha256};

use super::{ExportOptions, WriteError, Written, export};
use crate::onnx::Model;

/// The content of a file as a list of byte ranges, most of which belong to somebody else.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pieces {
    list: Vec<Blob>,
    length: u64,
}

/// A length as a number of fixed width.
pub(super) fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

impl Pieces {
    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn push_bytes(&mut self, bytes: Vec<u8>) {
        self.push_blob(&Blob::from(bytes));
    }

    pub(super) fn push_blob(&mut self, blob: &Blob) {
        self.length += wide(blob.len());
        self.list.push(blob.clone());
    }

    /// Adds `blob` behind as many zeros as its alignment asks for, and returns where it begins.
    pub(super) fn push_aligned(&mut self, blob: &Blob) -> u64 {
        // Large tensors begin on a page, so that a reader may map them.
        let align = if blob.len() >= 1 << 16 { 4096 } else { 64 };
        let gap = self.length.next_multiple_of(align) - self.length;
        self.push_bytes(vec![0; usize::try_from(gap).unwrap_or_default()]);
        let at = self.length;
        self.push_blob(blob);
        at
    }

    pub(super) fn append(&mut self, other: Pieces) {
        self.length += other.length;
        self.list.extend(other.list);
    }

    /// Writes all bytes.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        self.list.iter().try_for_each(|b| out.write_all(b.as_bytes()))
    }

    /// All bytes in one buffer.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.list.iter().map(Blob::as_bytes).collect::<Vec<_>>().concat()
    }

    fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for b in &self.list {
            hash.update(b.as_bytes());
        }
        hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Whether the file at `path` holds these bytes.
    fn same_as(&self, path: &Path) -> bool {
        let Ok(file) = convc_runtime::sys::map_file(path) else { return false };
        let mut rest = file.as_bytes();
        wide(rest.len()) == self.length
            && self.list.iter().all(|b| match rest.split_at_checked(b.len()) {
                Some((head, tail)) => {
                    rest = tail;
                    head == b.as_bytes()
                }
                None => false,
            })
    }
}

/// A model as the bytes of its files.
#[derive(Debug, Clone, PartialEq)]
pub struct Exported {
    /// The ONNX file.
    pub model: Pieces,
    /// The file of its weights: the name that the model refers to, and the bytes.
    pub external: Option<(String, Pieces)>,
    /// What the file calls the nodes and values of the graph.
    pub written: Written,
}

/// What [`save`] did.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// The files written.
    pub files: Vec<PathBuf>,
    /// What the model's file calls the nodes and values of the graph.
    pub written: Written,
}

/// Writes `model` to `path`: to a temporary file that is renamed when it is complete. Weights that do not go into it lie
/// beside it in `path.data`; if a file of that name and of other content exists, their hash becomes part of the name.
///
/// # Errors
/// Those of [`export`], and of the operating system.
pub fn save(model: &Model, path: &Path, options: &ExportOptions) -> Result<Saved, WriteError> {
    let failed = |path: &Path, source: io::Error| WriteError::Io { path: path.into(), source };
    let invalid = || failed(path, io::Error::new(io::ErrorKind::InvalidInput, "not a file name"));
    let file_name = path.file_name().and_then(|n| n.to_str()).ok_or_else(invalid)?;
    let mut options = ExportOptions { external_name: format!("{file_name}.data"), ..options.clone() };
    let mut exported = export(model, &options)?;
    let mut written = Vec::new();
    if let Some((name, bytes)) = &exported.external {
        let mut target = path.with_file_name(name);
        if target.symlink_metadata().is_ok() && !bytes.same_as(&target) {
            let digest = bytes.digest();
            let short = digest.get(..16).unwrap_or(&digest);
            options.external_name = format!("{file_name}.{short}.data");
            exported = export(model, &options)?;
            target = path.with_file_name(&options.external_name);
        }
        if let Some((_, bytes)) = &exported.external
            && !bytes.same_as(&target)
        {
            write(bytes, &target, false).map_err(|e| failed(&target, e))?;
            written.push(target);
        }
    }
    write(&exported.model, path, true).map_err(|e| failed(path, e))?;
    written.push(path.to_owned());
    Ok(Saved { files: written, written: exported.written })
}

/// Writes to a temporary file beside `path` and renames it.
fn write(bytes: &Pieces, path: &Path, overwrite: bool) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".convc-").suffix(".tmp");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    {
        let mut out = io::BufWriter::with_capacity(1 << 16, file.as_file_mut());
        bytes.write_to(&mut out)?;
        out.flush()?;
    }
    let result = if overwrite { file.persist(path) } else { file.persist_noclobber(path) };
    result.map(drop).map_err(|e| e.error)
}
