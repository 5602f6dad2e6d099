//! Times as text: RFC 3339, UTC.

use jiff::Timestamp;

/// Now.
pub fn now() -> String {
    Timestamp::now().to_string()
}

/// `nanoseconds` after 1970; now where nobody knows.
pub fn at(nanoseconds: u64) -> String {
    match Timestamp::from_nanosecond(i128::from(nanoseconds)) {
        Ok(time) if nanoseconds > 0 => time.to_string(),
        _ => now(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn nanoseconds_become_text() {
        assert_eq!(super::at(1_000_000_000), "1970-01-01T00:00:01Z");
        assert!(super::at(0).starts_with("20"));
    }
}
