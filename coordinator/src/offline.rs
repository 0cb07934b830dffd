//! Commands for a coordinator that does not run: `recover` and `restore`.

use std::{
    fs,
    io::{BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use clap::Subcommand;

use crate::{
    config::{Config, Members},
    driver::now,
    raft::{SNAPSHOT_LIMIT, backup, offline},
};

/// What is done to the files of a coordinator that does not run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Go on with one coordinator after the majority of a cluster is lost for good.
    ///
    /// Makes this coordinator, which must be stopped, the only member of a new cluster, with its own log. What the lost
    /// ones committed without it is lost. VMs are taken from what agents report; migrations and evacuations under way are
    /// left behind.
    Recover {
        /// Required: the others must be stopped for good, or be emptied before they start again.
        #[arg(long, required = true)]
        force_single: bool,
        /// Do not ask; needed without a terminal.
        #[arg(long, short)]
        yes: bool,
    },
    /// Make a coordinator from a backup (`rackferry cluster backup`), as the only member of a new cluster.
    ///
    /// VMs are taken from what agents report; migrations, evacuations and tokens are left behind.
    Restore {
        /// The backup.
        file: PathBuf,
        /// Folder to restore into, new or empty; default: `storage.dir`.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
}

/// Runs a command to its end.
///
/// # Errors
/// Why it could not be done, and what to do.
pub fn run(command: Command, config: &Config) -> anyhow::Result<()> {
    let members = config.members().context("the settings")?;
    match command {
        Command::Recover { yes, .. } => recover(&config.storage.dir, &members, yes),
        Command::Restore { file, data_dir } => {
            restore(&file, data_dir.as_deref().unwrap_or(&config.storage.dir), &members)
        }
    }
}

fn unix_seconds() -> u64 {
    now().unix_ms() / 1000
}

fn recover(dir: &Path, members: &Members, yes: bool) -> anyhow::Result<()> {
    if offline::finish(dir)? {
        println!("finished what was cut short; start the coordinator");
        return Ok(());
    }
    let found = offline::examine(dir, members.id)?;
    let (last, term) = (found.seed.last.index, found.seed.last.leader_id.term);
    let committed = found.committed.unwrap_or_default();
    eprintln!(
        "coordinator {} of the cluster {}: its log ends with entry {last} of term {term}; up to {committed} it is known to be \
         committed, the rest counts as committed, too.\nWhatever the lost coordinators committed after entry {last} is lost.\n\
         The others must never come back with their old folders: stop them, and empty their folders before they join again.",
        members.id, found.cluster
    );
    if !yes {
        confirm("recover")?;
    }
    let incarnation = offline::incarnation_after(&found.seed.records, unix_seconds());
    let before = offline::begin_anew(dir, (members.id, &members.addr), found.seed, incarnation)?;
    println!(
        "coordinator {} is the only member of a new cluster (incarnation {incarnation}); the old files are in {}.\n\
         Start it; when agents are back: rackferry doctor. Add others with empty folders, cluster.join and new numbers.",
        members.id,
        before.display()
    );
    Ok(())
}

fn restore(file: &Path, dir: &Path, members: &Members) -> anyhow::Result<()> {
    if offline::finish(dir)? {
        println!("finished what was cut short; start the coordinator");
        return Ok(());
    }
    let size = fs::metadata(file).with_context(|| format!("reading {}", file.display()))?.len();
    ensure!(size <= SNAPSHOT_LIMIT, "{} is larger than a backup can be", file.display());
    let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let backup = backup::read(&bytes).with_context(|| format!("reading {}", file.display()))?;
    offline::empty_folder(dir)?;
    let age = unix_seconds().saturating_sub(backup.taken_unix_ms / 1000);
    let incarnation = offline::incarnation_after(&backup.seed.records, unix_seconds());
    let last = backup.seed.last.index;
    offline::begin_anew(dir, (members.id, &members.addr), backup.seed, incarnation)?;
    println!(
        "coordinator {} has the backup of the cluster {}, {age} s old, up to entry {last}, as the only member of a new \
         cluster (incarnation {incarnation}).\nSay again what was said since: expelled certificates, dead hosts, cordons, \
         limits, the inventory. Start it; when agents are back: rackferry doctor.",
        members.id, backup.cluster
    );
    Ok(())
}

/// Asks for a word, for what cannot be taken back.
fn confirm(word: &str) -> anyhow::Result<()> {
    let asks = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    ensure!(asks, "it cannot ask without a terminal: --yes does it without asking");
    eprint!("Type {word} to go on: ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() != word {
        bail!("declined: nothing was changed");
    }
    Ok(())
}
