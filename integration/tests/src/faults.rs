//! Every step of a plan fails in turn: the error names it, and nothing is left behind.
use anyhow::{Context, Result, bail, ensure};
use croft_harness::snapshot::Snapshot;
use croft_harness::suite::OnRunc;
use croft_harness::{Bundle, Facility, Host, Output, Subject, Test, build, process};
use serde_json::json;

use crate::namespaces::Holder;

const OURS: OnRunc = OnRunc::CroftOnly("runc has no plan whose steps could be named");

pub const SUBJECT: Subject = Subject {
    name: "faults",
    on_runc: &[("every_step", OURS), ("every_step_in_a_user_namespace", OURS)],
    tests: &[
        Test { name: "every_step", requires: &[Facility::Root, Facility::NotEmulated], run: every_step },
        Test {
            name: "every_step_in_a_user_namespace",
            requires: &[Facility::Root, Facility::NotEmulated],
            run: every_step_in_a_user_namespace,
        },
    ],
};

/// A container with a step of nearly every kind.
fn rich(host: &Host) -> Result<Bundle> {
    let host = Host { runtime: build::faulty_croft_oci()?, ..host.clone() };
    Ok(Bundle::new(&host, &["true"])?.edit(|config| {
        config["root"]["readonly"] = false.into();
        config["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
        config["linux"]["resources"]["pids"] = json!({ "limit": 100 });
        config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel.msgmax": "4096" });
        config["linux"]["devices"] = json!([{ "path": "/dev/croft", "type": "c", "major": 1, "minor": 3 }]);
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["kexec_load"], "action": "SCMP_ACT_ERRNO" }],
        });
        config["process"]["oomScoreAdj"] = 500.into();
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("the default has some");
        namespaces.push(json!({ "type": "cgroup" }));
        let mounts = config["mounts"].as_array_mut().expect("the default has some");
        mounts.push(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup" }));
        mounts.push(
            json!({ "destination": "/mnt", "type": "bind", "source": "/usr", "options": ["rbind", "rro"] }),
        );
        config["hooks"] = json!({
            "createRuntime": [{ "path": "/bin/true" }],
            "poststop": [{ "path": "/bin/true" }],
        });
    }))
}

fn every_step(host: &Host) -> Result<()> {
    fail_each(host, &rich(host)?, &[])
}

/// As croftd's containers are made: born in a mount namespace that is not the runtime's, who has to be back in its own to undo.
fn every_step_in_a_user_namespace(host: &Host) -> Result<()> {
    let base = Holder::new(&["--mount"])?;
    let bundle = rich(host)?.edit(|config| {
        // These would have it born among the host's mounts.
        config["hooks"]["createRuntime"] = json!([]);
        // Device nodes are those of the host there.
        config["linux"]["devices"] = json!([]);
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        config["linux"]["namespaces"]
            .as_array_mut()
            .expect("the default has some")
            .push(json!({ "type": "user" }));
    });
    fail_each(host, &bundle, &["--mount-base", &base.path("mnt")])
}

/// The lines of `plan` that are steps.
fn steps(bundle: &Bundle, options: &[&str]) -> Result<Vec<String>> {
    bundle.save()?;
    let mut command = bundle.command("plan");
    command.arg("--bundle").arg(bundle.folder()).arg("--id").arg(bundle.id()).args(options);
    let plan = process::run(&mut command, croft_harness::bundle::VERB_LIMIT)?.success()?.stdout;
    let steps = plan.lines().filter_map(|line| line.strip_prefix("  "));
    Ok(steps.filter(|line| !line.starts_with(' ')).map(str::to_owned).collect())
}

fn with_fault(bundle: &Bundle, verb: &str, options: &[&str], step: &str) -> Result<Output> {
    let mut command = bundle.command(verb);
    command.arg("--bundle").arg(bundle.folder()).args(options).arg(bundle.id()).env("CROFT_FAULT", step);
    process::run(&mut command, croft_harness::bundle::VERB_LIMIT)
}

fn fail_each(host: &Host, bundle: &Bundle, options: &[&str]) -> Result<()> {
    let look = || Snapshot::take(host, &[bundle.state_root()]);
    // The first run of all may leave a cache.
    bundle.run_with(options)?.success()?;
    let steps = steps(bundle, options)?;
    ensure!(steps.len() > 40, "only {} steps", steps.len());
    let joins = |step: &String| step.contains("mount namespace");
    ensure!(steps.iter().any(joins) != options.is_empty(), "{steps:#?}");
    let before = look()?;
    for verb in ["create", "run"] {
        for step in &steps {
            let out = with_fault(bundle, verb, options, step)?;
            let told = out.stderr.contains(step.as_str()) && out.stderr.contains("fault injected");
            if out.status.success() || !told {
                bail!("{verb} with {step:?} failing: {out}");
            }
            before.same_as(&look()?).with_context(|| format!("{verb} with {step:?} failing"))?;
        }
    }
    println!("faults: create and run, each with {} steps failing in turn", steps.len());
    bundle.run_with(options)?.success().map(drop)
}
