//! How work that goes on is followed, for people and programs.

/// The command that follows an evacuation or a migration.
pub fn command(id: &str) -> String {
    if id.starts_with("evac-") {
        format!("rackferry status --watch {id}")
    } else {
        format!("rackferry migration show --watch {id}")
    }
}

/// What goes on while the command no longer waits.
pub fn goes_on(id: &str) -> String {
    format!("{id} goes on; look with: {}; stop it with: rackferry cancel {id}", command(id))
}
