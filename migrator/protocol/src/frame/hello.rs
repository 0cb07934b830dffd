//! The first frame of a connection: version, role and caller.

use super::{FrameError, Put, Reader};

/// Version of the page protocol. A peer of another version is refused by name, not by accident.
pub const PROTOCOL_VERSION: u16 = 1;

/// What a connection is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// One moving VM: the caller is its source.
    Session {
        /// The migration's number in frames and index entries.
        session: u64,
        /// Generation the target will own with.
        generation: u64,
        /// The migration's name in the control plane.
        migration_id: String,
    },
    /// Claims, fetches and the like between two agents.
    Neighbour,
    /// The answer of the called side: come in.
    Accepted,
}

/// First frame in each direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Stable number of the sender's host.
    pub host_id: u32,
    /// What for.
    pub role: Role,
}

impl Hello {
    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(PROTOCOL_VERSION);
        out.put_u32(self.host_id);
        match &self.role {
            Role::Session { session, generation, migration_id } => {
                out.put_u8(1);
                out.put_u64(*session);
                out.put_u64(*generation);
                out.put_text(migration_id);
            }
            Role::Neighbour => out.put_u8(2),
            Role::Accepted => out.put_u8(3),
        }
    }

    /// Decodes and checks the version.
    pub fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        let mut r = Reader::new(payload);
        let theirs = r.u16()?;
        if theirs != PROTOCOL_VERSION {
            return Err(FrameError::Version { theirs });
        }
        let host_id = r.u32()?;
        let role = match r.u8()? {
            1 => Role::Session {
                session: r.u64()?,
                generation: r.u64()?,
                migration_id: r.text()?.to_owned(),
            },
            2 => Role::Neighbour,
            3 => Role::Accepted,
            n => return Err(FrameError::Value { field: "role", value: n.into() }),
        };
        r.finish()?;
        Ok(Self { host_id, role })
    }
}
