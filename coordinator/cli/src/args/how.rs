//! How VMs are moved, and how long a command waits, as it is written.

use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use rackferry_model::{Compress, DEFAULT_MAX_DOWNTIME_MS, Dedup, Disruption, MoveOptions, Word};

use crate::units::{self, Millis};

/// How to move.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct How {
    /// Where to look for content that need not be sent again.
    #[arg(long, value_parser = word::<Dedup>(), default_value_t)]
    pub dedup: Dedup,
    /// How to compress content.
    #[arg(long, value_parser = word::<Compress>(), default_value_t)]
    pub compress: Compress,
    /// Compare the whole memory of each VM before it runs at its target.
    #[arg(long)]
    pub verify: bool,
    /// The longest pause of a VM.
    #[arg(long, value_name = "DURATION", default_value_t = Millis(DEFAULT_MAX_DOWNTIME_MS))]
    pub max_downtime: Millis,
    /// What a VM that does not converge may be subjected to.
    #[arg(long, value_parser = word::<Disruption>(), default_value_t)]
    pub disruption: Disruption,
}

impl How {
    /// As the model has it.
    pub fn options(self) -> MoveOptions {
        let Self { dedup, compress, verify, max_downtime: Millis(max_downtime_ms), disruption } =
            self;
        MoveOptions { dedup, compress, max_downtime_ms, verify, disruption }
    }
}

/// One of the words of the model, with what each means.
fn word<T: Word + Send + Sync>() -> impl TypedValueParser<Value = T> {
    let words = T::ALL
        .iter()
        .map(|word| PossibleValue::new(word.as_str()).help(word.about().trim_end_matches('.')));
    PossibleValuesParser::new(words).try_map(|text| T::from_word(&text))
}

/// How to wait.
#[derive(Clone, Debug, clap::Args)]
pub struct WaitFor {
    /// How long.
    #[command(flatten)]
    pub follow: Follow,
    /// Id of the request: the same id starts the same work only once.
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
}

/// How long to wait.
#[derive(Clone, Debug, clap::Args)]
pub struct Follow {
    /// Start the work and do not wait.
    #[arg(long)]
    pub detach: bool,
    /// Wait at most this long; the work goes on (exit code 6).
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    pub timeout: Option<Duration>,
}
