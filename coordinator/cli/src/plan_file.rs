//! Plan files: what `plan` writes and `apply` starts, with a digest that shows whether the file was changed.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use rackferry_model::{MoveOptions, view};
use rackferry_proto::v1;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of the format that is written and read.
const VERSION: u32 = 2;
/// The largest file: 300 bytes for each of 20,000 moves, and room.
const SIZE_LIMIT: u64 = 8 << 20;

/// Why a file is no plan.
#[derive(Debug, Error)]
pub enum PlanError {
    /// It cannot be read as one.
    #[error("{0}")]
    Format(#[from] serde_json::Error),
    /// It is of another version.
    #[error("it is of version {0}, and this program reads version {VERSION}; make a new plan")]
    Version(u32),
    /// It is larger than any plan.
    #[error("it is larger than {} MiB", SIZE_LIMIT >> 20)]
    Size,
    /// It moves nothing: the coordinator would take that for a wish to plan.
    #[error("it moves no VM")]
    Empty,
    /// It was changed.
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

/// A file that cannot be read or written as a plan.
#[derive(Debug, Error)]
pub enum PlanFileError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its content is no plan.
    #[error("{} is no plan to apply: {why}", path.display())]
    NoPlan {
        /// The file.
        path: PathBuf,
        /// Why.
        why: PlanError,
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
    options: MoveOptions,
    link_limits: Vec<view::Limit>,
    deadline_ms: u64,
    moves: Vec<view::PlannedMove>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<view::Staying>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    no_cordon: bool,
}

impl Plan {
    /// What was asked for, with the moves of the answer.
    pub fn new(
        request: v1::CreateEvacuationRequest,
        options: MoveOptions,
        answer: &v1::Evacuation,
    ) -> Self {
        // A new field must be decided here, too.
        let v1::CreateEvacuationRequest {
            sources,
            targets,
            options: _,
            request_id,
            validate_only: _,
            link_limits,
            deadline_ms,
            moves: _,
            // What became of them stands in the answer.
            exclude: _,
            skip_blocked: _,
            left_out: _,
            no_cordon,
        } = request;
        Self {
            version: VERSION,
            request_id,
            sources,
            targets,
            options,
            link_limits: link_limits.into_iter().map(Into::into).collect(),
            deadline_ms,
            moves: answer.migrations.iter().cloned().map(Into::into).collect(),
            left_out: answer.left_out.iter().cloned().map(Into::into).collect(),
            no_cordon,
        }
    }

    /// As the coordinator takes it.
    pub fn request(self) -> v1::CreateEvacuationRequest {
        v1::CreateEvacuationRequest {
            sources: self.sources,
            targets: self.targets,
            options: Some(self.options.into()),
            request_id: self.request_id,
            validate_only: false,
            link_limits: self.link_limits.into_iter().map(Into::into).collect(),
            deadline_ms: self.deadline_ms,
            moves: self.moves.into_iter().map(Into::into).collect(),
            exclude: Vec::new(),
            skip_blocked: false,
            left_out: self.left_out.into_iter().map(Into::into).collect(),
            no_cordon: self.no_cordon,
        }
    }

    /// Writes it in place of what is there.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), PlanFileError> {
        let file = File { plan: self.clone(), digest: self.digest() };
        let text = serde_json::to_string_pretty(&file).expect("plain structs can be written");
        fs::write(path, text + "\n")
            .map_err(|source| PlanFileError::Write { path: path.to_owned(), source })
    }

    /// Reads one that was not changed.
    ///
    /// # Errors
    /// If it cannot be read, or is not as it was written.
    pub fn read(path: &Path) -> Result<Self, PlanFileError> {
        let mut text = Vec::new();
        fs::File::open(path)
            .and_then(|file| file.take(SIZE_LIMIT + 1).read_to_end(&mut text))
            .map_err(|source| PlanFileError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|why| PlanFileError::NoPlan { path: path.to_owned(), why })
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

#[cfg(test)]
mod tests {
    use rackferry_model::{Compress, Dedup, Disruption};
    use rackferry_proto::v1::link_limit;

    use super::*;

    fn options() -> MoveOptions {
        MoveOptions {
            dedup: Dedup::Host,
            compress: Compress::Off,
            max_downtime_ms: 250,
            verify: true,
            disruption: Disruption::Allow,
        }
    }

    fn request() -> v1::CreateEvacuationRequest {
        let limit = |limit| v1::LinkLimit { link: "core0".to_owned(), limit };
        v1::CreateEvacuationRequest {
            sources: vec!["r1".to_owned()],
            targets: vec!["r2".to_owned(), "r3-h1".to_owned()],
            options: Some(options().into()),
            request_id: "7f3a".to_owned(),
            deadline_ms: 1_800_000,
            link_limits: vec![
                limit(Some(link_limit::Limit::Percent(40))),
                limit(Some(link_limit::Limit::BytesPerSecond(25_000_000))),
            ],
            ..v1::CreateEvacuationRequest::default()
        }
    }

    fn answer() -> v1::Evacuation {
        let one = v1::Migration {
            vm: "web \"1\"".to_owned(),
            source_host: "r1-h1".to_owned(),
            target_host: "r2-h1".to_owned(),
            memory_bytes: 1 << 40,
            ..v1::Migration::default()
        };
        let stays = v1::StayingVm {
            vm: "db-1".to_owned(),
            host: "r1-h2".to_owned(),
            reason: "excluded".to_owned(),
        };
        v1::Evacuation { migrations: vec![one], left_out: vec![stays], ..v1::Evacuation::default() }
    }

    fn plan() -> Plan {
        Plan::new(request(), options(), &answer())
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
        assert_eq!(back.left_out[0].vm, "db-1");
        let (moves, left_out) = (vec![], vec![]);
        assert_eq!(v1::CreateEvacuationRequest { moves, left_out, ..back }, request());
    }

    #[test]
    fn a_plan_that_leaves_nothing_out_is_as_before() {
        let answer = v1::Evacuation { left_out: vec![], ..answer() };
        let plan = Plan::new(request(), options(), &answer);
        let text = serde_json::to_string(&plan).unwrap();
        assert!(!text.contains("left_out") && !text.contains("no_cordon"), "{text}");
        let request = v1::CreateEvacuationRequest { no_cordon: true, ..request() };
        assert!(Plan::new(request, options(), &answer).request().no_cordon);
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
        for other in [1, 3] {
            let other_version = format!("\"version\": {other}");
            let text = written().replacen("\"version\": 2", &other_version, 1);
            assert!(
                matches!(Plan::parse(text.as_bytes()), Err(PlanError::Version(v)) if v == other)
            );
        }
        let nothing = Plan::new(request(), options(), &v1::Evacuation::default());
        let text = File { digest: nothing.digest(), plan: nothing };
        let text = serde_json::to_vec(&text).unwrap();
        assert!(matches!(Plan::parse(&text), Err(PlanError::Empty)));
        let large = vec![b' '; SIZE_LIMIT as usize + 1];
        assert!(matches!(Plan::parse(&large), Err(PlanError::Size)));
    }
}
