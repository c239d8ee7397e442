//! Files mapped into memory.

use std::{fs::File, io, path::Path, sync::Arc};

use crate::Blob;

/// Maps the whole file at `path` for reading. Other processes must not shorten it meanwhile: a page that is gone raises
/// SIGBUS, as with every mapped file.
///
/// # Errors
/// Those of the operating system; an empty file gives an empty blob.
pub fn map_file(path: &Path) -> io::Result<Blob> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if meta.len() == 0 {
        return Ok(Blob::from(Vec::new()));
    }
    // SAFETY: the map is read-only and private, and nothing in this process writes to the file.
    let map = unsafe { memmap2::MmapOptions::new().map_copy_read_only(&file)? };
    Ok(Blob::new(Arc::new(map)))
}
