//! For this crate's tests: saying what a host cannot do, and trying in a child what changes the whole process.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Says on the real standard error (the test runner keeps only what is printed by macros) that `test` was not run, and why.
pub(crate) fn skipped(test: &str, why: &str) {
    writeln!(std::io::stderr(), "SKIPPED {test}: {why}").expect("standard error is open");
}

/// Runs `body` in a forked child and fails if it panics there.
pub(crate) fn in_child(body: impl FnOnce()) {
    // SAFETY: fork needs nothing. The child runs only this thread; glibc keeps malloc usable there, the body takes no lock of
    // the test runner's (panics are written with write, below), and the child leaves by _exit.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork failed");
    if pid == 0 {
        std::panic::set_hook(Box::new(|info| {
            writeln!(std::io::stderr(), "in the child: {info}").expect("standard error is open");
        }));
        let failed = catch_unwind(AssertUnwindSafe(body)).is_err();
        // SAFETY: _exit takes any status and does not return.
        unsafe { libc::_exit(i32::from(failed)) }
    }
    let mut status = 0;
    // SAFETY: pid is our child and status is a place for one int.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!((waited, status), (pid, 0), "the child failed");
}
