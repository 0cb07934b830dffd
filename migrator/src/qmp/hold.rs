//! How a session keeps QEMU from stopping the VM, and from looking for dirty pages in the middle of a pass; decision
//! 15 has the reason for the latter.

use super::command::{Parameters, QueryKvm, SetParameters};
use super::{QemuVersion, Qmp, QmpError};

/// The longest stop QEMU takes as a limit: 2000 s.
const LIMIT_MAX_MS: u64 = 2_000_000;

/// What runs a VM's CPUs, as far as it matters for tracking dirty pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// KVM: the kernel tracks writes.
    Kvm,
    /// Anything else, TCG in practice: QEMU tracks writes itself.
    Emulation,
}

impl Accelerator {
    /// Whether a QEMU of this version loses writes during a migration whatever is done: TCG before 9.0.
    pub fn loses_writes(self, version: QemuVersion) -> bool {
        self == Self::Emulation && !version.at_least(9, 0)
    }
}

/// What QEMU may have left to send when it stops the VM. With less left than that it looks for dirty pages before each
/// part that it sends, even in the middle of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Bytes of dirty guest memory, whatever rate QEMU measures (QEMU 8.2 and later).
    Bytes(u64),
    /// What QEMU sends in so many milliseconds at the rate that it measured.
    Millis(u64),
}

impl Rest {
    /// Less than a page: QEMU looks for dirty pages only when it has sent all that it knew.
    pub const LESS_THAN_A_PAGE: Self = Self::Bytes(1);

    /// As QEMU's `downtime-limit` and `avail-switchover-bandwidth`: it multiplies the former with a thousandth of the
    /// latter.
    pub(super) fn parameters(self) -> (u64, Option<u64>) {
        match self {
            Self::Bytes(bytes) => (1, Some(bytes.max(1).saturating_mul(1000))),
            Self::Millis(ms) => (ms.min(LIMIT_MAX_MS), None),
        }
    }
}

/// Parameters of a QEMU as they were before a session set them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SavedParameters {
    max_bandwidth: Option<u64>,
    downtime_limit: Option<u64>,
    avail_switchover_bandwidth: Option<u64>,
}

impl From<&Parameters> for SavedParameters {
    fn from(now: &Parameters) -> Self {
        Self {
            max_bandwidth: now.max_bandwidth,
            downtime_limit: now.downtime_limit,
            avail_switchover_bandwidth: now.avail_switchover_bandwidth,
        }
    }
}

impl Qmp {
    /// Changes what QEMU may have left to send when it stops the VM; acts within about 100 ms.
    ///
    /// # Errors
    /// Trouble with QMP.
    pub async fn allow_rest(&self, rest: Rest) -> Result<(), QmpError> {
        let (downtime_limit, avail_switchover_bandwidth) = rest.parameters();
        let downtime_limit = Some(downtime_limit);
        let set =
            SetParameters { downtime_limit, avail_switchover_bandwidth, ..Default::default() };
        self.execute(set).await.map(drop)
    }

    /// Gives QEMU back the parameters that it had before the session: its operator may migrate it by other means.
    ///
    /// # Errors
    /// Trouble with QMP.
    pub async fn restore(&self, saved: SavedParameters) -> Result<(), QmpError> {
        let SavedParameters { max_bandwidth, downtime_limit, avail_switchover_bandwidth } = saved;
        let set = SetParameters {
            max_bandwidth,
            downtime_limit,
            avail_switchover_bandwidth,
            ..Default::default()
        };
        self.execute(set).await.map(drop)
    }

    /// What runs the VM's CPUs. Cancel safe.
    ///
    /// # Errors
    /// Trouble with QMP.
    pub async fn accelerator(&self) -> Result<Accelerator, QmpError> {
        let kvm = self.execute(QueryKvm {}).await?;
        Ok(if kvm.enabled { Accelerator::Kvm } else { Accelerator::Emulation })
    }
}
