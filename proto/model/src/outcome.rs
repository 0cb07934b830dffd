//! How sessions and migrations ended.

use crate::word::words;

words! {
    /// What became of the VM when a session ended at one side.
    #[serde(rename_all = "snake_case")]
    Outcome {
        /// The VM runs at the target.
        Moved = "moved",
        /// The VM runs at the source.
        RolledBack = "rolled_back",
        /// The VM's QEMU died by itself.
        VmLost = "vm_lost",
        /// This side's copy does not run; the log decides.
        Stopped = "stopped",
    }

    /// How a migration ended. The serde form is the log's.
    End {
        /// The VM runs at the target.
        Moved = "moved",
        /// The VM stayed with its source.
        RolledBack = "rolled_back",
        /// The VM stayed with its source because a client cancelled the migration.
        Cancelled = "cancelled",
        /// The VM's QEMU is gone.
        Lost = "lost",
        /// The VM's guest powered itself off: there is nothing left to move, and nothing is lost.
        Ended = "ended",
    }
}
