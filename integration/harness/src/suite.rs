//! What a test is, and how the suite runs: by subject, against one runtime, ignoring by name what a host cannot run.
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use rustix::process::{WaitOptions, wait};

use crate::facility::Facility;
use crate::host::{Host, RuntimeKind};
use crate::sweep;

/// The slowest test on an emulated processor is well below this.
const TEST_LIMIT: Duration = Duration::from_secs(600);

/// One test of the suite.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    /// What it shows, as a Rust identifier: `kill_all_reaches_children`.
    pub name: &'static str,
    /// What the host must have; where it does not, the test is ignored and the first missing thing said.
    pub requires: &'static [Facility],
    /// The test itself.
    pub run: fn(&Host) -> Result<()>,
}

/// The tests of one source file.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// The name of the source file, without `.rs`.
    pub name: &'static str,
    /// Its tests.
    pub tests: &'static [Test],
    /// Tests of this subject, by name, for which runc differs; `*` is all that are not named.
    pub on_runc: &'static [(&'static str, OnRunc)],
}

/// The name in [`Subject::on_runc`] that stands for all that have no mark of their own.
const ALL_OTHERS: &str = "*";

impl Subject {
    fn mark(&self, test: &Test) -> Option<OnRunc> {
        let of = |wanted: &str| self.on_runc.iter().find(|(name, _)| *name == wanted).map(|(_, mark)| *mark);
        of(test.name).or_else(|| of(ALL_OTHERS))
    }
}

