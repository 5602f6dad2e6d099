//! For this crate's tests: saying what a host cannot do, and trying in a process of its own what changes the whole process.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

/// Set in the environment of the process that runs one test alone.
const ALONE: &str = "CROFT_TEST_ALONE";

/// Says on the real standard error (the test runner keeps only what is printed by macros) that `test` was not run, and why.
pub(crate) fn skipped(test: &str, why: &str) {
    writeln!(std::io::stderr(), "SKIPPED {test}: {why}").expect("standard error is open");
}

/// Runs `body`, the body of the test that calls this, in a single-threaded process of its own, and fails as it does.
///
/// That is a child forked from this program run once more for that one test, where nothing else goes on: forked from the many
/// threads of the whole test run, it could find any of their locks taken for ever.
pub(crate) fn in_child<F: FnOnce()>(body: F) {
    if std::env::var_os(ALONE).is_some() {
        return fork(body);
    }
    // "croft_sys::tty::tests::name::{{closure}}": the test is what lies between.
    let path = std::any::type_name::<F>();
    let (_, test) = path.split_once("::").expect("a path begins with the crate");
    let test = test.strip_suffix("::{{closure}}").expect("the body is a closure");
    let program = std::env::current_exe().expect("a running program has a path");
    let arguments = [test, "--exact", "--test-threads=1", "--nocapture"];
    let output = Command::new(program).args(arguments).env(ALONE, "1").output().expect("the test runs");
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "alone: {said}{complained}");
    for line in complained.lines().filter(|line| line.starts_with("SKIPPED")) {
        writeln!(std::io::stderr(), "{line}").expect("standard error is open");
    }
}

fn fork(body: impl FnOnce()) {
    // SAFETY: fork needs nothing. The only other thread, the runner's, waits for this one and holds no lock that the body or a panic
    // needs; the child leaves by _exit.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork failed");
    if pid == 0 {
        let failed = catch_unwind(AssertUnwindSafe(body)).is_err();
        // SAFETY: _exit takes any status and does not return.
        unsafe { libc::_exit(i32::from(failed)) }
    }
    let mut status = 0;
    // SAFETY: pid is our child and status is a place for one int.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!((waited, status), (pid, 0), "the child failed");
}
