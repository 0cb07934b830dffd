//! What the outer machine runs: a program, its arguments, variables and folder, as a shell script.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::procs::MARK;

/// Variables of ours that a job gets. Not all: the script is a file, and a variable may be a secret.
const KNOWN: [&str; 7] =
    ["PATH", "HOME", "LANG", "CARGO_HOME", "CARGO_TARGET_DIR", "RUSTUP_HOME", "RUST_BACKTRACE"];
/// So is everything of this name, but the mark of a lab: the one inside would end what carries it.
const OURS: &str = "RACKFERRY_";

/// A program for the outer machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// Its environment.
    pub variables: Vec<(OsString, OsString)>,
    /// Where it runs.
    pub folder: PathBuf,
}

impl Job {
    /// A command in this folder, with those of our variables that matter to it.
    ///
    /// # Errors
    /// There is no current folder.
    pub fn here(command: &[OsString]) -> std::io::Result<Self> {
        let variables = std::env::vars_os().filter(|(name, _)| is_known(name)).collect();
        Ok(Self { command: command.to_vec(), variables, folder: std::env::current_dir()? })
    }

    /// With a variable set, instead of what it was.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.retain(|(other, _)| other != name);
        self.variables.push((name.into(), value.into()));
        self
    }

    /// A script for `/bin/sh` that becomes the program.
    pub(super) fn script(&self) -> Vec<u8> {
        let mut script = b"cd ".to_vec();
        quote(&mut script, self.folder.as_os_str());
        script.extend(b" || exit 126\n");
        for (name, value) in &self.variables {
            script.extend(b"export ");
            script.extend(name.as_bytes());
            script.push(b'=');
            quote(&mut script, value);
            script.push(b'\n');
        }
        script.extend(b"exec");
        for word in &self.command {
            script.push(b' ');
            quote(&mut script, word);
        }
        script.push(b'\n');
        script
    }
}

fn is_known(name: &OsStr) -> bool {
    name.to_str()
        .is_some_and(|name| KNOWN.contains(&name) || (name.starts_with(OURS) && name != MARK))
}

/// One word for the shell, whatever is in it.
fn quote(script: &mut Vec<u8>, word: &OsStr) {
    let parts: Vec<&[u8]> = word.as_bytes().split(|&byte| byte == b'\'').collect();
    script.push(b'\'');
    script.extend(OsString::from_vec(parts.join(&br"'\''"[..])).as_bytes());
    script.push(b'\'');
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn output(job: &Job) -> String {
        let script = OsString::from_vec(job.script());
        let output = Command::new("/bin/sh").arg("-c").arg(script).env_clear().output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_shell_reads_every_word_as_it_was() {
        let words = ["/usr/bin/printf", "<%s>", "it's", "two words", "", "$HOME", "a\nb", "\\"];
        let job = Job {
            command: words.map(OsString::from).to_vec(),
            variables: vec![],
            folder: "/".into(),
        };
        assert_eq!(output(&job), "<it's><two words><><$HOME><a\nb><\\>");
    }

    #[test]
    fn a_job_has_its_folder_and_its_variables() {
        let script = r#"echo "$PWD $A""#;
        let job = Job {
            command: ["/bin/sh", "-c", script].map(OsString::from).to_vec(),
            variables: vec![("A".into(), "old".into())],
            folder: "/usr".into(),
        };
        assert_eq!(output(&job.variable("A", "it's new")), "/usr it's new\n");
    }

    #[test]
    fn a_mark_of_a_lab_and_unknown_variables_stay_outside() {
        assert!(is_known("PATH".as_ref()) && is_known("RACKFERRY_CACHE".as_ref()));
        assert!(!is_known(MARK.as_ref()) && !is_known("SOME_TOKEN".as_ref()));
    }
}
