//! Networks with real packets. Each test runs in network and mount namespaces of its own, where it plays the host; containers are
//! processes with user and network namespaces of their own, and nothing else. The machine's own network is not touched.
#![allow(clippy::unwrap_used, reason = "this is all a test, which has failed when it cannot go on")]

mod connect;
mod faults;
mod figures;
mod flow;
mod frames;
mod guest;
mod limits;
mod routed;
mod scene;
mod shortcut;
mod tests;

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};

/// Names the test that a process inside runs.
const INSIDE: &str = "CROFT_NETWORK_TEST";

/// The argument with which this program is the service.
pub const SERVICE: &str = "--service-of-networks";

/// Within this a test ends, or hangs.
const LIMIT: Duration = Duration::from_secs(120);

type Test = (&'static str, fn());

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let [_, service, state] = args.as_slice()
        && service == SERVICE
    {
        return match croftd_network::service::run(Path::new(state)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("the service of networks: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let all: Vec<Test> = tests::ALL
        .iter()
        .chain(connect::ALL)
        .chain(routed::ALL)
        .chain(limits::ALL)
        .chain(shortcut::ALL)
        .chain(faults::ALL)
        .chain(frames::ALL)
        .chain(figures::ALL)
        .copied()
        .collect();
    if let Some(name) = std::env::var_os(INSIDE) {
        let (_, test) = all.into_iter().find(|(known, _)| name == *known).expect("a test that is there");
        test();
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    // Each waits for packets that do not come, and plays with time: with two at once neither is right.
    arguments.test_threads = Some(1);
    let is_root = rustix::process::geteuid().is_root();
    let measures: Vec<&str> = figures::ALL.iter().map(|(name, _)| *name).collect();
    let trials = all.into_iter().map(|(name, _)| {
        let trial = Trial::test(name, move || run(name));
        trial.with_ignored_flag(!is_root || measures.contains(&name))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Runs a test in namespaces of its own.
fn run(name: &str) -> Result<(), Failed> {
    croft_harness::debian::ensure_packages(&["nftables", "iproute2", "busybox-static", "util-linux"])?;
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(std::env::current_exe()?).env(INSIDE, name).env("RUST_BACKTRACE", "0");
    let output = croft_harness::process::run(&mut command, LIMIT)?;
    let text = format!("{}{}", output.stdout, output.stderr);
    if output.status.success() {
        print!("{}", output.stdout);
        return Ok(());
    }
    Err(format!("{name}: {}\n{text}", output.status).into())
}
