//! Signals by name and number (signal(7)).

use croft_api::problem::{Kind, Problem};

/// Asks a process to end.
pub const TERM: i32 = 15;

/// Ends a process.
pub const KILL: i32 = 9;

/// The number of a signal given as `TERM`, `SIGTERM` or `15`.
///
/// # Errors
/// [`Kind::Invalid`].
pub fn number(text: &str) -> Result<i32, Problem> {
    croft_engine::kill::signal_number(text).ok_or_else(|| {
        Problem::new(Kind::Invalid, "signal", format!("{text:?} is no signal")).hint("kill -l lists them")
    })
}

/// What asks a process to end that has this for it. What is no signal means nothing, as with Docker: users' are refused when they create a
/// container, and nobody could mend an image's.
pub fn to_end(asked: Option<&str>) -> i32 {
    asked.and_then(|name| number(name).ok()).unwrap_or(TERM)
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_and_numbers_mean_the_same() {
        for text in ["TERM", "SIGTERM", "15", "sigterm"] {
            assert_eq!(super::number(text).unwrap(), super::TERM, "{text}");
        }
        assert!(super::number("FLY").is_err() && super::number("900").is_err());
    }

    #[test]
    fn what_is_no_signal_does_not_keep_a_container_from_ending() {
        assert_eq!([Some("INT"), Some("FOO"), Some(""), None].map(super::to_end), [2, 15, 15, 15]);
    }
}
