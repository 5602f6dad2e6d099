//! `run`, and the road from `create` to `delete`: output, exit status, states, and nothing left behind.
use std::time::Duration;

use anyhow::{Result, ensure};
use croft_harness::snapshot::Snapshot;
use croft_harness::{Bundle, Facility, Host, Subject, Test};

pub const SUBJECT: Subject = Subject {
    name: "run",
    on_runc: &[],
    tests: &[
        Test {
            name: "output_and_status_come_back",
            requires: &[Facility::Root],
            run: output_and_status_come_back,
        },
        Test { name: "every_state_in_turn", requires: &[Facility::Root], run: every_state_in_turn },
        Test { name: "exec_runs_inside", requires: &[Facility::Root], run: exec_runs_inside },
    ],
};

fn output_and_status_come_back(host: &Host) -> Result<()> {
    let bundle = Bundle::shell(host, "hostname; echo $$; echo oops >&2; exit 7")?;
    let before = Snapshot::take(host, &[bundle.state_root()])?;
    let out = bundle.run()?;
    ensure!(out.code() == 7, "{out}");
    ensure!(out.stdout == "croft-test\n1\n" && out.stderr == "oops\n", "{out}");
    before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)
}

fn every_state_in_turn(host: &Host) -> Result<()> {
    let bundle = Bundle::shell(host, "echo started; exec sleep 1000")?;
    let before = Snapshot::take(host, &[bundle.state_root()])?;
    bundle.create()?.success()?;
    ensure!(bundle.status()? == "created");
    bundle.start()?.success()?;
    ensure!(bundle.status()? == "running");
    let pid = bundle.pid()?;
    bundle.kill("KILL")?.success()?;
    bundle.ended(pid, Duration::from_secs(10))?;
    ensure!(bundle.status()? == "stopped");
    bundle.delete()?.success()?;
    bundle.verb("state", &[], &[])?.failure()?;
    before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)
}

fn exec_runs_inside(host: &Host) -> Result<()> {
    let bundle = Bundle::new(host, &["sleep", "1000"])?;
    bundle.started()?;
    let out = bundle.exec(&["/bin/sh", "-c", "hostname; exit 3"])?;
    ensure!(out.code() == 3 && out.stdout == "croft-test\n", "{out}");
    Ok(())
}
