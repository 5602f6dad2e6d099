//! `exec --process`: parsed, and made a plan for each kind of host, which is printed.
#![no_main]

use croft_plan::build::{ExecRequest, Keyring, build_exec};
use croft_plan::spec::{NamespaceKind, Spec, parse_process};
use croft_plan::step::{Groups, Slot};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let own = Spec::parse(include_bytes!("../seeds/config/runc.json"))
        .expect("the seed is a configuration")
        .process;
    let Ok((process, _)) = parse_process(bytes, &own) else { return };
    for facts in croft_fuzz::facts() {
        let request = ExecRequest {
            id: "box".into(),
            namespaces: vec![(Slot(0), NamespaceKind::Mount), (Slot(1), NamespaceKind::User)],
            group: Some("/sys/fs/cgroup/unified/croft/box".into()),
            v1: vec!["/sys/fs/cgroup/pids/croft/box".into()],
            filter: None,
            keyring: Keyring::New,
            supplementary: Groups::Set,
        };
        match build_exec(&process, &facts, &request) {
            Ok(plan) => drop(plan.to_string()),
            Err(error) => drop(error.to_string()),
        }
    }
});
