//! Changes as JSON, compressed: a tenth of the room, read by the same rules as plain JSON.

use std::io::{self, Read};

use base64::{Engine, engine::general_purpose::STANDARD};
use rackferry_fleet::Change;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use super::MESSAGE_LIMIT;

/// JSON of one part, before it is compressed: what a follower reads, writes down and answers well within a heartbeat.
/// A single record may be larger.
const PART: usize = 512 << 10;
/// zstd's default: its time is small beside an fsync.
const LEVEL: i32 = 3;

/// Changes cannot be written down.
#[derive(Debug, Error)]
pub enum PackError {
    /// Not as JSON.
    #[error("a record cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// Not compressed.
    #[error("records cannot be compressed")]
    Compress(#[from] io::Error),
}

/// Changes, with what they are written as.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    changes: Vec<Change>,
    /// Base64 of zstd of a JSON array: an entry is JSON around it.
    data: String,
}

impl Packed {
    /// Changes in their order, split; `texts` are their JSON, one each.
    ///
    /// # Errors
    /// If they cannot be compressed.
    pub fn parts(changes: Vec<Change>, texts: &[String]) -> Result<Vec<Self>, PackError> {
        let (mut parts, mut changes) = (Vec::new(), changes.into_iter());
        let mut texts = texts;
        while !texts.is_empty() {
            let mut room = PART;
            let fits = |text: &&String| {
                room = room.saturating_sub(text.len() + 1);
                room > 0
            };
            let count = texts.iter().take_while(fits).count().max(1);
            let (these, rest) = texts.split_at(count);
            let json = format!("[{}]", these.join(","));
            let compressed = zstd::bulk::compress(json.as_bytes(), LEVEL)?;
            let data = STANDARD.encode(compressed);
            parts.push(Self { changes: changes.by_ref().take(count).collect(), data });
            texts = rest;
        }
        Ok(parts)
    }

    /// What is packed.
    pub fn into_changes(self) -> Vec<Change> {
        self.changes
    }
}

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.data)
    }
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let data = String::deserialize(deserializer)?;
        let compressed = STANDARD.decode(&data).map_err(de::Error::custom)?;
        let json = decompress(&compressed, MESSAGE_LIMIT).map_err(de::Error::custom)?;
        let changes = serde_json::from_slice(&json).map_err(de::Error::custom)?;
        Ok(Self { changes, data })
    }
}

fn decompress(compressed: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    let mut json = Vec::new();
    let reader = zstd::stream::read::Decoder::with_buffer(compressed)?;
    reader.take(limit as u64 + 1).read_to_end(&mut json)?;
    if json.len() > limit {
        return Err(io::Error::other(format!("records of more than {limit} bytes")));
    }
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_an_error() {
        for data in ["*", "AAAA", ""] {
            let text = serde_json::to_string(data).unwrap();
            assert!(serde_json::from_str::<Packed>(&text).is_err(), "{data}");
        }
    }

    #[test]
    fn what_grows_beyond_the_limit_is_refused() {
        let compressed = zstd::bulk::compress(&vec![b' '; 100_000], LEVEL).unwrap();
        assert_eq!(decompress(&compressed, 100_000).unwrap().len(), 100_000);
        let error = decompress(&compressed, 99_999).unwrap_err().to_string();
        assert!(error.contains("99999 bytes"), "{error}");
    }
}
