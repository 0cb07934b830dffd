//! What is wrong with a file, where, and what to do about it.

use std::fmt;

use serde_saphyr::{Location, Spanned};

/// The most mistakes that are told: a file with more has one that is behind many of them.
const TOLD: usize = 20;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// From 1.
    pub line: u64,
    /// From 1, in characters.
    pub column: u64,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub advice: String,
}

impl Mistake {
    pub(crate) fn new(
        line: u64,
        column: u64,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let (line, column) = (line.max(1), column.max(1));
        Self { line, column, what: visible(&what.into()), advice: advice.into() }
    }

    pub(crate) fn at(place: Location, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(place.line(), place.column(), what, advice)
    }

    pub(crate) fn of<T>(
        value: &Spanned<T>,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::at(value.referenced, what, advice)
    }
}

/// A file must not write to terminals by way of its mistakes, nor over more than one line.
fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { visible.extend(c.escape_debug()) } else { visible.push(c) }
    }
    visible
}

/// Everything that is wrong with a file, in the order of its lines; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    name: String,
    all: Vec<Mistake>,
}

impl Mistakes {
    pub(crate) fn new(name: &str, mut all: Vec<Mistake>) -> Self {
        all.sort();
        // A default is read for every host it is used for.
        all.dedup();
        Self { name: name.to_owned(), all }
    }

    /// Each of them.
    pub fn all(&self) -> &[Mistake] {
        &self.all
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.all.iter().take(TOLD).enumerate() {
            let Mistake { line, column, what, advice } = mistake;
            let gap = if index == 0 { "" } else { "\n" };
            write!(f, "{gap}{}:{line}:{column}: {what}; {advice}", self.name)?;
        }
        match self.all.len() {
            ..=TOLD => Ok(()),
            all => write!(f, "\nand {} more", all - TOLD),
        }
    }
}

impl std::error::Error for Mistakes {}
