//! What goes to stderr: errors, notes and progress.

use std::io::{IsTerminal, Write};

use super::Failure;

/// How much is said, and whether in colour.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Say {
    quiet: bool,
    verbose: u8,
    colour: bool,
}

impl Say {
    /// Colour is used on a terminal unless `NO_COLOR` is set and not empty (<https://no-color.org>).
    pub(crate) fn new(quiet: bool, verbose: u8) -> Say {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Say { quiet, verbose, colour: !no_colour && std::io::stderr().is_terminal() }
    }

    fn line(self, label: &str, colour: &str, message: &str) {
        // Nobody is left to tell if stderr is closed.
        let _ = if self.colour {
            writeln!(std::io::stderr(), "\x1b[1;{colour}m{label}\x1b[0m: {message}")
        } else {
            writeln!(std::io::stderr(), "{label}: {message}")
        };
    }

    /// An error and what to do about it.
    pub(crate) fn failure(self, failure: &Failure) {
        self.line("error", "31", &visible(&failure.message));
        if let Some(help) = &failure.help {
            self.line("help", "36", &visible(help));
        }
    }

    /// Something the user may want to know.
    pub(crate) fn note(self, message: &str) {
        if !self.quiet {
            self.line("note", "36", &visible(message));
        }
    }

    /// Something the user asked to know with `-v`.
    pub(crate) fn detail(self, message: impl FnOnce() -> String) {
        if self.verbose > 0 && !self.quiet {
            self.line("info", "32", &visible(&message()));
        }
    }
}

/// The text with control characters escaped: names come from files, and a terminal obeys what it is shown.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Writes a result to stdout.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // The reader has seen enough, as `head` does.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(Failure::internal(format!("stdout: {e}"))),
        Ok(()) => Ok(()),
    }
}

/// Writes a result to stdout as JSON with `"schema": "convc.<verb>/1"` first.
pub(crate) fn print_json(verb: &str, value: serde_json::Value) -> Result<(), Failure> {
    let serde_json::Value::Object(fields) = value else { return Err(Failure::internal("a result is not an object")) };
    let mut text = String::from("{\n  \"schema\": ");
    text.push_str(&serde_json::Value::from(format!("convc.{verb}/1")).to_string());
    for (key, value) in fields {
        let value = serde_json::to_string_pretty(&value).map_err(Failure::internal)?;
        text.push_str(&format!(",\n  {}: {}", serde_json::Value::from(key), value.replace('\n', "\n  ")));
    }
    text.push_str("\n}\n");
    print(&text)
}
