//! Commands whose arguments or answers differ between QEMU versions, in the parts used here.

use std::collections::BTreeMap;

use qapi::{Command, Empty};
use serde::{Deserialize, Serialize};

use super::{MigrationInfo, RunState};

macro_rules! command {
    ($type:ty, $name:literal, $ok:ty) => {
        impl Command for $type {
            type Ok = $ok;
            const NAME: &'static str = $name;
            const ALLOW_OOB: bool = false;
        }
    };
}

#[derive(Debug, Serialize)]
pub(super) struct QueryMigrate {}
command!(QueryMigrate, "query-migrate", MigrationInfo);

#[derive(Debug, Serialize)]
pub(super) struct QueryStatus {}
command!(QueryStatus, "query-status", StatusInfo);

#[derive(Debug, Deserialize)]
pub(super) struct StatusInfo {
    pub(super) status: RunState,
}

#[derive(Debug, Serialize)]
pub(super) struct QueryKvm {}
command!(QueryKvm, "query-kvm", KvmInfo);

#[derive(Debug, Deserialize)]
pub(super) struct KvmInfo {
    pub(super) enabled: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct QueryCapabilities {}
command!(QueryCapabilities, "query-migrate-capabilities", Vec<Capability>);

#[derive(Debug, Serialize)]
pub(super) struct SetCapabilities {
    pub(super) capabilities: Vec<Capability>,
}
command!(SetCapabilities, "migrate-set-capabilities", Empty);

/// Names as text: `compress` left QEMU in 9.1, others came after the `qapi` crate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Capability {
    pub(super) capability: String,
    pub(super) state: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct QueryParameters {}
command!(QueryParameters, "query-migrate-parameters", Parameters);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Parameters {
    pub(super) mode: Option<String>,
    pub(super) tls_creds: Option<String>,
    pub(super) max_bandwidth: Option<u64>,
    pub(super) downtime_limit: Option<u64>,
    pub(super) avail_switchover_bandwidth: Option<u64>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct SetParameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_bandwidth: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) downtime_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) avail_switchover_bandwidth: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) multifd_channels: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) multifd_compression: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) throttle_trigger_threshold: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_throttle_initial: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_throttle_increment: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_cpu_throttle: Option<u8>,
}
command!(SetParameters, "migrate-set-parameters", Empty);

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct MigrateIncoming {
    pub(super) uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_on_error: Option<bool>,
}
command!(MigrateIncoming, "migrate-incoming", Empty);

#[derive(Debug, Serialize)]
pub(super) struct QomGet {
    pub(super) path: &'static str,
    pub(super) property: &'static str,
}
command!(QomGet, "qom-get", serde_json::Value);

#[derive(Debug, Serialize)]
pub(super) struct QueryMemorySize {}
command!(QueryMemorySize, "query-memory-size-summary", MemorySize);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct MemorySize {
    pub(super) base_memory: u64,
    #[serde(default)]
    pub(super) plugged_memory: u64,
}

/// Capabilities of this QEMU and their state.
pub(super) type Capabilities = BTreeMap<String, bool>;
