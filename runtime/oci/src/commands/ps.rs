//! `ps`: the pids as JSON, or the lines of ps(1) that are about them.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use croft_engine::state::StateRoot;

use crate::args::{ListFormat, PsArgs};

/// Lists a container's processes.
pub fn run(root: &StateRoot, args: &PsArgs) -> Result<ExitCode> {
    let pids = croft_engine::ps::pids(root, &args.id)?;
    if args.format == ListFormat::Json {
        super::print(&format!("{}\n", serde_json::to_string(&pids)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut command = Command::new("ps");
    if args.options.is_empty() {
        command.arg("-ef");
    } else {
        // containerd gives all options as one word.
        command.args(args.options.iter().flat_map(|word| word.split_whitespace()));
    }
    let output = command.output().context("run ps(1)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("run ps(1) {}: {}", args.options.join(" "), why.trim().lines().next().unwrap_or("it failed"));
    }
    super::print(&only(&text, &pids)?)?;
    Ok(ExitCode::SUCCESS)
}

/// The heading and the lines whose PID is one of `pids`.
fn only(table: &str, pids: &[i32]) -> Result<String> {
    let heading = table.lines().next().unwrap_or_default();
    let Some(column) = heading.split_whitespace().position(|title| title == "PID") else {
        bail!("run ps(1): couldn't find PID field in its output; the options must show it");
    };
    let ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    };
    let lines = std::iter::once(heading).chain(table.lines().skip(1).filter(ours));
    Ok(lines.map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::only;

    #[test]
    fn lines_of_others_are_left_out() {
        let table = "UID   PID CMD\nroot    1 init\nroot   12 sh -c 7\n";
        assert_eq!(only(table, &[12, 7]).unwrap(), "UID   PID CMD\nroot   12 sh -c 7\n");
        assert!(only("UID CMD\n", &[1]).is_err());
    }
}
