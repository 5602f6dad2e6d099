//! `update --resources`: parsed, and made writes and a device filter for each kind of host.
#![no_main]

use croft_plan::cgroup;
use croft_plan::devices::{Allowance, filter, rules};
use croft_plan::spec::parse_resources;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(resources) = parse_resources(bytes) else { return };
    for host in &croft_fuzz::cgroup_hosts() {
        let _ = cgroup::writes(&resources, host);
        let _ = cgroup::update(&resources, host, &cgroup::Current::default());
        let rules = rules(resources.devices().as_deref().unwrap_or_default());
        if let Ok(allowance) = rules.and_then(|rules| Allowance::of(&rules)) {
            let _ = filter(&allowance, host);
        }
    }
});
