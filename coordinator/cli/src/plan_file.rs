//! Plan files: what `plan` writes and `apply` starts, with a digest that shows whether somebody touched them.

use std::{fs, io::Read, path::Path};

use rackferry_proto::v1::{self, link_limit};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::exit::Failure;

/// The version of the format that is written and read.
const VERSION: u32 = 1;
/// The largest file: 300 bytes for each of 20,000 moves, and room.
const SIZE_LIMIT: u64 = 8 << 20;

/// Why a file is no plan.
#[derive(Debug, Error)]
pub enum PlanError {
    /// It cannot be read as one.
    #[error("{0}")]
    Format(#[from] serde_json::Error),
    /// It is of another version.
    #[error("it is of version {0}, and this program reads version {VERSION}")]
    Version(u32),
    /// It is larger than any plan.
    #[error("it is larger than {} MiB", SIZE_LIMIT >> 20)]
    Size,
    /// It moves nothing: the coordinator would take that for a wish to plan.
    #[error("it moves no VM")]
    Empty,
    /// Somebody changed it.
    #[error(
        "it was changed after it was written: its digest is {found}, and it says {told}; make a new plan"
    )]
    Digest {
        /// Of what is there.
        found: String,
        /// What stands in it.
        told: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    plan: Plan,
    digest: String,
}

/// What is to be started. The order of the fields is part of the format: the digest is taken over them as they are
/// written without white space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    version: u32,
    request_id: String,
    sources: Vec<String>,
    targets: Vec<String>,
    options: Options,
    link_limits: Vec<Limit>,
    deadline_ms: u64,
    moves: Vec<Move>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    dedup: String,
    compress: String,
    max_downtime_ms: u32,
    verify: bool,
    disruption: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    link: String,
    bytes_per_second: Option<u64>,
    percent: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    vm: String,
    source_host: String,
    target_host: String,
    memory_bytes: u64,
}

impl Plan {
    /// What was asked for, with the moves of the answer.
    pub fn new(request: v1::CreateEvacuationRequest, answer: &v1::Evacuation) -> Self {
        // Whoever adds a field must decide what a plan says of it.
        let v1::CreateEvacuationRequest {
            sources,
            targets,
            options,
            request_id,
            validate_only: _,
            link_limits,
            deadline_ms,
            moves: _,
        } = request;
        let moves = answer.migrations.iter().map(|one| Move {
            vm: one.vm.clone(),
            source_host: one.source_host.clone(),
            target_host: one.target_host.clone(),
            memory_bytes: one.memory_bytes,
        });
        Self {
            version: VERSION,
            request_id,
            sources,
            targets,
            options: options.unwrap_or_default().into(),
            link_limits: link_limits.into_iter().map(Limit::from).collect(),
            deadline_ms,
            moves: moves.collect(),
        }
    }

    /// As the coordinator takes it.
    pub fn request(self) -> v1::CreateEvacuationRequest {
        let moves = self.moves.into_iter().map(|step| v1::PlannedMove {
            vm: step.vm,
            source_host: step.source_host,
            target_host: step.target_host,
            memory_bytes: step.memory_bytes,
        });
        v1::CreateEvacuationRequest {
            sources: self.sources,
            targets: self.targets,
            options: Some(self.options.into()),
            request_id: self.request_id,
            validate_only: false,
            link_limits: self.link_limits.into_iter().map(Into::into).collect(),
            deadline_ms: self.deadline_ms,
            moves: moves.collect(),
        }
    }

    /// Writes it in place of what is there.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let file = File { plan: self.clone(), digest: self.digest() };
        let text = serde_json::to_string_pretty(&file).expect("plain structs can be written");
        fs::write(path, text + "\n")
            .map_err(|source| Failure::Write { path: path.to_owned(), source })
    }

    /// Reads one that was not changed.
    ///
    /// # Errors
    /// If it cannot be read, or is not as it was written.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let mut text = Vec::new();
        fs::File::open(path)
            .and_then(|file| file.take(SIZE_LIMIT + 1).read_to_end(&mut text))
            .map_err(|source| Failure::File { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|why| Failure::PlanFile { path: path.to_owned(), why })
    }

    fn parse(text: &[u8]) -> Result<Self, PlanError> {
        if text.len() as u64 > SIZE_LIMIT {
            return Err(PlanError::Size);
        }
        // One of another version has other fields.
        #[derive(Deserialize)]
        struct Versioned {
            plan: Version,
        }
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let version = serde_json::from_slice::<Versioned>(text)?.plan.version;
        if version != VERSION {
            return Err(PlanError::Version(version));
        }
        let File { plan, digest: told } = serde_json::from_slice(text)?;
        let found = plan.digest();
        if found != told {
            return Err(PlanError::Digest { found, told });
        }
        if plan.moves.is_empty() { Err(PlanError::Empty) } else { Ok(plan) }
    }

    fn digest(&self) -> String {
        let text = serde_json::to_vec(self).expect("plain structs can be written");
        format!("blake3:{}", blake3::hash(&text).to_hex())
    }
}

