//! Tables for people, JSON for programs.

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::args::Format;

/// Prints `values`: as JSON, or as a table with `head` and a row for each.
pub fn list<T: Serialize>(format: Format, values: &[T], head: &[&str], row: impl Fn(&T) -> Vec<String>) {
    if format == Format::Json {
        return json(&values);
    }
    println!("{}", table(values, head, row));
}

/// A table with `head` and a row for each of `values`.
pub fn table<T>(values: &[T], head: &[&str], row: impl Fn(&T) -> Vec<String>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.iter().copied());
    values.iter().for_each(|value| {
        table.add_row(row(value));
    });
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// How much of an answer is printed, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// How.
    pub format: Format,
    /// Whether ids only are printed of what is listed, and nothing of what is done.
    pub quiet: bool,
}

impl Shown {
    /// Prints what was done: `value` as JSON, or `text` for people.
    pub fn done<T: Serialize>(self, value: &T, text: &str) {
        match (self.quiet, self.format) {
            (true, _) => {}
            (false, Format::Json) => json(value),
            (false, Format::Table) => println!("{text}"),
        }
    }

    /// The same for what several lines tell.
    pub fn lines<T: Serialize>(self, value: &T, lines: impl IntoIterator<Item = String>) {
        match (self.quiet, self.format) {
            (true, _) => {}
            (false, Format::Json) => json(value),
            (false, Format::Table) => lines.into_iter().for_each(|line| println!("{line}")),
        }
    }

    /// The same for one of several: JSON in one line.
    pub fn each<T: Serialize>(self, value: &T, text: &str) {
        match (self.quiet, self.format) {
            (true, _) => {}
            (false, Format::Json) => println!("{}", serde_json::to_string(value).unwrap_or_default()),
            (false, Format::Table) => println!("{text}"),
        }
    }
}

/// The last line of what was pruned.
pub fn freed(bytes: u64) -> String {
    format!("{} freed", size(bytes))
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

/// Bytes for people, in steps of 1000: what is stored and sent.
pub fn size(bytes: u64) -> String {
    in_steps(bytes, 1000.0, ["B", "kB", "MB", "GB", "TB"])
}

/// Bytes for people, in steps of 1024: memory.
pub fn binary(bytes: u64) -> String {
    in_steps(bytes, 1024.0, ["B", "KiB", "MiB", "GiB", "TiB"])
}

fn in_steps(bytes: u64, step: f64, units: [&str; 5]) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_short() {
        assert_eq!(super::size(999), "999 B");
        assert_eq!(super::size(1_234_567), "1.2 MB");
        assert_eq!(super::binary(32 << 20), "32.0 MiB");
        assert_eq!(super::short("sha256:0123456789abcdef"), "0123456789ab");
    }
}
