//! `LINK=RATE|PERCENT|off`, as it is written on the command line.

use std::str::FromStr;

use rackferry_inventory::unit;
use rackferry_proto::v1::{self, link_limit::Limit};
use thiserror::Error;

/// What moves may put on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkLimit {
    link: String,
    limit: Option<Limit>,
}

/// The text is no limit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("not a limit such as core0=200Mbit, core0=40% or core0=off")]
pub struct NotALimit;

impl FromStr for LinkLimit {
    type Err = NotALimit;

    fn from_str(text: &str) -> Result<Self, NotALimit> {
        let (link, limit) = text.split_once('=').ok_or(NotALimit)?;
        if link.is_empty() {
            return Err(NotALimit);
        }
        let limit = match limit {
            "off" => None,
            limit => Some(match unit::percent(limit) {
                Ok(percent) => Limit::Percent(percent.into()),
                Err(_) => Limit::BytesPerSecond(unit::rate(limit).map_err(|_| NotALimit)?),
            }),
        };
        Ok(Self { link: link.to_owned(), limit })
    }
}

impl From<LinkLimit> for v1::LinkLimit {
    fn from(LinkLimit { link, limit }: LinkLimit) -> Self {
        Self { link, limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        let read = |text: &str| text.parse().map(|limit: LinkLimit| limit.limit);
        assert_eq!(read("core0=200Mbit"), Ok(Some(Limit::BytesPerSecond(25_000_000))));
        assert_eq!(read("core0=40%"), Ok(Some(Limit::Percent(40))));
        assert_eq!(read("core0=off"), Ok(None));
        for bad in ["core0", "=off", "core0=", "core0=0Mbit", "core0=101%", "core0=200"] {
            assert_eq!(read(bad), Err(NotALimit), "{bad}");
        }
    }
}
