//! Limits of links.

use rackferry_fleet::{LinkLimit, LinkName};
use rackferry_proto::v1;

/// A limit as its message.
pub fn limit(link: &LinkName, limit: LinkLimit) -> v1::LinkLimit {
    use v1::link_limit::Limit;
    let limit = match limit {
        LinkLimit::Rate(rate) => Limit::BytesPerSecond(rate),
        LinkLimit::Percent(percent) => Limit::Percent(percent.into()),
    };
    v1::LinkLimit { link: link.to_string(), limit: Some(limit) }
}
