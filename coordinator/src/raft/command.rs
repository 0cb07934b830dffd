//! The commands that entries of the log hold.

use rackferry_fleet::Change;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

use super::{
    NodeId,
    packed::{PackError, Packed},
};
use crate::key::DomainKey;

/// What this coordinator says that it reads.
pub const LATEST: u32 = EVENTS;
/// Records may be events, in entries of the versions below. No entry has this version.
pub const EVENTS: u32 = 3;
/// Changes are JSON, and one entry has them all.
const PLAIN: u32 = 1;
/// Changes are packed, and may be in parts.
const PACKED: u32 = 2;
/// Changes that take no more JSON than this stay plain: packing gains nothing.
const SMALL: usize = 4 << 10;

/// A change of the replicated state. It is written with its version in front, so that an old log stays
/// readable and a newer one is refused by name rather than misread.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A leader begins. Once this is applied it has seen everything before it, and the records are its to
    /// build a fleet from.
    TakeOffice {
        /// The node that leads.
        node: NodeId,
        /// The key of the dedup domain, if the log has none yet.
        domain_key: Option<DomainKey>,
    },
    /// Records, changed together, as the leader of a term decided. In the log of a later term it says nothing:
    /// the leader that decided it did not know what came between.
    Write {
        /// The leader's term.
        term: u64,
        /// What the leader decided.
        changes: Vec<Change>,
    },
    /// One of several entries whose changes count together, when the last of them is applied. If another leader
    /// begins between them, none counts.
    Part {
        /// The leader's term.
        term: u64,
        /// 0 for the first.
        number: u32,
        /// No more belong to it.
        last: bool,
        /// What the leader decided.
        changes: Packed,
    },
}

impl Command {
    /// What writes down changes that belong together, in this order. `read` is the latest version that every member
    /// reads; before parts were known, one entry holds everything.
    ///
    /// # Errors
    /// If a record cannot be written as JSON.
    pub fn writes(term: u64, changes: Vec<Change>, read: u32) -> Result<Vec<Self>, PackError> {
        if read < PACKED {
            return Ok(vec![Self::Write { term, changes }]);
        }
        let texts: Vec<String> =
            changes.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        if texts.iter().map(String::len).sum::<usize>() <= SMALL {
            return Ok(vec![Self::Write { term, changes }]);
        }
        let parts = Packed::parts(changes, &texts)?;
        let end = parts.len();
        let part = |(number, changes)| Self::Part {
            term,
            number: u32::try_from(number).unwrap_or(u32::MAX),
            last: number + 1 == end,
            changes,
        };
        Ok(parts.into_iter().enumerate().map(part).collect())
    }
}

/// The body of version 1.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum PlainBody<C> {
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

/// The body of version 2.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum PackedBody<P> {
    Part { term: u64, number: u32, last: bool, changes: P },
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
                PlainBody::TakeOffice { node: *node, domain_key: domain_key.clone() }
            }
            Self::Write { term, changes } => PlainBody::Write { term: *term, changes },
            &Self::Part { term, number, last, ref changes } => {
                let body = PackedBody::Part { term, number, last, changes };
                return Out { version: PACKED, body }.serialize(serializer);
            }
        };
        Out { version: PLAIN, body }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let In { version, body } = In::deserialize(deserializer)?;
        match version {
            PLAIN => plain(body.get()),
            PACKED => packed(body.get()),
            later => Err(de::Error::custom(format!(
                "an entry of version {later}, written by a later coordinator; this one reads versions up to {PACKED}"
            ))),
        }
        .map_err(de::Error::custom)
    }
}

fn plain(body: &str) -> serde_json::Result<Command> {
    Ok(match serde_json::from_str(body)? {
        PlainBody::TakeOffice { node, domain_key } => Command::TakeOffice { node, domain_key },
        PlainBody::Write { term, changes } => Command::Write { term, changes },
    })
}

fn packed(body: &str) -> serde_json::Result<Command> {
    let PackedBody::Part { term, number, last, changes } = serde_json::from_str(body)?;
    Ok(Command::Part { term, number, last, changes })
}