/// How a test fares on runc. The text is for the reader: why croft is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRunc {
    /// Not run: it needs something that only croft-oci has.
    CroftOnly(&'static str),
    /// Run, and has to fail: a newer runc that passes shows in the suite.
    Fails(&'static str),
    /// Run, and may pass or fail: a race that runc loses when it is unlucky.
    Races(&'static str),
}

/// Runs `subjects` with the arguments of the command line (those of `cargo test`), one test at a time unless
/// `--test-threads` says otherwise, in namespaces of the suite's own. `sources` is the folder of the subjects' files.
pub fn main(subjects: &'static [Subject], sources: &'static str) -> ExitCode {
    main_of(Host::look, subjects, sources)
}

/// As [`main`], with what `look` finds as the host: [`Host::of`] for a runtime of the suite's own choice.
pub fn main_of(look: fn() -> Result<Host>, subjects: &'static [Subject], sources: &'static str) -> ExitCode {
    match run(look, subjects, sources) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("integration: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(look: fn() -> Result<Host>, subjects: &'static [Subject], sources: &'static str) -> Result<ExitCode> {
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert(1);
    let is_apart = rustix::process::geteuid().is_root() && !args.list;
    let outside = is_apart.then(Host::settle_apart).transpose()?;
    let host = Arc::new(Host { outside: outside.map(Arc::new), ..look()? });
    check_marks(subjects)?;
    let ignored = Arc::new(Mutex::new(BTreeMap::new()));
    let mut trials = vec![Trial::ignorable_test("suite::every_file_is_listed", move || {
        every_file_is_listed(subjects, sources).map_err(|e| Failed::from(format!("{e:#}")))
    })];
    for subject in subjects {
        trials.extend(subject.tests.iter().map(|test| trial(subject, test, &host, &ignored)));
    }
    if !args.list {
        println!("runtime under test: {}", host.runtime.display());
    }
    let conclusion = libtest_mimic::run(&args, trials);
    let ignored = ignored.lock().expect("no test panics while it holds the count");
    for (reason, count) in ignored.iter() {
        println!("ignored {count}: {reason}");
    }
    let left = if args.list { Vec::new() } else { sweep::sweep(&host)? };
    left.iter().for_each(|line| println!("left behind: {line}"));
    // A test that failed half-way may leave things, also where it had to; tests that all passed may not.
    if conclusion.has_failed() || left.is_empty() || host.kind != RuntimeKind::CroftOci {
        return Ok(conclusion.exit_code());
    }
    bail!("every test passed, and {} things are left behind", left.len())
}

type Count = Arc<Mutex<BTreeMap<String, usize>>>;

fn trial(subject: &'static Subject, test: &'static Test, host: &Arc<Host>, ignored: &Count) -> Trial {
    let (host, ignored) = (Arc::clone(host), Arc::clone(ignored));
    Trial::ignorable_test(format!("{}::{}", subject.name, test.name), move || {
        let mark = subject.mark(test);
        if let Some(reason) = reason_to_ignore(test, mark, &host) {
            *ignored
                .lock()
                .expect("no test panics while it holds the count")
                .entry(reason.clone())
                .or_default() += 1;
            return Ok(Completion::ignored_with(reason));
        }
        let watch = watch(test, &host);
        let result = (test.run)(&host);
        drop(watch);
        reap();
        judge(result, mark, &host).map(|()| Completion::Completed)
    })
}

/// Ends the whole suite when `test` is past [`TEST_LIMIT`], unless what this gives is dropped before: a test that waits for what
/// never comes would hold everything up.
fn watch(test: &'static Test, host: &Arc<Host>) -> mpsc::Sender<()> {
    let (ended, watched) = mpsc::channel();
    let host = Arc::clone(host);
    std::thread::spawn(move || {
        if watched.recv_timeout(TEST_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("integration: {} is past {} s, here everything ends", test.name, TEST_LIMIT.as_secs());
            if let Err(error) = sweep::sweep(&host) {
                eprintln!("integration: {error:#}");
            }
            std::process::exit(1);
        }
    });
    ended
}

fn reason_to_ignore(test: &Test, mark: Option<OnRunc>, host: &Host) -> Option<String> {
    if let (RuntimeKind::Runc | RuntimeKind::Crun, Some(OnRunc::CroftOnly(reason))) = (host.kind, mark) {
        return Some(format!("croft-oci only: {reason}"));
    }
    let missing = test.requires.iter().find_map(|facility| facility.missing(host))?;
    Some(format!("needs {missing}"))
}

fn judge(result: Result<()>, mark: Option<OnRunc>, host: &Host) -> Result<(), Failed> {
    match (result, mark) {
        (Err(_), Some(OnRunc::Fails(_) | OnRunc::Races(_))) if host.kind == RuntimeKind::Runc => Ok(()),
        (Ok(()), Some(OnRunc::Fails(reason))) if host.kind == RuntimeKind::Runc => {
            Err(Failed::from(format!("runc passes, though it is marked to fail: {reason}")))
        }
        (result, _) => result.map_err(|e| Failed::from(format!("{e:#}"))),
    }
}

/// Takes the exit statuses of orphans: the suite is their subreaper, and no child of its own runs between tests.
fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

/// Every mark names a test of its subject.
fn check_marks(subjects: &[Subject]) -> Result<()> {
    for subject in subjects {
        for (name, _) in subject.on_runc {
            if *name != ALL_OTHERS && !subject.tests.iter().any(|test| test.name == *name) {
                bail!("{}: a mark for {name}, which is no test of it", subject.name);
            }
        }
    }
    Ok(())
}

fn every_file_is_listed(subjects: &[Subject], sources: &str) -> Result<Completion> {
    if !Path::new(sources).exists() {
        return Ok(Completion::ignored_with("the sources are not on this host"));
    }
    for entry in std::fs::read_dir(sources).with_context(|| format!("read {sources}"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let stem = name.strip_suffix(".rs").unwrap_or(&name);
        if stem != "main" && !subjects.iter().any(|s| s.name == stem) {
            bail!("{sources}/{name} is not among the subjects in main.rs");
        }
    }
    Ok(Completion::Completed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSES: Test = Test { name: "passes", requires: &[], run: |_| Ok(()) };

    fn host(kind: RuntimeKind) -> Host {
        Host {
            runtime: "/usr/sbin/runc".into(),
            kind,
            cgroup2: None,
            cgroup1: BTreeMap::new(),
            capabilities: 0,
            marker: "croft-test-0".into(),
            outside: None,
        }
    }

    #[test]
    fn a_missing_facility_ignores_the_test_and_names_it() {
        let test = Test { requires: &[Facility::Path("/proc"), Facility::SYS_RESOURCE], ..PASSES };
        let reason = reason_to_ignore(&test, None, &host(RuntimeKind::CroftOci));
        assert_eq!(reason.as_deref(), Some("needs CAP_SYS_RESOURCE"));
    }

    #[test]
    fn a_croft_only_test_runs_on_croft_alone() {
        let mark = Some(OnRunc::CroftOnly("plan"));
        assert!(reason_to_ignore(&PASSES, mark, &host(RuntimeKind::Runc)).is_some());
        assert!(reason_to_ignore(&PASSES, mark, &host(RuntimeKind::CroftOci)).is_none());
    }

    #[test]
    fn a_test_marked_to_fail_on_runc_fails_when_runc_passes_it() {
        let mark = Some(OnRunc::Fails("why"));
        assert!(judge(Ok(()), mark, &host(RuntimeKind::Runc)).is_err());
        assert!(judge(Err(anyhow::anyhow!("x")), mark, &host(RuntimeKind::Runc)).is_ok());
        assert!(judge(Err(anyhow::anyhow!("x")), mark, &host(RuntimeKind::CroftOci)).is_err());
    }

    #[test]
    fn a_mark_of_its_own_goes_before_that_for_all_others() {
        let on_runc = &[("*", OnRunc::CroftOnly("why")), ("passes", OnRunc::Races("why"))];
        let subject = Subject { name: "s", tests: &[], on_runc };
        assert_eq!(subject.mark(&PASSES), Some(OnRunc::Races("why")));
        assert_eq!(subject.mark(&Test { name: "other", ..PASSES }), Some(OnRunc::CroftOnly("why")));
    }

    #[test]
    fn a_race_may_end_either_way_on_runc_alone() {
        let mark = Some(OnRunc::Races("why"));
        let failed = || Err(anyhow::anyhow!("x"));
        assert!(judge(Ok(()), mark, &host(RuntimeKind::Runc)).is_ok());
        assert!(judge(failed(), mark, &host(RuntimeKind::Runc)).is_ok());
        assert!(judge(failed(), mark, &host(RuntimeKind::CroftOci)).is_err());
    }

    #[test]
    fn a_file_that_is_no_subject_is_found() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("forgotten.rs"), "").unwrap();
        let error = every_file_is_listed(&[], dir.path().to_str().unwrap()).err().unwrap();
        assert!(error.to_string().contains("forgotten.rs"));
    }
}
