//! The one door between messages and the model: every word, option and counter crosses here and nowhere else.
//!
//! From the model to messages everything has a value. From messages, a value that this version does not know is refused
//! ([`Invalid`]) or none, as the type says: programs of the next version may send it.

mod options;
mod view;
mod words;

use thiserror::Error;

/// A message is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0} is missing or malformed")]
pub struct Invalid(pub &'static str);

/// The value of an enum's number; none if it is unspecified, or of a later version.
pub fn word<T>(number: i32) -> Option<T>
where
    T: FromNumber,
{
    T::from_number(number)
}

/// A word that an enum of a message carries.
pub trait FromNumber: Sized {
    /// The value of a number; none if it is unspecified, or of a later version.
    fn from_number(number: i32) -> Option<Self>;
}
