//! Bad input: one clear error that says what, on what and why, in both forms of the log, and nothing left behind.
mod config;
mod states;
mod surroundings;

use std::process::Command;

use anyhow::{Context, Result, ensure};
use croft_harness::process::{self, Output};
use croft_harness::snapshot::Snapshot;
use croft_harness::{Bundle, Facility, Host, OnRunc, Subject, Test};
use serde_json::Value;

const ROOT: &[Facility] = &[Facility::Root];
const WORDS: OnRunc = OnRunc::CroftOnly("the words are croft's own, but for those that wording.rs holds");

pub const SUBJECT: Subject = Subject {
    name: "bad_input",
    tests: &[
        Test { name: "texts_that_are_no_configuration", requires: ROOT, run: config::texts },
        Test { name: "properties", requires: ROOT, run: config::properties },
        Test { name: "programs", requires: ROOT, run: config::programs },
        Test { name: "ids", requires: ROOT, run: states::ids },
        Test { name: "missing_containers", requires: ROOT, run: states::missing_containers },
        Test { name: "wrong_states", requires: ROOT, run: states::wrong_states },
        Test { name: "signals_and_limits", requires: ROOT, run: states::signals_and_limits },
        Test { name: "command_lines", requires: ROOT, run: surroundings::command_lines },
        Test { name: "bundles_and_files", requires: ROOT, run: surroundings::bundles_and_files },
        Test { name: "state_folders", requires: ROOT, run: surroundings::state_folders },
        Test { name: "states_that_cannot_be_read", requires: ROOT, run: surroundings::unreadable_states },
    ],
    on_runc: &[
        ("texts_that_are_no_configuration", WORDS),
        ("properties", WORDS),
        ("programs", WORDS),
        ("ids", WORDS),
        ("missing_containers", WORDS),
        ("wrong_states", WORDS),
        ("signals_and_limits", WORDS),
        ("command_lines", WORDS),
        ("bundles_and_files", WORDS),
        ("state_folders", WORDS),
        ("states_that_cannot_be_read", WORDS),
    ],
};

/// Runs the command that `command` makes from global options, in each form of the log: it has to fail with 1 and exactly one
/// error, which has all of `says` in it, and to leave the host as it was.
pub fn refused(
    host: &Host,
    bundle: &Bundle,
    command: impl Fn(&[&str]) -> Command,
    says: &[&str],
) -> Result<()> {
    let log = bundle.folder().join("log.json");
    let file = log.to_str().context("temporary folders have plain names")?;
    let text: &[&str] = &[];
    for options in [text, &["--log-format", "json"], &["--log", file, "--log-format", "json"]] {
        let _ = std::fs::remove_file(&log);
        let before = Snapshot::take(host, &[bundle.state_root()])?;
        let out = process::run(&mut command(options), croft_harness::bundle::VERB_LIMIT)?;
        before.same_as(&Snapshot::take(host, &[bundle.state_root()])?).with_context(|| out.to_string())?;
        ensure!(out.code() == 1, "not refused: {out}");
        ensure!(out.stdout.is_empty(), "an error belongs on standard error: {out}");
        let message = match options {
            [] => one_text(&out)?,
            ["--log-format", ..] => one_json(&out.stderr)?,
            _ => {
                let message = one_json(&std::fs::read_to_string(&log)?)?;
                ensure!(out.stderr.trim_end() == message, "standard error says something else: {out}");
                message
            }
        };
        for word in says {
            ensure!(message.contains(word), "the message lacks {word:?}: {message}");
        }
        ensure!(message.len() < 2000, "a message of {} bytes", message.len());
        ensure!(!message.contains("os error"), "a number of the kernel's is no reason: {message}");
    }
    Ok(())
}

/// The message of the one error in text form; warnings may go before it.
fn one_text(out: &Output) -> Result<String> {
    let errors: Vec<&str> = out.stderr.lines().filter(|l| l.contains(" level=error msg=")).collect();
    let others = out.stderr.lines().filter(|l| !l.starts_with("time=\"")).count();
    ensure!(errors.len() == 1 && others == 0, "not exactly one error: {out}");
    let (_, message) = errors[0].split_once(" level=error msg=").context("it was just found")?;
    Ok(message.replace("\\\"", "\""))
}

/// The message of the one error in JSON form, with runc's fields and no other.
fn one_json(text: &str) -> Result<String> {
    let lines: Vec<Value> =
        text.lines().map(serde_json::from_str).collect::<Result<_, _>>().context(text.to_owned())?;
    let errors: Vec<&Value> = lines.iter().filter(|line| line["level"] == "error").collect();
    ensure!(errors.len() == 1, "not exactly one error: {text}");
    let fields: Vec<&String> = errors[0].as_object().context("a line is an object")?.keys().collect();
    ensure!(fields == ["level", "msg", "time"], "{text}");
    let time = errors[0]["time"].as_str().context("time")?;
    ensure!(time.len() >= 20 && time.as_bytes()[10] == b'T', "{time} is not RFC 3339");
    Ok(errors[0]["msg"].as_str().context("msg")?.to_owned())
}

/// `verb` on the bundle's container with options before and words after the id.
pub fn verb<'a>(
    bundle: &'a Bundle,
    verb: &'a str,
    before: &'a [&'a str],
    after: &'a [&'a str],
) -> impl Fn(&[&str]) -> Command + 'a {
    move |globals| {
        let mut command = Command::new(bundle.runtime());
        command.arg("--root").arg(bundle.state_root()).args(globals).arg(verb).args(before);
        if ["create", "run"].contains(&verb) {
            command.arg("--bundle").arg(bundle.folder());
        }
        command.arg(bundle.id()).args(after);
        command
    }
}
