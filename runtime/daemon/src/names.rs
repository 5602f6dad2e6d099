//! Names and ids of containers.

use std::fmt::Write;

/// A new id: 64 hexadecimal digits from the kernel's random numbers.
pub fn id() -> String {
    let mut bytes = [0_u8; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        // Interrupted or short only before the kernel has collected enough at boot: it is asked again.
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    }
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Whether it is made like an [`id`].
pub fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

const KINDS: [&str; 16] = [
    "acre", "barn", "byre", "close", "dale", "field", "fold", "garth", "glen", "hill", "loch", "meadow",
    "moor", "shieling", "strath", "tarn",
];

const MARKS: [&str; 16] = [
    "bonny", "braw", "bright", "calm", "canny", "deep", "fair", "green", "high", "hushed", "long", "low",
    "mossy", "quiet", "snug", "wide",
];

/// A name for a container that was given none, made from its id.
pub fn made_up(id: &str) -> String {
    let digit =
        |at: usize| id[at..=at].chars().next().and_then(|c| c.to_digit(16)).unwrap_or_default() as usize;
    format!("{}-{}-{}", MARKS[digit(0)], KINDS[digit(1)], &id[2..6])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_are_names() {
        let id = id();
        assert_eq!(id.len(), 64);
        croft_api::names::check(&made_up(&id)).unwrap();
        assert_ne!(id, super::id());
    }
}
