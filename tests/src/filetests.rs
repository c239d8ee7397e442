//! Goldens of rewriting: `tests/filetests/rewrite/<family>/<rule>*.cir`.
//!
//! ```text
//! # What it shows.
//! only: bn-as-conv, conv-compose
//! graph(x: f32[N, 4, 8, 8]) {
//!   ..
//! }
//! ---
//! fired: bn-as-conv, conv-compose
//! graph(x: f32[N, 4, 8, 8]) {
//!   ..
//! }
//! not-fired: conv-compose: border-exact: the second convolution ..
//! ```
//!
//! What is above `---` is written by hand, what is below it is what rewriting with these rules gives.

use std::{
    collections::BTreeSet,
    fmt::Write,
    path::{Path, PathBuf},
};

use convc::{
    ir::{
        Graph,
        text::{parse, print},
    },
    rewrite::{Options, Rewritten, rewrite, rules},
};

/// The line between what is written by hand and what is blessed.
const RULER: &str = "---";

/// A golden, read.
pub struct FileTest {
    /// Where it is.
    pub path: PathBuf,
    /// What is above the ruler, ruler excluded.
    pub head: String,
    /// What is below it.
    pub blessed: String,
    /// The rules it asks for.
    pub only: Vec<String>,
    /// The opset of the model that it is to be written in, if that limits what rules may bring in.
    pub opset: Option<i64>,
    /// The graph above the ruler.
    pub graph: Graph,
}

impl FileTest {
    /// Reads a golden.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn read(path: &Path) -> Result<FileTest, String> {
        let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
        let (head, blessed) = match text.split_once(&format!("\n{RULER}\n")) {
            Some((head, blessed)) => (head.to_owned(), blessed.to_owned()),
            None => (text.trim_end().to_owned(), String::new()),
        };
        let (mut only, mut opset) = (Vec::new(), None);
        let mut graph_text = String::new();
        for line in head.lines() {
            // These lines stay as comments, so that errors name the file's own lines.
            if let Some(names) = line.strip_prefix("only:") {
                only.extend(names.split(',').map(|n| n.trim().to_owned()));
                graph_text.push('#');
            } else if let Some(number) = line.strip_prefix("opset:") {
                opset = Some(number.trim().parse().map_err(|e| format!("opset: {e}"))?);
                graph_text.push('#');
            } else {
                graph_text.push_str(line);
            }
            graph_text.push('\n');
        }
        let graph = parse(&graph_text).map_err(|e| e.to_string())?;
        Ok(FileTest { path: path.to_owned(), head, blessed, only, opset, graph })
    }

    /// Rewrites its graph with its rules.
    ///
    /// # Errors
    /// If rewriting fails.
    pub fn rewrite(&self) -> Result<Rewritten, String> {
        self.rewrite_with(None)
    }

    /// The same with a condition of a rule counted as holding.
    ///
    /// # Errors
    /// If rewriting fails.
    pub fn rewrite_with(&self, forced: Option<(&'static str, &'static str)>) -> Result<Rewritten, String> {
        let dialect = convc::rewrite::Dialect::Convc;
        let options = Options { only: self.only.clone(), dialect, forced, opset: self.opset, ..Options::default() };
        rewrite(self.graph.clone(), &options).map_err(|e| e.to_string())
    }

    /// What belongs below the ruler.
    #[must_use]
    pub fn outcome(&self, rewritten: &Rewritten) -> String {
        let fired: BTreeSet<&str> =
            rewritten.steps.iter().map(|s| s.rule.as_str()).filter(|r| rules::find(r).is_some()).collect();
        let fired: Vec<&str> = fired.into_iter().collect();
        let mut out = format!("fired: {}\n{}", fired.join(", "), print(&rewritten.graph));
        let misses: BTreeSet<String> = rewritten
            .not_fired
            .iter()
            .map(|m| format!("not-fired: {}: {}: {}\n", m.rule, m.condition, m.reason))
            .collect();
        misses.iter().for_each(|m| out.push_str(m));
        for e in &rewritten.ill_typed {
            let _ = writeln!(out, "ill-typed: {e}");
        }
        out
    }

    /// The rules that fired, as blessed.
    #[must_use]
    pub fn fired(&self) -> BTreeSet<&str> {
        let line = self.blessed.lines().find_map(|l| l.strip_prefix("fired:")).unwrap_or_default();
        line.split(',').map(str::trim).filter(|n| !n.is_empty()).collect()
    }

    /// Rule and condition of each candidate that did not fire, as blessed.
    #[must_use]
    pub fn not_fired(&self) -> BTreeSet<(&str, &str)> {
        let each = self.blessed.lines().filter_map(|l| l.strip_prefix("not-fired:"));
        each.filter_map(|l| {
            let mut parts = l.splitn(3, ':').map(str::trim);
            Some((parts.next()?, parts.next()?))
        })
        .collect()
    }

    /// Writes what belongs below the ruler.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn bless(&self, outcome: &str) -> std::io::Result<()> {
        std::fs::write(&self.path, format!("{}\n{RULER}\n{outcome}", self.head))
    }
}

/// Every golden, in order of its path.
///
/// # Panics
/// If a file cannot be read as one.
#[must_use]
pub fn all() -> Vec<FileTest> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("filetests/rewrite");
    let mut paths = Vec::new();
    let mut stack = vec![root];
    while let Some(dir) = stack.pop() {
        for entry in std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                stack.push(path);
            } else if path.extension().is_some_and(|e| e == "cir") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    paths.iter().map(|p| FileTest::read(p).unwrap_or_else(|e| panic!("{}: {e}", p.display()))).collect()
}