impl From<v1::MigrationOptions> for Options {
    fn from(options: v1::MigrationOptions) -> Self {
        // Whoever adds a field must decide what a plan says of it.
        let v1::MigrationOptions { dedup: _, compress: _, max_downtime_ms, verify, disruption: _ } =
            options;
        Self {
            dedup: options.dedup().as_str_name().to_owned(),
            compress: options.compress().as_str_name().to_owned(),
            max_downtime_ms,
            verify,
            disruption: options.disruption().as_str_name().to_owned(),
        }
    }
}

impl From<Options> for v1::MigrationOptions {
    fn from(options: Options) -> Self {
        let Options { dedup, compress, max_downtime_ms, verify, disruption } = options;
        // The digest has shown that they are as they were written.
        let dedup = v1::DedupMode::from_str_name(&dedup).unwrap_or_default();
        let compress = v1::CompressMode::from_str_name(&compress).unwrap_or_default();
        let disruption = v1::Disruption::from_str_name(&disruption).unwrap_or_default().into();
        let (dedup, compress) = (dedup.into(), compress.into());
        Self { dedup, compress, max_downtime_ms, verify, disruption }
    }
}

impl From<v1::LinkLimit> for Limit {
    fn from(limit: v1::LinkLimit) -> Self {
        let (bytes_per_second, percent) = match limit.limit {
            None => (None, None),
            Some(link_limit::Limit::BytesPerSecond(rate)) => (Some(rate), None),
            Some(link_limit::Limit::Percent(percent)) => (None, Some(percent)),
        };
        Self { link: limit.link, bytes_per_second, percent }
    }
}

impl From<Limit> for v1::LinkLimit {
    fn from(limit: Limit) -> Self {
        let Limit { link, bytes_per_second, percent } = limit;
        let rate = bytes_per_second.map(link_limit::Limit::BytesPerSecond);
        Self { link, limit: rate.or(percent.map(link_limit::Limit::Percent)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> v1::CreateEvacuationRequest {
        let limit = |limit| v1::LinkLimit { link: "core0".to_owned(), limit };
        v1::CreateEvacuationRequest {
            sources: vec!["r1".to_owned()],
            targets: vec!["r2".to_owned(), "r3-h1".to_owned()],
            options: Some(v1::MigrationOptions {
                dedup: v1::DedupMode::Host.into(),
                compress: v1::CompressMode::Off.into(),
                max_downtime_ms: 250,
                verify: true,
                disruption: v1::Disruption::Allow.into(),
            }),
            request_id: "7f3a".to_owned(),
            deadline_ms: 1_800_000,
            link_limits: vec![
                limit(Some(link_limit::Limit::Percent(40))),
                limit(Some(link_limit::Limit::BytesPerSecond(25_000_000))),
            ],
            ..v1::CreateEvacuationRequest::default()
        }
    }

    fn plan() -> Plan {
        let one = v1::Migration {
            vm: "web \"1\"".to_owned(),
            source_host: "r1-h1".to_owned(),
            target_host: "r2-h1".to_owned(),
            memory_bytes: 1 << 40,
            ..v1::Migration::default()
        };
        let answer = v1::Evacuation { migrations: vec![one], ..v1::Evacuation::default() };
        Plan::new(request(), &answer)
    }

    fn written() -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan.json");
        plan().write(&path).unwrap();
        assert_eq!(Plan::read(&path).unwrap(), plan());
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_plan_comes_back_as_the_request_it_was() {
        let back = plan().request();
        assert_eq!(back.moves.len(), 1);
        assert_eq!(back.moves[0].memory_bytes, 1 << 40);
        assert_eq!(v1::CreateEvacuationRequest { moves: vec![], ..back }, request());
    }

    #[test]
    fn the_file_is_for_people_too() {
        insta::assert_snapshot!("plan_file", written());
    }

    #[test]
    fn no_byte_can_be_changed_unseen() {
        let text = written();
        let mut seen = 0;
        for at in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[at] ^= 1;
            // White space means nothing.
            let Ok(plan) = Plan::parse(&damaged) else { continue };
            assert_eq!(plan, self::plan(), "byte {at}");
            seen += 1;
        }
        assert!(seen < text.len() / 2, "{seen}");
        for end in 0..text.trim_end().len() {
            assert!(Plan::parse(&text.as_bytes()[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn an_edited_plan_says_so() {
        let edited = written().replace("r2-h1", "r2-h2");
        let why = Plan::parse(edited.as_bytes()).unwrap_err();
        assert!(matches!(why, PlanError::Digest { .. }), "{why}");
        let more = written().replacen("\"version\"", "\"more\": 1, \"version\"", 1);
        assert!(matches!(Plan::parse(more.as_bytes()), Err(PlanError::Format(_))));
        let newer = written().replacen("\"version\": 1", "\"version\": 2", 1);
        assert!(matches!(Plan::parse(newer.as_bytes()), Err(PlanError::Version(2))));
        let nothing = Plan::new(request(), &v1::Evacuation::default());
        let text = File { digest: nothing.digest(), plan: nothing };
        let text = serde_json::to_vec(&text).unwrap();
        assert!(matches!(Plan::parse(&text), Err(PlanError::Empty)));
        let large = vec![b' '; SIZE_LIMIT as usize + 1];
        assert!(matches!(Plan::parse(&large), Err(PlanError::Size)));
    }
}
