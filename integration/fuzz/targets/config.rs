//! config.json: parsed, and made a plan for each kind of host, which is printed.
#![no_main]

use croft_plan::build::{Driver, Keyring, Request, RootSwitch, build};
use croft_plan::spec::Spec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(spec) = Spec::parse(bytes) else { return };
    for facts in croft_fuzz::facts() {
        for driver in [Driver::Cgroupfs, Driver::Systemd] {
            let request = Request {
                id: "box".into(),
                bundle: "/bundle".into(),
                rootfs: "/bundle/rootfs".into(),
                mount_point: "/run/box".into(),
                keyring: Keyring::New,
                root_switch: RootSwitch::Pivot,
                driver,
                mount_base: Some("/proc/7/fd/5".into()),
            };
            match build(&spec, &facts, &request) {
                Ok(plan) => drop(plan.to_string()),
                Err(error) => drop(error.to_string()),
            }
        }
    }
});
