use std::fmt;

use serde::Deserialize;

/// Version of a QEMU binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct QemuVersion {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub micro: u32,
}

impl QemuVersion {
    /// At least this release.
    #[must_use]
    pub fn at_least(self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// Declares an enum of QEMU's names that keeps unknown ones.
macro_rules! named {
    ($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum $type {
            $($(#[$vdoc])* $variant,)*
            /// A state this program does not know.
            Other(String),
        }

        impl $type {
            /// From QEMU's name.
            #[must_use]
            pub fn from_name(name: &str) -> Self {
                match name { $($name => Self::$variant,)* _ => Self::Other(name.to_owned()) }
            }

            /// QEMU's name.
            #[must_use]
            pub fn name(&self) -> &str {
                match self { $(Self::$variant => $name,)* Self::Other(name) => name }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.name()) }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Ok(Self::from_name(&String::deserialize(from)?))
            }
        }
    };
}

named! {
    /// State of a migration, on either side.
    MigrationStatus {
        /// No migration yet.
        None = "none",
        /// Connecting, first sections.
        Setup = "setup",
        /// Waiting for the guest to give up a failover device.
        WaitUnplug = "wait-unplug",
        /// Copying; the VM runs, or (completion) has just been stopped.
        Active = "active",
        /// VM stopped, waiting for migrate-continue.
        PreSwitchover = "pre-switchover",
        /// VM stopped, device state on its way or the target's answer awaited.
        Device = "device",
        /// The VM runs at the target before its memory is there.
        PostcopyActive = "postcopy-active",
        /// Postcopy with a broken connection.
        PostcopyPaused = "postcopy-paused",
        /// Done: at the source the VM cannot run by itself any more, at the target all is loaded.
        Completed = "completed",
        /// About to fail (11.0 on).
        Failing = "failing",
        /// Failed; at the source the VM runs on.
        Failed = "failed",
        /// Being cancelled.
        Cancelling = "cancelling",
        /// Cancelled; the VM runs on.
        Cancelled = "cancelled",
    }
}

impl MigrationStatus {
    /// Nothing more will happen without a new command.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::None | Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// Ended without success.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Failed | Self::Cancelled)
    }
}

named! {
    /// Run state of a VM.
    RunState {
        /// Runs.
        Running = "running",
        /// Stopped by command.
        Paused = "paused",
        /// Started with `-S`, never run.
        Prelaunch = "prelaunch",
        /// Waits for or loads an incoming migration.
        InMigrate = "inmigrate",
        /// Stopped by an outgoing migration that is completing; runs again by itself if that fails.
        FinishMigrate = "finish-migrate",
        /// An outgoing migration completed: stays stopped until `cont`.
        PostMigrate = "postmigrate",
        /// Guest in S3; wakes by itself.
        Suspended = "suspended",
        /// Guest shut down.
        Shutdown = "shutdown",
        /// Stopped by an I/O error.
        IoError = "io-error",
        /// Stopped by an internal error.
        InternalError = "internal-error",
        /// Guest panicked.
        GuestPanicked = "guest-panicked",
    }
}

/// Which of two ways holds the switchover until the session wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Valve {
    /// Capability `switchover-ack`: QEMU waits for SWITCHOVER_ACK, which the session puts on the return
    /// path.
    SwitchoverAck,
    /// What may be left at the stop ([`super::Rest`]) is next to nothing, until [`super::Qmp::allow_rest`] raises it.
    /// Not a hard hold: with nothing dirty QEMU completes by itself.
    DowntimeLimit,
}

/// What `query-migrate` tells.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MigrationInfo {
    /// State; absent before the first migration.
    status: Option<MigrationStatus>,
    /// Counters of the memory, once it is active.
    pub ram: Option<RamInfo>,
    /// Milliseconds the VM was stopped, once completed.
    pub downtime: Option<u64>,
    /// Milliseconds QEMU believes a stop would last now.
    pub expected_downtime: Option<u64>,
    /// Milliseconds since the start.
    pub total_time: Option<u64>,
    /// Why it failed; 7.2 rarely says.
    pub error_desc: Option<String>,
    /// Why this VM cannot be migrated at the moment.
    #[serde(default)]
    pub blocked_reasons: Vec<String>,
}

impl MigrationInfo {
    /// State; [`MigrationStatus::None`] before the first migration.
    #[must_use]
    pub fn status(&self) -> MigrationStatus {
        self.status.clone().unwrap_or(MigrationStatus::None)
    }
}

/// Counters of the memory.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RamInfo {
    /// Bytes put into the stream.
    pub transferred: u64,
    /// Bytes dirty at the last sync and not sent since.
    pub remaining: u64,
    /// Bytes of guest memory.
    pub total: u64,
    /// Zero pages sent.
    pub duplicate: u64,
    /// Other pages sent.
    pub normal: u64,
    /// Pages dirtied per second.
    pub dirty_pages_rate: u64,
    /// Rounds begun.
    pub dirty_sync_count: u64,
    /// Megabits per second.
    pub mbps: f64,
    /// Bytes of a page.
    pub page_size: u64,
}
