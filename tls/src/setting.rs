//! The setting `tls` of a program.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{FileError, Role, Tls};

/// Where a program has its certificates, or that it uses none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a section with `dir`, or the word \"off\"")]
pub enum Setting {
    /// `[tls]` with `dir`.
    Files(Files),
    /// `tls = "off"`.
    Word(Off),
}

/// Where the certificates are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// The folder.
    pub dir: PathBuf,
}

/// The only word that `tls` may be set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Off {
    /// No TLS.
    Off,
}

/// A program cannot start with its setting `tls`.
#[derive(Debug, Error)]
pub enum SettingError {
    /// The settings name no certificates, and do not switch TLS off.
    #[error(
        "the settings do not say where the certificates are: set `dir` in `[tls]` to a folder made by {0}. \
         To use no TLS, say so: tls = \"off\""
    )]
    Missing(&'static str),
    /// The files of certificates are no good.
    #[error("the certificates")]
    File(#[from] FileError),
}

/// Opens what a setting names. `made_by` says where such a folder comes from. None if TLS is off.
///
/// # Errors
/// If there is no setting, or the files are no good.
pub fn open(
    setting: Option<&Setting>,
    role: Role,
    made_by: &'static str,
) -> Result<Option<Tls>, SettingError> {
    match setting {
        None => Err(SettingError::Missing(made_by)),
        Some(Setting::Word(Off::Off)) => Ok(None),
        Some(Setting::Files(files)) => Ok(Some(Tls::open(&files.dir, &[role])?)),
    }
}
