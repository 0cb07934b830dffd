//! Which installation of an agent this is: `installation.json`, made with the state directory. A cloned image has the name,
//! the certificate and this file of another host; what tells it apart is the machine.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::VmError;
use super::state_dir::{at, write_durably};

const FILE: &str = "installation.json";
/// The identity of the hardware, or of the virtual machine that the host is.
const MACHINE: &str = "/sys/class/dmi/id/product_uuid";

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Installation {
    id: String,
    /// Identity of the machine that it was made on; empty if that has none.
    machine: String,
}

impl Installation {
    /// Reads it, or makes it, durably.
    ///
    /// # Errors
    /// It was made on another machine, or cannot be read or written.
    pub(super) fn open(state_dir: &Path) -> Result<Self, VmError> {
        let machine = fs::read_to_string(MACHINE).unwrap_or_default().trim().to_owned();
        Self::open_on(state_dir, machine)
    }

    fn open_on(state_dir: &Path, machine: String) -> Result<Self, VmError> {
        let path = state_dir.join(FILE);
        match fs::read(&path) {
            Ok(text) => {
                let known: Self =
                    serde_json::from_slice(&text).map_err(|error| at(&path)(error.into()))?;
                let comparable = !known.machine.is_empty() && !machine.is_empty();
                if comparable && known.machine != machine {
                    return Err(VmError::OtherMachine { path });
                }
                Ok(known)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let id = uuid::Uuid::new_v4().to_string();
                let new = Self { id, machine };
                let text = serde_json::to_vec_pretty(&new).map_err(|e| at(&path)(e.into()))?;
                write_durably(state_dir, FILE, &text)?;
                Ok(new)
            }
            Err(error) => Err(at(&path)(error)),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_is_made_once_and_not_taken_to_another_machine() {
        let dir = tempfile::tempdir().unwrap();
        let open = |machine: &str| Installation::open_on(dir.path(), machine.to_owned());
        let id = open("m1").unwrap().id;
        assert_eq!(id.len(), 36);
        assert_eq!(open("m1").unwrap().id, id);
        // A kernel that does not tell is no reason to stay away.
        assert_eq!(open("").unwrap().id, id);
        assert!(matches!(open("m2"), Err(VmError::OtherMachine { .. })));
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Installation::open_on(other.path(), String::new()).unwrap().id, id);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{").unwrap();
        let error = Installation::open_on(dir.path(), String::new()).unwrap_err();
        assert!(format!("{:#}", anyhow::Error::from(error)).contains(FILE));
    }
}
