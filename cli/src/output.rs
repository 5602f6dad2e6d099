//! Tables for people, JSON for programs.

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::args::Format;

/// Prints `values`: as JSON, or as a table with `head` and a row for each.
pub fn list<T: Serialize>(format: Format, values: &[T], head: &[&str], row: impl Fn(&T) -> Vec<String>) {
    if format == Format::Json {
        return json(&values);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.iter().copied());
    values.iter().for_each(|value| {
        table.add_row(row(value));
    });
    println!("{}", table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n"));
}

/// Prints `value` as JSON.
pub fn json<T: Serialize + ?Sized>(value: &T) {
    println!("{}", serde_json::to_string_pretty(value).unwrap_or_default());
}

/// Whether somebody at the terminal says yes to `question`.
///
/// # Errors
/// When nobody can be asked.
pub fn agreed(question: &str) -> Result<bool, String> {
    use std::io::{IsTerminal, Write};
    if !std::io::stdin().is_terminal() {
        return Err(format!("{question} Nobody is there to say so: --force answers yes"));
    }
    eprint!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|e| format!("read the answer: {e}"))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// The beginning of an id that people read.
pub fn short(id: &str) -> String {
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(12).collect()
}

/// Bytes for people.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_short() {
        assert_eq!(super::size(999), "999 B");
        assert_eq!(super::size(1_234_567), "1.2 MB");
        assert_eq!(super::short("sha256:0123456789abcdef"), "0123456789ab");
    }
}
