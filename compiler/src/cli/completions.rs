//! `convc completions`

use clap::Args;

use super::Failure;

/// Print the completion script of a shell
#[derive(Args)]
pub(crate) struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

pub(crate) fn run(args: &Completions, command: &mut clap::Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "convc", &mut script);
    super::say::print(&String::from_utf8_lossy(&script))
}
