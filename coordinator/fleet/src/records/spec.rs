//! The text of a VM's spec, as records keep it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How to start a VM, as registered; copies of a record share the text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct SpecText(Arc<str>);

impl SpecText {
    /// The text, in TOML.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SpecText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl From<String> for SpecText {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for SpecText {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<SpecText> for String {
    fn from(text: SpecText) -> Self {
        text.0.as_ref().to_owned()
    }
}
