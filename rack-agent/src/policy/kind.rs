//! One entry of the list of further arguments that a policy allows.

use serde::Deserialize;

use super::options::{is_flag, is_never, name};

/// A kind of further arguments: `-no-reboot`, `-device virtio-rng-pci`, or `-smbios *`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Kind {
    option: String,
    of: Of,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Of {
    Flag,
    Any,
    One(String),
}

impl Kind {
    /// Whether it allows this option, whose argument says that it is of these kinds.
    pub(super) fn allows(&self, option: &str, kinds: Option<&[String]>) -> bool {
        let fits = match (&self.of, kinds) {
            (Of::Flag, None) | (Of::Any, Some(_)) => true,
            (Of::One(own), Some(kinds)) => {
                !kinds.is_empty() && kinds.iter().all(|kind| kind == own)
            }
            _ => false,
        };
        fits && self.option == option
    }
}

impl TryFrom<String> for Kind {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let option = words.first().copied().and_then(name);
        let Some(option) = option else {
            return Err(format!(
                "{text:?} is no option: write it with its dash, e.g. \"-no-reboot\""
            ));
        };
        if is_never(option) {
            return Err(format!(
                "-{option} cannot be allowed: the agent sets it, or it would undo the policy"
            ));
        }
        let of = match (&words[1..], is_flag(option)) {
            ([], true) => Of::Flag,
            (["*"], false) => Of::Any,
            ([kind], false) if !kind.contains([',', '=']) => Of::One((*kind).to_owned()),
            (_, true) => return Err(format!("-{option} takes no argument: write \"-{option}\"")),
            (_, false) => {
                return Err(format!(
                    "-{option} takes an argument: write \"-{option} KIND\" (its first word), or \"-{option} *\" for any"
                ));
            }
        };
        Ok(Self { option: option.to_owned(), of })
    }
}