#[cfg(test)]
mod tests {
    use rackferry_fleet::{
        Crossing, EvacuationId, Generation, HostId, HostName, HostRecord, Key, MigrationId,
        MigrationRecord, MigrationResult, Moment, MoveOptions, Numbers, Record, Stage, VmName,
    };

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
        let text = r#"{"version":3,"body":{"what":"ever"}}"#;
        let error = serde_json::from_str::<Command>(text).unwrap_err().to_string();
        assert!(error.contains("version 3, written by a later coordinator"), "{error}");
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

    fn hosts(count: u32) -> Vec<Change> {
        let host = |number| {
            HostRecord::new(
                HostName::new(format!("host-{number:05}")),
                HostId(number),
                "r".into(),
                1 << 40,
            )
        };
        (0..count).map(|number| Change::Put(Record::Host(host(number)))).collect()
    }

    /// The changes of writes that must be parts, in order.
    fn joined(writes: Vec<Command>) -> Vec<Change> {
        let end = writes.len() as u32;
        let mut all = Vec::new();
        for (expected, write) in (0..).zip(writes) {
            let text = serde_json::to_string(&write).unwrap();
            assert!(text.starts_with(r#"{"version":2,"#), "{}", &text[..40]);
            assert!(text.len() < 512 << 10, "an entry of {} bytes", text.len());
            let read: Command = serde_json::from_str(&text).unwrap();
            assert_eq!(read, write);
            let Command::Part { term: 4, number, last, changes } = read else { panic!("{text}") };
            assert_eq!((number, last), (expected, expected + 1 == end));
            all.extend(changes.into_changes());
        }
        all
    }

    #[test]
    fn many_changes_are_parts_below_512_kib() {
        let changes = hosts(20_000);
        let writes = Command::writes(4, changes.clone(), LATEST).unwrap();
        assert!(writes.len() > 2, "{}", writes.len());
        assert!(joined(writes) == changes);
    }

    #[test]
    fn a_record_that_is_large_by_itself_is_a_part_of_its_own() {
        let mut changes = hosts(10);
        let name = HostName::new("a-long-name-".repeat(100_000));
        changes.insert(4, Change::Remove(Key::Host(name)));
        let writes = Command::writes(4, changes.clone(), LATEST).unwrap();
        assert_eq!(writes.len(), 3);
        assert!(joined(writes) == changes);
    }

    fn queued(number: u64) -> MigrationRecord {
        MigrationRecord {
            id: MigrationId(number),
            vm: VmName::new(format!("customer-{}-vm-{number:06}", number * 7919 % 997)),
            memory_bytes: (number % 13 + 1) << 30,
            source: HostName::new(format!("rack-a-host-{:02}", number % 40)),
            target: HostName::new(format!("rack-b-host-{:02}", number * 31 % 40)),
            evacuation: Some(EvacuationId(3)),
            request: None,
            attempt: 1,
            not_before: None,
            crossing: Crossing(number),
            options: MoveOptions::default(),
            generation: Generation(0),
            stage: Stage::Queued,
            cancelled: false,
            forced: false,
            created: Moment(1_790_000_000_000_000_000),
            started: None,
            result: MigrationResult::default(),
        }
    }

    #[test]
    fn entries_of_a_plan_of_5000_moves() {
        let put = |number| Change::Put(Record::Migration(Box::new(queued(number))));
        let changes: Vec<_> = (0..5000).map(put).collect();
        let plain = serde_json::to_string(&changes).unwrap().len();
        let writes = Command::writes(4, changes.clone(), LATEST).unwrap();
        let sizes: Vec<_> =
            writes.iter().map(|write| serde_json::to_string(write).unwrap().len()).collect();
        println!("{plain} bytes of JSON are {sizes:?}, {} in all", sizes.iter().sum::<usize>());
        assert!(sizes.iter().sum::<usize>() < plain / 5);
        assert!(joined(writes) == changes);
    }

    #[test]
    fn few_changes_and_an_old_member_are_written_as_before() {
        let whole = |changes: Vec<Change>| vec![Command::Write { term: 4, changes }];
        for (count, read) in [(3, LATEST), (20_000, 1)] {
            assert!(Command::writes(4, hosts(count), read).unwrap() == whole(hosts(count)));
        }
    }
}
