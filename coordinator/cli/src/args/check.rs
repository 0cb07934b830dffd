//! check and doctor, as they are written.

/// Check what would keep VMs from moving.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// VMs, or hosts and racks with all their VMs.
    #[arg(required = true, value_name = "VM|HOST|RACK")]
    pub places: Vec<String>,
    /// Racks or hosts to move to; without it, the check covers the sources alone.
    #[arg(long, value_delimiter = ',', value_name = "RACK|HOST,...")]
    pub to: Vec<String>,
    /// Check as if the VMs moved with `--verify`.
    #[arg(long)]
    pub verify: bool,
}

/// List problems of the site.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// Remove leftovers first, if their VM certainly runs elsewhere.
    #[arg(long)]
    pub repair: bool,
}
