//! v1's devices controller: cgroup-v1/devices.rst.

use super::{Allowance, Verdict};
use crate::cgroup::{OnMissing, Version, Write};

/// The controller's name.
pub(super) const CONTROLLER: &str = "devices";

/// The writes that bring a group to this, whatever it held before: the default, then the exceptions.
pub(super) fn writes(allowance: &Allowance) -> Vec<Write> {
    let (default, exception) = match allowance.default() {
        Verdict::Deny => ("devices.deny", "devices.allow"),
        Verdict::Allow => ("devices.allow", "devices.deny"),
    };
    let exceptions =
        allowance.exceptions().map(|(nodes, access)| write(exception, format!("{nodes} {access}")));
    [write(default, "a".to_owned())].into_iter().chain(exceptions).collect()
}

fn write(file: &str, value: String) -> Write {
    Write {
        property: "devices".to_owned(),
        controller: CONTROLLER.to_owned(),
        version: Version::V1,
        file: file.to_owned(),
        value,
        on_missing: OnMissing::Refuse {
            needs: "the v1 devices controller (CONFIG_CGROUP_DEVICE)".to_owned(),
        },
    }
}
