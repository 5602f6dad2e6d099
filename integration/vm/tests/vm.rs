//! Machines that boot. Each takes a few seconds; the first run builds the image.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use croft_vm::{Access, Init, Outcome, Share, Streams, Vm};

struct Ended {
    outcome: Outcome,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Ended {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Runs a shell script in the machine.
fn run(vm: &Vm, script: &str) -> Result<Ended> {
    let command: Vec<OsString> = ["sh", "-c", script].map(OsString::from).into();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let outcome = vm.run(&command, Streams { stdout: &mut stdout, stderr: &mut stderr })?;
    Ok(Ended { outcome, stdout, stderr })
}

fn share(name: &str, dir: &Path, access: Access) -> Vm {
    Vm { shares: vec![Share::new(name, dir, access).expect("the folder is there")], ..Vm::new() }
}

#[test]
fn the_status_is_the_commands() {
    for (script, status) in [("true", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("/no/such/program", 127)] {
        let ended = run(&Vm::new(), script).unwrap();
        assert_eq!(
            ended.outcome,
            Outcome::Exited(status),
            "{script}: {}",
            String::from_utf8_lossy(&ended.stderr)
        );
    }
}

#[test]
fn the_host_is_a_unified_one_with_every_capability() {
    let script = "stat -f -c %T /sys/fs/cgroup; cat /sys/fs/cgroup/cgroup.subtree_control /proc/self/cgroup; \
                  capsh --decode=$(awk '/CapEff/{print $2}' /proc/self/status); cat /proc/1/comm";
    let ended = run(&Vm::new(), script).unwrap();
    let text = ended.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines[2]), ("cgroup2fs", "0::/"), "{text}");
    for controller in ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"] {
        assert!(lines[1].split(' ').any(|found| found == controller), "{text}");
    }
    assert!(lines[3].contains("cap_sys_resource") && lines[3].contains("cap_sys_admin"), "{text}");
    assert_eq!(lines[4], "croft-init");
}

#[test]
fn output_arrives_whole_and_apart_even_when_something_keeps_it_open() {
    let dir = tempfile::tempdir().unwrap();
    // Every byte value, in an order that shows what is lost or swapped.
    let data: Vec<u8> =
        (0..6_000_000u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(dir.path().join("data"), &data).unwrap();
    let vm = share("data", dir.path(), Access::ReadOnly);
    let script = "cat /data/data & head -c 3000000 /data/data >&2; wait; sleep 1000 & echo again > /dev/stdout; exit 3";
    let ended = run(&vm, script).unwrap();
    assert_eq!(ended.outcome, Outcome::Exited(3));
    assert_eq!(ended.stdout.len(), data.len() + 6);
    assert!(ended.stdout == [data.as_slice(), b"again\n"].concat(), "standard output differs");
    assert!(ended.stderr == data[..3_000_000], "standard error differs");
}

#[test]
fn a_read_only_share_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "before").unwrap();
    let vm = share("data", dir.path(), Access::ReadOnly);
    let script = "cat /data/file; echo after > /data/file && exit 1; mount -o remount,rw /data
                  echo after > /data/file && exit 2; rm /data/file && exit 3; mkdir /data/new && exit 4; exit 0";
    let ended = run(&vm, script).unwrap();
    assert_eq!((ended.outcome, ended.text().as_str()), (Outcome::Exited(0), "before"));
    assert_eq!(fs::read_to_string(dir.path().join("file")).unwrap(), "before");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_is_written_to_a_writable_share_is_there_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let ended = run(&share("out", dir.path(), Access::ReadWrite), "seq 100000 > /out/numbers").unwrap();
    assert_eq!(ended.outcome, Outcome::Exited(0));
    let numbers = fs::read_to_string(dir.path().join("numbers")).unwrap();
    assert!(numbers.starts_with("1\n2\n") && numbers.ends_with("\n100000\n"));
}

#[test]
fn the_limit_ends_the_machine_and_what_was_written_is_kept() {
    let vm = Vm { limit: Duration::from_secs(30), ..Vm::new() };
    let ended = run(&vm, "echo started; sleep 1000").unwrap();
    assert_eq!((ended.outcome, ended.text().as_str()), (Outcome::TimedOut, "started\n"));
}

#[test]
fn a_machine_that_dies_is_an_error_with_its_console() {
    let error = run(&Vm::new(), "echo c > /proc/sysrq-trigger; sleep 1000").err().unwrap();
    let error = format!("{error:#}");
    assert!(error.contains("without a status") && error.contains("Kernel panic"), "{error}");
    assert!(error.contains("boot 1 of"), "the job ran again: {error}");
}

#[test]
fn two_machines_run_at_once_and_keep_their_disks_apart() {
    let results = std::thread::scope(|scope| {
        let start = |word: &'static str| {
            scope.spawn(move || {
                run(&Vm::new(), &format!("cat /etc/mark; echo {word} > /etc/mark; cat /etc/mark")).unwrap()
            })
        };
        [start("one"), start("two")].map(|thread| thread.join().unwrap().text())
    });
    assert_eq!(results, ["one\n", "two\n"]);
}

#[test]
fn systemd_runs_the_command_in_a_delegated_unit() {
    let vm = Vm { init: Init::Systemd, ..Vm::new() };
    let script = "cat /proc/1/comm /proc/self/cgroup; systemctl show -P Delegate croft-job.service
                  systemd-run --quiet --scope cat /proc/self/cgroup; systemctl --failed --quiet; sleep 1000 & exit 9";
    let ended = run(&vm, script).unwrap();
    assert_eq!(ended.outcome, Outcome::Exited(9), "{}", String::from_utf8_lossy(&ended.stderr));
    let text = ended.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3], ["systemd", "0::/system.slice/croft-job.service", "yes"]);
    assert!(lines[3].starts_with("0::/system.slice/run-") && lines[3].ends_with(".scope"), "{text}");
    assert_eq!(lines.len(), 4, "units failed: {text}");
}

#[test]
fn callers_and_their_tools_are_in_the_image() {
    let script = "for name in runc crun criu podman conmon containerd ctr dockerd docker strace busybox python3 jq ip nft \
                  iptables newuidmap pasta bwrap; do command -v $name > /dev/null || echo missing: $name; done
                  modprobe -a veth bridge nf_tables tun overlay br_netfilter && criu check --all && id -u user
                  grep user /etc/subuid /etc/subgid; command -v ls";
    let ended = run(&Vm::new(), script).unwrap();
    let expected =
        "Looks good.\n1000\n/etc/subuid:user:100000:65536\n/etc/subgid:user:100000:65536\n/usr/bin/ls\n";
    assert_eq!(ended.text(), expected, "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn a_share_that_cannot_be_is_refused() {
    let refused =
        |name: &str, dir: &str| Share::new(name, Path::new(dir), Access::ReadOnly).unwrap_err().to_string();
    assert!(refused("data", "/no/such/folder").contains("/no/such/folder"));
    assert!(refused("data", "/etc/passwd").contains("not a folder"));
    assert!(refused("a/b", "/etc").contains("a/b"));
    assert!(refused("stdout", "/etc").contains("taken"));
}

/// Too little memory for the kernel's own start, on purpose.
#[test]
fn a_panic_before_the_job_is_tried_again_and_then_an_error() {
    let vm = Vm { memory_mib: 72, ..Vm::new() };
    let error = run(&vm, "true").err().expect("the kernel needs more memory");
    let error = format!("{error:#}");
    assert!(error.contains("boot 3 of 3") && error.contains("Kernel panic"), "{error}");
}
