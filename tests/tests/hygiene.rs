//! What no compiler checks of the files in the repository.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Every file of the repository, by its path from the root. What `.gitignore` names is left out.
fn files() -> Vec<String> {
    fn walk(root: &Path, folder: &Path, ignored: &[&str], out: &mut Vec<String>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            let is_ignored = ignored.iter().any(|pattern| {
                let (top, pattern) = (pattern.starts_with('/'), pattern.trim_matches('/'));
                let fits = pattern
                    .strip_prefix('*')
                    .map_or(name.rsplit('/').next() == Some(pattern), |end| name.ends_with(end));
                fits && !(top && name.contains('/'))
            });
            match () {
                () if name == ".git" || is_ignored => {}
                () if path.is_dir() => walk(root, &path, ignored, out)?,
                () => out.push(name),
            }
        }
        Ok(())
    }
    let root = root();
    let ignored = fs::read_to_string(root.join(".gitignore")).unwrap();
    let mut out = Vec::new();
    walk(&root, &root, &ignored.lines().filter(|l| !l.is_empty()).collect::<Vec<_>>(), &mut out).unwrap();
    out.sort();
    assert!(out.len() > 100 && out.contains(&"Cargo.toml".to_owned()));
    out
}

/// The lines of every text file for which `wanted` holds: where each is, and its text.
fn lines(wanted: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for name in files().into_iter().filter(|n| wanted(n)) {
        let Ok(text) = fs::read_to_string(root().join(&name)) else { continue };
        out.extend(text.lines().enumerate().map(|(i, l)| (format!("{name}:{}", i + 1), l.to_owned())));
    }
    out
}

fn is_rust(name: &str) -> bool {
    name.ends_with(".rs")
}

fn is_this_file(name: &str) -> bool {
    name == "tests/tests/hygiene.rs"
}

#[track_caller]
fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn no_paths_of_a_machine() {
    let bad = ["/work/", "/root/", "/home/"];
    let found = lines(|n| !is_this_file(n) && n != "Cargo.lock");
    let found = found.into_iter().filter(|(_, l)| bad.iter().any(|b| l.contains(b))).map(|(at, _)| at);
    none("paths of a machine", found.collect());
}

#[test]
fn nothing_is_left_unfinished() {
    let bad = ["todo!", "unimplemented!", "TODO", "FIXME", "#[ignore"];
    let found = lines(|n| (is_rust(n) || n.ends_with(".py") || n.ends_with(".md")) && !is_this_file(n));
    let found =
        found.into_iter().filter(|(_, l)| bad.iter().any(|b| l.contains(b))).map(|(at, l)| format!("{at}: {l}"));
    none("unfinished", found.collect());
}

#[test]
fn no_large_files() {
    let large = |n: &String| fs::metadata(root().join(n)).unwrap().len() > 1 << 20;
    none("files over 1 MiB", files().into_iter().filter(large).collect());
}

/// The code of a line: without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

#[test]
fn unsafe_code_has_two_rooms() {
    let elsewhere = |n: &str| {
        is_rust(n) && !is_this_file(n) && !n.starts_with("runtime/src/kernels/") && !n.starts_with("runtime/src/sys/")
    };
    let is_unsafe = |l: &str| code(l).split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
    let found = lines(elsewhere).into_iter().filter(|(_, l)| is_unsafe(l)).map(|(at, l)| format!("{at}: {l}"));
    none("unsafe outside runtime/src/kernels and runtime/src/sys", found.collect());
}

