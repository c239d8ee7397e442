//! External data: tensors whose bytes lie in files beside the model.
//!
//! A location comes from the model and is not trusted. It must be a relative path of plain names, and the file that it
//! leads to, symbolic links followed, must be a regular file within the model's folder. Files are mapped once each.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use convc_runtime::Blob;
use onnx_protobuf::StringStringEntryProto;

use super::{Limits, error::shown, tensor::TensorFault};

/// The folder that external data is read from, and the files mapped so far.
pub(super) struct Folder {
    base: Option<PathBuf>,
    files: BTreeMap<String, Blob>,
    bytes: u64,
}

impl Folder {
    /// The folder `base`.
    pub(super) fn at(base: &Path) -> Folder {
        let base = if base.as_os_str().is_empty() { Path::new(".") } else { base };
        Folder { base: Some(base.to_owned()), files: BTreeMap::new(), bytes: 0 }
    }

    /// No folder: every external tensor is refused.
    pub(super) fn none() -> Folder {
        Folder { base: None, files: BTreeMap::new(), bytes: 0 }
    }

    /// The bytes of a tensor of `size` bytes that these entries describe.
    pub(super) fn read(
        &mut self,
        entries: &[StringStringEntryProto],
        size: usize,
        limits: &Limits,
    ) -> Result<Blob, TensorFault> {
        let mut location = None;
        let (mut offset, mut length) = (0_usize, None);
        for e in entries {
            let number = || {
                e.value.parse::<usize>().map_err(|_| format!("has external data with {} {}", e.key, shown(&e.value)))
            };
            match e.key.as_str() {
                "location" if location.is_some() => return Err("has two external locations".to_owned().into()),
                "location" => location = Some(e.value.as_str()),
                "offset" => offset = number()?,
                "length" => length = Some(number()?),
                _ => {}
            }
        }
        let location = location.ok_or_else(|| "has external data without a location".to_owned())?;
        if let Some(length) = length.filter(|&l| l != size) {
            return Err(format!("needs {size} bytes and declares {length} bytes of external data").into());
        }
        self.bytes = self.bytes.saturating_add(u64::try_from(size).unwrap_or(u64::MAX));
        if self.bytes > limits.external_bytes {
            return Err(TensorFault::Limit("bytes of external data", self.bytes.to_string(), limits.external_bytes));
        }
        let file = self.file(location, limits)?;
        let end = offset.checked_add(size);
        end.and_then(|end| file.slice(offset..end)).ok_or_else(|| {
            let name = shown(location);
            format!("needs {size} bytes at {offset} of external data {name}, which has {} bytes", file.len()).into()
        })
    }

    fn file(&mut self, location: &str, limits: &Limits) -> Result<Blob, String> {
        if let Some(file) = self.files.get(location) {
            return Ok(file.clone());
        }
        let name = shown(location);
        plain_location(location).map_err(|problem| format!("has external data in {name}: {problem}"))?;
        let Some(base) = &self.base else {
            return Err(format!("has external data in {name}, and the model was read from memory without a folder"));
        };
        let failed = |e: std::io::Error| format!("has external data in {name}, which cannot be read: {e}");
        let folder = base.canonicalize().map_err(failed)?;
        let path = folder.join(location).canonicalize().map_err(failed)?;
        if !path.starts_with(&folder) {
            return Err(format!("has external data in {name}, a link that leaves the model's folder"));
        }
        let meta = path.symlink_metadata().map_err(failed)?;
        if !meta.is_file() {
            return Err(format!("has external data in {name}, which is not a regular file"));
        }
        if !limits.hard_links && links(&meta) > 1 {
            return Err(format!(
                "has external data in {name}, which has other hard links and may thus be a file from elsewhere (copy it to allow it)"
            ));
        }
        let file = convc_runtime::sys::map_file(&path).map_err(failed)?;
        self.files.insert(location.to_owned(), file.clone());
        Ok(file)
    }
}

#[cfg(unix)]
fn links(meta: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(meta)
}

