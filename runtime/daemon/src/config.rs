//! The configuration file: croftd's options, by their names, in TOML. What is given on the command line goes before it.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::{ArgAction, CommandFactory, Parser};

use crate::args::{Args, CONFIG};

/// The options of this process: the file's, and those of its command line.
///
/// # Errors
/// When a file that was asked for is not there, or one says what is no option.
pub fn read() -> Result<Args> {
    let given: Vec<OsString> = std::env::args_os().collect();
    // The command line says which file; it is complete without one.
    let first = Args::parse_from(&given);
    let (path, asked_for) = match &first.config {
        Some(path) => (path.as_path(), true),
        None => (Path::new(CONFIG), false),
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound && !asked_for => return Ok(first),
        Err(e) => return Err(e).with_context(|| path.display().to_string()),
    };
    let options = options(&text).with_context(|| path.display().to_string())?;
    let (program, rest) = given.split_first().context("a process has a name")?;
    let all = std::iter::once(program.clone()).chain(options.into_iter().map(OsString::from));
    let parsed = Args::try_parse_from(all.chain(rest.iter().cloned()));
    parsed.map_err(|error| anyhow::anyhow!("{}: {}", path.display(), error.to_string().trim()))
}

/// The text of a file as words of a command line.
fn options(text: &str) -> Result<Vec<String>> {
    let table: toml::Table = text.parse()?;
    let command = Args::command();
    let mut words = Vec::new();
    for (name, value) in table {
        let option = command.get_arguments().find(|option| option.get_long() == Some(&name));
        let Some(option) = option.filter(|_| name != "config") else {
            bail!("{name}: croftd has no such option; croftd --help lists them");
        };
        let takes_value = option.get_action().takes_values();
        match (value, takes_value) {
            (toml::Value::Boolean(true), false) => words.push(format!("--{name}")),
            (toml::Value::Boolean(false), false) => {}
            (toml::Value::String(text), true) => words.push(format!("--{name}={text}")),
            (toml::Value::Integer(number), true) => words.push(format!("--{name}={number}")),
            (toml::Value::Array(values), true) if matches!(option.get_action(), ArgAction::Append) => {
                for value in values {
                    let text = value
                        .as_str()
                        .with_context(|| format!("{name}: there is an element that is no string"))?;
                    words.push(format!("--{name}={text}"));
                }
            }
            (value, true) => bail!("{name}: {} is no string", value.type_str()),
            (value, false) => bail!("{name}: {} is neither true nor false", value.type_str()),
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_s_keys_are_options() {
        let words = options("log = \"debug\"\nlog-json = true\ngroup = 'staff'\n").unwrap();
        let args = Args::try_parse_from(["croftd".to_owned()].into_iter().chain(words.clone())).unwrap();
        assert!(args.log == "debug" && args.log_json && args.group == "staff");
        let over = ["croftd".to_owned()].into_iter().chain(words).chain(["--log=warn".to_owned()]);
        assert_eq!(Args::try_parse_from(over).unwrap().log, "warn");
        assert!(options("log-json = false").unwrap().is_empty());
        let folders = options("cdi-dir = ['/a', '/b']").unwrap();
        assert_eq!(folders, ["--cdi-dir=/a", "--cdi-dir=/b"]);
        let all = ["croftd".to_owned()].into_iter().chain(folders).chain(["--cdi-dir=/c".to_owned()]);
        let all: Vec<_> = Args::try_parse_from(all).unwrap().cdi_dir;
        assert_eq!(all, ["/a", "/b", "/c"].map(Path::new));
    }

    #[test]
    fn what_is_no_option_is_refused() {
        for (text, word) in [
            ("colour = 'red'", "colour"),
            ("config = '/x'", "config"),
            ("log = true", "log"),
            ("log-json = 'yes'", "neither"),
            ("log = ", "TOML"),
            ("log = ['a']", "array"),
            ("cdi-dir = ['/a', 1]", "no string"),
        ] {
            let error = format!("{:#}", options(text).unwrap_err());
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