/// What comes from a file must not end the process.
#[test]
fn readers_of_files_do_not_unwrap() {
    let reader = |n: &str| {
        let test = n.ends_with("/tests.rs") || n.ends_with("/testing.rs") || n.contains("/tests/");
        is_rust(n) && !test && (n.starts_with("compiler/src/onnx/") || n.starts_with("runtime/src/plan/"))
    };
    let mut found = Vec::new();
    for name in files().into_iter().filter(|n| reader(n)) {
        let text = fs::read_to_string(root().join(&name)).unwrap();
        let product = text.lines().take_while(|l| !l.trim_start().starts_with("#[cfg(test)]"));
        found.extend(
            product
                .enumerate()
                .filter(|(_, l)| code(l).contains(".unwrap()") || code(l).contains(".expect("))
                .map(|(i, l)| format!("{name}:{}: {l}", i + 1)),
        );
    }
    none("unwrap in readers of files", found);
}

#[test]
fn conformance_list_is_sorted() {
    let text = fs::read_to_string(root().join("tests/conformance/passing.txt")).unwrap();
    let names: Vec<&str> = text.lines().collect();
    assert!(names.is_sorted_by(|a, b| a < b), "tests/conformance/passing.txt is not sorted, or names a case twice");
}

#[test]
fn the_script_of_ci_is_strict() {
    let text = fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(text.contains("\nset -euo pipefail\n"));
}

/// A dependency is used by its name in the crate that asks for it: a path (`serde_json::to_string`) or a macro's
/// import (`use thiserror`). What only tests use belongs to `[dev-dependencies]`, what a build script uses to
/// `[build-dependencies]`.
#[test]
fn every_dependency_is_used_where_it_is_named() {
    let named = |text: &str, section: &str| -> Vec<String> {
        let inside =
            text.lines().skip_while(|l| *l != format!("[{section}]")).skip(1).take_while(|l| !l.starts_with('['));
        let keys = inside.filter(|l| !l.trim_start().starts_with('#')).filter_map(|l| l.split(['.', '=']).next());
        keys.map(|k| k.trim().to_owned()).filter(|k| !k.is_empty()).collect()
    };
    // A file of tests inside src/ is compiled for tests alone, like what stands behind `#[cfg(test)]` at a file's end.
    let is_test = |n: &str| n.ends_with("/tests.rs") || n.ends_with("/properties.rs") || n.ends_with("/testing.rs");
    let mut used: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for krate in ["runtime", "compiler", "tests", "samples"] {
        let text = fs::read_to_string(root().join(krate).join("Cargo.toml")).unwrap();
        let sources: Vec<(String, String)> = files()
            .into_iter()
            .filter(|n| is_rust(n) && n.starts_with(&format!("{krate}/")) && !n.starts_with("tests/fuzz/"))
            .map(|n| (n.clone(), fs::read_to_string(root().join(&n)).unwrap()))
            .collect();
        for (section, product, build) in
            [("dependencies", true, false), ("dev-dependencies", false, false), ("build-dependencies", false, true)]
        {
            for dependency in named(&text, section) {
                let name = dependency.replace('-', "_");
                let mentions = |text: &str| {
                    text.lines().map(code).any(|l| {
                        l.match_indices(&name).any(|(at, _)| {
                            let before = l[..at].chars().next_back();
                            let after = l[at + name.len()..].trim_start();
                            !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.')
                                && (after.starts_with("::")
                                    || (l.trim_start().starts_with("use ") && after.starts_with([';', ' '])))
                        })
                    })
                };
                let is_used = sources.iter().any(|(n, text)| {
                    let built = *n == format!("{krate}/build.rs");
                    let shipped = n.starts_with(&format!("{krate}/src/")) && !is_test(n);
                    match (build, product) {
                        (true, _) => built && mentions(text),
                        (false, true) => {
                            let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
                            shipped && mentions(product)
                        }
                        (false, false) => !built && mentions(text),
                    }
                });
                if !is_used {
                    found.push(format!("{krate}/Cargo.toml: [{section}] {dependency}"));
                }
                used.push(dependency);
            }
        }
    }
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let left = named(&workspace, "workspace.dependencies").into_iter().filter(|d| !used.contains(d));
    found.extend(left.map(|d| format!("Cargo.toml: [workspace.dependencies] {d}")));
    none("dependencies that nothing uses", found);
}
