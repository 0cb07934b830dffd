use std::path::{Path, PathBuf};

/// Something of a spec that the host's policy does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// A QEMU that is not on the list.
    #[error("this host's policy does not allow the QEMU {}", binary.display())]
    Binary {
        /// The program.
        binary: PathBuf,
    },
    /// A file, folder or device outside of the folders, or a path that leads out of them.
    #[error("this host's policy does not allow {what} = {}", path.display())]
    Path {
        /// The field of the spec.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// An option of a kind that is not on the list.
    #[error("this host's policy does not allow {kind} in extra_args")]
    Kind {
        /// The option and its kind, as the list has them.
        kind: String,
    },
    /// An option that no policy can allow.
    #[error(
        "-{option} in extra_args is refused: the agent sets it, or it would undo the host's policy"
    )]
    Never {
        /// The option.
        option: String,
    },
    /// A value that QEMU would run as a program.
    #[error("{key} of -{option} in extra_args is refused: QEMU would run it as a program")]
    Program {
        /// The option.
        option: String,
        /// The key.
        key: String,
    },
    /// An argument that is neither keys with values nor JSON.
    #[error("the argument of -{option} in extra_args cannot be read")]
    Unread {
        /// The option.
        option: String,
    },
    /// A word that QEMU would take for a disk.
    #[error("{word:?} in extra_args is no option, QEMU would take it for a disk")]
    Word {
        /// The word.
        word: String,
    },
    /// An option at the end, without its argument.
    #[error("{option} in extra_args has no argument")]
    NoArgument {
        /// The option.
        option: String,
    },
}

impl Breach {
    pub(super) fn path(what: &'static str, path: &Path) -> Self {
        Self::Path { what, path: path.to_owned() }
    }

    pub(super) fn kind(option: &str, kind: Option<&str>) -> Self {
        let kind = kind.map_or_else(|| format!("-{option}"), |kind| format!("-{option} {kind}"));
        Self::Kind { kind }
    }

    /// What to do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        let list = match self {
            Self::Binary { .. } => "binaries",
            Self::Path { .. } => "paths",
            Self::Kind { .. } => "extra_args",
            _ => return "take it out of the VM's spec, and find out how it came there".to_owned(),
        };
        format!(
            "if the VM is as it should be, extend {list} in policy.toml of this host (beside agent.toml) and restart its \
             agent; else find out who changed the spec"
        )
    }
}
