//! completions, man: what the command says of itself.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::{
    args::Args,
    exit::{Code, Failure},
};

/// Prints what makes a shell complete the command.
///
/// # Errors
/// If standard output is closed.
pub fn completions(shell: Shell) -> Result<Code, Failure> {
    // Into memory first: a shell that reads no further is no reason to panic.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "rackferry", &mut script);
    io::stdout().write_all(&script)?;
    Ok(Code::Done)
}

/// Prints the man page of the whole, or writes it and those of all commands into a folder.
///
/// # Errors
/// If standard output is closed, or a file cannot be written.
pub fn pages(out: Option<&Path>) -> Result<Code, Failure> {
    let mut whole = Args::command().disable_help_subcommand(true);
    whole.build();
    match out {
        None => io::stdout().write_all(&page(&whole)?)?,
        Some(dir) => write(&whole, dir)?,
    }
    Ok(Code::Done)
}

/// Writes the page of a command and of all below it.
fn write(command: &clap::Command, dir: &Path) -> Result<(), Failure> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let path = dir.join(format!("{name}.1"));
    fs::write(&path, page(command)?).map_err(|source| Failure::Write { path, source })?;
    command.get_subcommands().try_for_each(|below| write(below, dir))
}

/// One page; each ends with the exit codes.
fn page(command: &clap::Command) -> Result<Vec<u8>, io::Error> {
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    page.extend_from_slice(b".SH \"EXIT STATUS\"\n");
    for code in Code::ALL {
        writeln!(page, ".TP\n\\fB{}\\fR\n{}", code as u8, roff(code.meaning()))?;
    }
    Ok(page)
}

/// Text of one line; what Markdown sets as code is bold.
fn roff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    let parts = escaped.split('`').enumerate();
    parts
        .map(|(i, part)| if i % 2 == 1 { format!("\\fB{part}\\fR") } else { part.to_owned() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_bold_and_hyphens_are_escaped() {
        assert_eq!(roff("of `a-b`: c"), "of \\fBa\\-b\\fR: c");
    }

    #[test]
    fn a_folder_gets_every_page_with_every_code() {
        let dir = tempfile::tempdir().unwrap();
        pages(Some(dir.path())).unwrap();
        for name in ["rackferry", "rackferry-evacuate", "rackferry-limit-set"] {
            let page = fs::read_to_string(dir.path().join(format!("{name}.1"))).unwrap();
            for code in Code::ALL {
                let row = format!(".TP\n\\fB{}\\fR\n{}\n", code as u8, roff(code.meaning()));
                assert!(page.contains(&row), "{name} {code:?}");
            }
        }
        assert!(!dir.path().join("rackferry-help.1").exists());
        let failure = pages(Some(&dir.path().join("nowhere"))).unwrap_err();
        assert_eq!(failure.code(), Code::Usage);
    }
}