#[cfg(not(unix))]
fn links(_: &std::fs::Metadata) -> u64 {
    1
}

/// Refuses every location that is not a relative path of plain names, by the rules of all systems at once.
fn plain_location(location: &str) -> Result<(), &'static str> {
    if location.is_empty() {
        return Err("the location is empty");
    }
    if location.chars().any(char::is_control) {
        return Err("control characters are not allowed in a location");
    }
    if location.starts_with(['/', '\\']) {
        return Err("absolute paths are not allowed");
    }
    if location.contains(':') {
        return Err("colons are not allowed in a location");
    }
    if location.split(['/', '\\']).any(|part| part == "..") {
        return Err("a location must not contain \"..\"");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(list: &[(&str, &str)]) -> Vec<StringStringEntryProto> {
        list.iter()
            .map(|(k, v)| StringStringEntryProto { key: (*k).into(), value: (*v).into(), ..Default::default() })
            .collect()
    }

    fn refusal(folder: &mut Folder, list: &[(&str, &str)], size: usize) -> String {
        match folder.read(&entries(list), size, &Limits::default()) {
            Err(TensorFault::Bad(problem)) => problem,
            Err(TensorFault::Limit(..)) => "limit".into(),
            Ok(_) => "accepted".into(),
        }
    }

    #[test]
    fn locations_that_escape_are_refused() {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("model");
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        std::fs::write(outer.path().join("secret"), [1; 8]).unwrap();
        std::fs::write(dir.join("sub/w.bin"), [2; 8]).unwrap();
        let mut folder = Folder::at(&dir);
        assert_eq!(refusal(&mut folder, &[("location", "sub/w.bin"), ("offset", "4")], 4), "accepted");
        for (location, why) in [
            ("../secret", "\"..\""),
            ("sub/../../secret", "\"..\""),
            ("sub\\..\\..\\secret", "\"..\""),
            ("/etc/passwd", "absolute"),
            ("\\\\host\\share", "absolute"),
            ("C:\\w.bin", "colons"),
            ("w.bin:stream", "colons"),
            ("w\0.bin", "control"),
            ("w\n.bin", "control"),
            ("", "empty"),
            ("sub", "regular file"),
            ("absent", "cannot be read"),
        ] {
            let problem = refusal(&mut folder, &[("location", location)], 8);
            assert!(problem.contains(why), "{location}: {problem}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("../secret", dir.join("link")).unwrap();
            assert!(refusal(&mut folder, &[("location", "link")], 8).contains("leaves the model's folder"));
            std::os::unix::fs::symlink("..", dir.join("up")).unwrap();
            assert!(refusal(&mut folder, &[("location", "up/secret")], 8).contains("leaves the model's folder"));
            std::os::unix::fs::symlink("sub/w.bin", dir.join("inside")).unwrap();
            assert_eq!(refusal(&mut folder, &[("location", "inside")], 8), "accepted");
            std::fs::hard_link(outer.path().join("secret"), dir.join("hard")).unwrap();
            assert!(refusal(&mut folder, &[("location", "hard")], 8).contains("hard links"));
        }
    }

    #[test]
    fn ranges_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("w"), [0; 8]).unwrap();
        let mut folder = Folder::at(dir.path());
        let max = usize::MAX.to_string();
        for (list, size) in [
            (vec![("location", "w"), ("offset", "5")], 4),
            (vec![("location", "w"), ("offset", max.as_str())], 4),
            (vec![("location", "w"), ("offset", "-1")], 4),
            (vec![("location", "w"), ("length", "5")], 4),
            (vec![("location", "w"), ("length", "99999999999999999999999")], 4),
            (vec![("location", "w"), ("location", "w")], 4),
            (vec![("offset", "0")], 4),
        ] {
            assert_ne!(refusal(&mut folder, &list, size), "accepted", "{list:?}");
        }
        assert_eq!(refusal(&mut folder, &[("location", "w"), ("offset", "8")], 0), "accepted");
        assert!(refusal(&mut Folder::none(), &[("location", "w")], 8).contains("without a folder"));
    }
}
