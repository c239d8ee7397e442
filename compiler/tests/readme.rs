//! The commands of the README, run as it says, and the output it shows.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const CONVC: &str = "cargo run --release -p convc -- ";
const SAMPLE: &str = "cargo run --release -p convc-samples --bin ";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The fenced blocks of `text`: their language and their lines.
fn blocks(text: &str) -> Vec<(String, Vec<String>)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let block = lines.by_ref().take_while(|l| *l != "```").map(str::to_owned).collect();
            blocks.push((language.to_owned(), block));
        }
    }
    blocks
}

#[test]
fn commands_work_as_typed() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let ci = fs::read_to_string(root().join(".ci/run")).unwrap();
    // Where a clone's own files are, so that the commands need no change and leave nothing behind.
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("samples/models");
    fs::create_dir_all(&models).unwrap();
    for entry in fs::read_dir(root().join("samples/models")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, models.join(path.file_name().unwrap())).unwrap();
    }
    let (mut run, mut last): (usize, Option<Output>) = (0, None);
    for (language, lines) in blocks(&readme) {
        if language == "text" {
            let printed = String::from_utf8(last.take().unwrap().stdout).unwrap();
            assert!(printed.contains(&lines.join("\n")), "the README shows another output than this:\n{printed}");
            continue;
        }
        assert_eq!(language, "sh");
        for line in &lines {
            if let Some(arguments) = line.strip_prefix(CONVC) {
                let output = Command::new(env!("CARGO_BIN_EXE_convc"))
                    .args(arguments.split(' '))
                    .current_dir(folder.path())
                    .output()
                    .unwrap();
                assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
                last = Some(output);
                run += 1;
            } else if let Some(sample) = line.strip_prefix(SAMPLE) {
                // The samples' own tests run them.
                let name = sample.split(' ').next().unwrap();
                assert!(root().join(format!("samples/src/bin/{name}.rs")).exists(), "{line}");
            } else {
                assert!(ci.lines().any(|l| l == line), "{line} is no command of .ci/run");
            }
        }
    }
    assert!(run > 5);
}

/// Tables that the program prints stand in docs/ as it prints them.
#[test]
fn generated_documentation_is_current() {
    const COMMAND: &str = "CONVC_BLESS=1 cargo test -p convc --test readme";
    let list = |what: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_convc")).args(["list", what, "--markdown"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let intro = "# The rewrite rules\n\n\
        This page is what `convc list rules --markdown` prints. A rule fires only where each of its conditions is known to hold,\n\
        whatever the sizes that the model leaves open.\n\n\
        An equation has alternatives, separated by `;`. Heads in upper case are operators, a variable stands for one value\n\
        wherever it occurs, `b?` may be missing, `x[i]..` is a run of operands, and a head in lower case is something made of its\n\
        operands and of nothing else. The grammar is in [tests/src/equations/mod.rs](../tests/src/equations/mod.rs); tests unify\n\
        every equation with the matches of its rule.\n\n";
    let expected = format!("{intro}{}", list("rules"));
    let path = root().join("docs/rules.md");
    if std::env::var("CONVC_BLESS").is_ok_and(|v| v == "1") {
        fs::write(&path, &expected).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "docs/rules.md is not what `convc list rules --markdown` prints now; run\n  {COMMAND}");
}
