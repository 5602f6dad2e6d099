//! The log: one line for each message, in runc's two forms; its callers read the last error from the file.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::ValueEnum;
use croft_engine::error::Reason;

use crate::args::{Global, LogFormat, Rootless};

/// Makes sure that the log can be written, before anything else is done.
///
/// # Errors
/// When it cannot.
pub fn check(global: &Global) -> Result<()> {
    let Some(path) = &global.log else { return Ok(()) };
    open(path).map(drop).map_err(Reason::from).with_context(|| format!("--log: open {}", path.display()))
}

fn open(path: &Path) -> std::io::Result<File> {
    std::fs::OpenOptions::new().create(true).append(true).open(path)
}

/// Prints an error with its whole chain, once, and gives the exit status of a failure that is ours.
pub fn report(global: &Global, error: &anyhow::Error) -> ExitCode {
    log(global, "error", &format!("{error:#}"));
    ExitCode::from(1)
}

/// Prints what is wrong with the command line, as any other error: whoever reads the log gets it there.
pub fn report_usage(error: &clap::Error) -> ExitCode {
    let text = error.to_string();
    // The first paragraph says what; the rest is help.
    let lines = text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    let message = words.join(" ");
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    log(&gleaned(std::env::args().skip(1)), "error", &format!("{message} (see --help)"));
    ExitCode::from(1)
}

/// The options of the log, from a command line that could not be understood as a whole.
fn gleaned(args: impl Iterator<Item = String>) -> Global {
    let args: Vec<String> = args.collect();
    let value = |name: &str| {
        let with_value = format!("{name}=");
        args.iter().enumerate().find_map(|(at, arg)| match arg.strip_prefix(&with_value) {
            Some(value) => Some(value.to_owned()),
            None if arg == name => args.get(at + 1).cloned(),
            None => None,
        })
    };
    let format = value("--log-format").and_then(|f| LogFormat::from_str(&f, false).ok());
    Global {
        root: None,
        log: value("--log").map(PathBuf::from),
        log_format: format.unwrap_or(LogFormat::Text),
        debug: false,
        systemd_cgroup: false,
        rootless: Rootless::Auto,
        criu: None,
    }
}

/// Writes one line to the log: the file if one is given, and standard error.
pub fn log(global: &Global, level: &str, message: &str) {
    let now = croft_engine::report::now();
    let line = match global.log_format {
        LogFormat::Json => serde_json::json!({"level": level, "msg": message, "time": now}).to_string(),
        LogFormat::Text => format!("time={now:?} level={level} msg={message:?}"),
    };
    // One write each: lines of several processes must not mix.
    let Some(path) = &global.log else {
        let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
        return;
    };
    if let Ok(mut file) = open(path) {
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
    // As runc: who reads standard error gets the message as well, without the form.
    if level == "error" {
        let _ = std::io::stderr().write_all(format!("{message}\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_found_on_a_command_line_with_mistakes() {
        let args = ["--nosuch", "--log=/x", "--log-format", "json", "frob"].map(str::to_owned);
        let global = gleaned(args.into_iter());
        assert_eq!((global.log, global.log_format), (Some("/x".into()), LogFormat::Json));
    }
}
