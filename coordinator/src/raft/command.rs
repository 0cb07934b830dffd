//! What an entry of the log says.

use rackferry_fleet::Change;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

use super::NodeId;
use crate::key::DomainKey;

/// How bodies are written by this coordinator.
const VERSION: u32 = 1;

/// A change of the replicated state. It is written with its version in front, so that an old log stays
/// readable and a newer one is refused by name rather than misread.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A leader begins. Once this is applied it has seen everything before it, and the records are its to
    /// build a fleet from.
    TakeOffice {
        /// Who.
        node: NodeId,
        /// The key of the dedup domain, if the log has none yet.
        domain_key: Option<DomainKey>,
    },
    /// Records, changed together, as the leader of a term decided. In the log of a later term it says nothing:
    /// who decided it did not know what came between.
    Write {
        /// The leader's term.
        term: u64,
        /// What it decided.
        changes: Vec<Change>,
    },
}

/// Version 1 of the body.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Body<C> {
    TakeOffice {
        node: NodeId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        domain_key: Option<DomainKey>,
    },
    Write {
        term: u64,
        changes: C,
    },
}

#[derive(Serialize)]
struct Out<B> {
    version: u32,
    body: B,
}

#[derive(Deserialize)]
struct In {
    version: u32,
    body: Box<RawValue>,
}

impl Serialize for Command {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let body = match self {
            Self::TakeOffice { node, domain_key } => {
                Body::TakeOffice { node: *node, domain_key: domain_key.clone() }
            }
            Self::Write { term, changes } => Body::Write { term: *term, changes },
        };
        Out { version: VERSION, body }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let In { version, body } = In::deserialize(deserializer)?;
        if version != VERSION {
            return Err(de::Error::custom(format!(
                "an entry of version {version}, written by a later coordinator; this one reads version {VERSION}"
            )));
        }
        let body = serde_json::from_str(body.get()).map_err(de::Error::custom)?;
        Ok(match body {
            Body::TakeOffice { node, domain_key } => Self::TakeOffice { node, domain_key },
            Body::Write { term, changes } => Self::Write { term, changes },
        })
    }
}

#[cfg(test)]
mod tests {
    use rackferry_fleet::{Key, Numbers, Record};

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let numbers = Record::Numbers(Numbers { epoch: 7, ..Numbers::default() });
        for command in [
            Command::TakeOffice { node: 3, domain_key: None },
            Command::TakeOffice { node: 3, domain_key: Some(DomainKey::of([9; 32])) },
            Command::Write {
                term: 4,
                changes: vec![Change::Put(numbers), Change::Remove(Key::Host("a".into()))],
            },
        ] {
            let text = serde_json::to_string(&command).unwrap();
            assert!(text.starts_with(r#"{"version":1,"#), "{text}");
            assert_eq!(serde_json::from_str::<Command>(&text).unwrap(), command);
        }
    }

    #[test]
    fn a_later_version_is_refused_by_name() {
        let text = r#"{"version":2,"body":{"what":"ever"}}"#;
        let error = serde_json::from_str::<Command>(text).unwrap_err().to_string();
        assert!(error.contains("version 2, written by a later coordinator"), "{error}");
    }

    #[test]
    fn a_record_of_a_later_version_is_refused() {
        let text = r#"{"version":1,"body":{"write":{"term":1,"changes":[{"Put":{"vm.v9":{}}}]}}}"#;
        let error = serde_json::from_str::<Command>(text).unwrap_err().to_string();
        assert!(error.contains("vm.v9"), "{error}");
    }

    #[test]
    fn the_key_is_not_shown() {
        let command = Command::TakeOffice { node: 1, domain_key: Some(DomainKey::of([7; 32])) };
        assert!(!format!("{command:?}").contains('7'));
    }
}
