//! The addresses of a port, which the kernel shows as files.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use crate::peer::Gid;

/// The kind of address that packets of RoCE version 2 have.
const ROCE_V2: &str = "RoCE v2";

/// An address and its place in the port's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Its place.
    pub index: u8,
    /// The address.
    pub gid: Gid,
}

impl Address {
    /// The IP address that it stands for.
    fn ip(&self) -> IpAddr {
        Ipv6Addr::from(self.gid.0).to_canonical()
    }
}

/// The RoCE v2 addresses of a port. `folder` is the port's in `/sys/class/infiniband`.
pub(crate) fn of_port(folder: &Path) -> io::Result<Vec<Address>> {
    let mut addresses = Vec::new();
    for entry in fs::read_dir(folder.join("gids"))? {
        let Some(index) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            // A work request names 256 of them.
            continue;
        };
        addresses.extend(read(folder, index).map(|gid| Address { index, gid }));
    }
    addresses.sort_by_key(|address| address.index);
    Ok(addresses)
}

/// Places that are not taken cannot be read, or hold zeros.
fn read(folder: &Path, index: u8) -> Option<Gid> {
    let gid = fs::read_to_string(folder.join(format!("gids/{index}"))).ok()?;
    let gid: Ipv6Addr = gid.trim().parse().ok()?;
    if gid.is_unspecified() {
        return None;
    }
    let kind = fs::read_to_string(folder.join(format!("gid_attrs/types/{index}"))).ok()?;
    (kind.trim() == ROCE_V2).then_some(Gid(gid.octets()))
}

/// The address to use: the wanted one, or else one that is routed, as link-local ones are not.
pub(crate) fn choose(addresses: &[Address], wanted: Option<IpAddr>) -> Option<Address> {
    if let Some(wanted) = wanted {
        return addresses.iter().find(|address| address.ip() == wanted.to_canonical()).copied();
    }
    let is_routed = |address: &&Address| match address.ip() {
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    };
    addresses.iter().find(is_routed).or_else(|| addresses.first()).copied()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]
mod tests {
    use super::*;

    #[test]
    fn of_a_port_the_wanted_address_is_found_or_one_that_is_routed() {
        let port = tempfile::tempdir().unwrap();
        fs::create_dir_all(port.path().join("gids")).unwrap();
        fs::create_dir_all(port.path().join("gid_attrs/types")).unwrap();
        let table = [
            (0, "fe80:0000:0000:0000:5054:00ff:fe12:3456", Some("RoCE v2\n")),
            (1, "0000:0000:0000:0000:0000:ffff:c000:0201", Some("IB/RoCE v1\n")),
            (2, "0000:0000:0000:0000:0000:ffff:c000:0201", Some("RoCE v2\n")),
            (3, "fd00:0000:0000:0000:0000:0000:0000:0001", Some("RoCE v2\n")),
            (4, "0000:0000:0000:0000:0000:0000:0000:0000", None),
            (300, "fd00:0000:0000:0000:0000:0000:0000:0002", Some("RoCE v2\n")),
        ];
        for (index, gid, kind) in table {
            fs::write(port.path().join(format!("gids/{index}")), format!("{gid}\n")).unwrap();
            if let Some(kind) = kind {
                fs::write(port.path().join(format!("gid_attrs/types/{index}")), kind).unwrap();
            }
        }
        let found = of_port(port.path()).unwrap();
        assert_eq!(found.iter().map(|address| address.index).collect::<Vec<_>>(), [0, 2, 3]);
        let index = |ip: &str| choose(&found, Some(ip.parse().unwrap())).map(|found| found.index);
        assert_eq!(index("192.0.2.1"), Some(2));
        assert_eq!(index("fd00::1"), Some(3));
        assert_eq!(index("192.0.2.2"), None);
        assert_eq!(choose(&found, None).map(|found| found.index), Some(2));
        assert_eq!(choose(&found[..1], None).map(|found| found.index), Some(0));
        assert_eq!(choose(&[], None), None);
    }
}
