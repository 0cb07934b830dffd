//! Enums whose values have one word each, the same in tables, JSON, flags and files.

use std::{error::Error, fmt};

/// An enum whose values have one word each.
pub trait Word: Copy + Eq + fmt::Debug + 'static {
    /// Every value, in the order of the definition.
    const ALL: &'static [Self];

    /// The word.
    fn as_str(self) -> &'static str;

    /// The meaning of the value, in one line.
    fn about(self) -> &'static str;

    /// The value of a word.
    ///
    /// # Errors
    /// If it is none of the words.
    fn from_word(text: &str) -> Result<Self, UnknownWord> {
        let mut all = Self::ALL.iter().copied();
        all.find(|value| value.as_str() == text).ok_or(UnknownWord)
    }
}

/// The text is none of the words of an enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWord;

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not one of the words")
    }
}

impl Error for UnknownWord {}

/// Defines enums of words. The first line of a value's documentation is what the value means for users.
macro_rules! words {
    ($(
        $(#[$of_enum:meta])*
        $name:ident {
            $(#[doc = $about:literal] $(#[$more:meta])* $variant:ident = $word:literal,)+
        }
    )+) => {$(
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(serde::Serialize, serde::Deserialize)]
        $(#[$of_enum])*
        pub enum $name { $(#[doc = $about] $(#[$more])* $variant,)+ }

        impl $crate::word::Word for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            fn about(self) -> &'static str {
                match self { $(Self::$variant => $about.trim_ascii(),)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str($crate::word::Word::as_str(*self))
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::word::UnknownWord;

            fn from_str(text: &str) -> Result<Self, $crate::word::UnknownWord> {
                $crate::word::Word::from_word(text)
            }
        }
    )+};
}

pub(crate) use words;

#[cfg(test)]
mod tests {
    use serde::{Serialize, de::DeserializeOwned};

    use super::*;
    use crate::*;

    /// Each word is read back, no two are the same, and each is explained in one line.
    fn holds<T: Word + fmt::Display>() {
        for (at, &value) in T::ALL.iter().enumerate() {
            let word = value.as_str();
            assert_eq!(T::from_word(word), Ok(value));
            assert_eq!(value.to_string(), word);
            assert!(value.about().ends_with('.') && !value.about().starts_with(' '), "{value}");
            assert!(T::ALL[..at].iter().all(|other| other.as_str() != word), "{word} twice");
        }
        assert_eq!(T::from_word("no such word"), Err(UnknownWord));
    }

    /// The JSON form is the word.
    fn is_its_json<T: Word + fmt::Display + Serialize + DeserializeOwned>() {
        holds::<T>();
        for &value in T::ALL {
            let json = serde_json::to_string(&value).unwrap();
            assert_eq!(json, format!("\"{value}\""));
            assert_eq!(serde_json::from_str::<T>(&json).unwrap(), value);
        }
    }

    #[test]
    fn words_are_read_back() {
        holds::<Dedup>();
        holds::<Compress>();
        holds::<Disruption>();
        holds::<End>();
    }

    #[test]
    fn json_says_the_word() {
        is_its_json::<Outcome>();
        is_its_json::<RunState>();
        is_its_json::<Side>();
        is_its_json::<Phase>();
        is_its_json::<EvacuationState>();
        is_its_json::<WaitCode>();
        is_its_json::<Ownership>();
        is_its_json::<Condition>();
        is_its_json::<Listed>();
        is_its_json::<NodeRole>();
        is_its_json::<EventOutcome>();
        is_its_json::<Action>();
        is_its_json::<Severity>();
        is_its_json::<FindingCode>();
        is_its_json::<ProblemCode>();
        is_its_json::<ByteKind>();
    }
}
