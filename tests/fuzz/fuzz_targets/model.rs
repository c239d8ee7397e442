//! Any bytes as a model: checked, imported, rewritten, lowered and written. Nothing may panic, hang or take unbounded memory.
//!
//! `cargo install cargo-fuzz`, then in the root of the repository:
//! `cargo fuzz run --fuzz-dir tests/fuzz -s none model tests/fuzz/corpus samples/models -- -rss_limit_mb=1024 -timeout=10`

#![no_main]

use convc::{
    lower,
    onnx::{ExportOptions, Limits, check_bytes, export, import_bytes},
    rewrite::{self, Options},
};
use convc_runtime::Blob;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { elements: 1 << 20, ..Limits::default() };
    let blob = Blob::from(bytes.to_vec());
    let _ = check_bytes(blob.clone(), None, &limits);
    let Ok(mut model) = import_bytes(blob, None, &limits) else { return };
    let _ = export(&model, &ExportOptions::default());
    if let Ok(rewritten) = rewrite::rewrite(std::mem::take(&mut model.graph), &Options::default()) {
        model.graph = rewritten.graph;
        let _ = lower::lower(&model.graph);
        let _ = export(&model, &ExportOptions::default());
    }
});
