//! Parsing that forgives what runc forgives: names from a newer kernel or spec than oci-spec's strict enums know.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::SpecError;

/// Lists of names that oci-spec knows as an enum. A limit's name is not among them: the spec has an unknown one be an error.
const LISTS: &[&[&str]] = &[
    &["process", "capabilities", "bounding"],
    &["process", "capabilities", "effective"],
    &["process", "capabilities", "inheritable"],
    &["process", "capabilities", "permitted"],
    &["process", "capabilities", "ambient"],
    &["linux", "seccomp", "architectures"],
];

/// Parses `bytes`; when a name in one of the lists above is unknown it is left out and named in a warning.
///
/// The strict parser goes first, being the fast one; `doubtful` tells when what it made of the text may not be what the
/// text means.
pub(super) fn parse<T: DeserializeOwned>(
    bytes: &[u8],
    doubtful: fn(&T) -> bool,
) -> Result<(T, Vec<String>), SpecError> {
    let strict = match serde_json::from_slice::<T>(bytes) {
        Ok(parsed) if !doubtful(&parsed) => return Ok((parsed, Vec::new())),
        Ok(_) => String::new(),
        Err(e) => e.to_string(),
    };
    let mut value = match serde_json::from_slice::<Value>(bytes) {
        Ok(value) => value,
        Err(e) => return Err(SpecError::Parse(super::short(e.to_string()))),
    };
    let mut warnings = Vec::new();
    rename_scheduler_flags(value.pointer_mut("/process/scheduler/flags"));
    rename_scheduler_flags(value.pointer_mut("/scheduler/flags"));
    for pointer in ["/linux/resources", ""] {
        if let Some(resources) = value.pointer_mut(pointer) {
            crate::cgroup::prepass(resources);
        }
    }
    for path in LISTS {
        drop_unknown(&mut value, path, &mut warnings);
        // `exec --process` gives the process alone.
        if let Some(inside) = path.strip_prefix(&["process"]) {
            drop_unknown(&mut value, inside, &mut warnings);
        }
    }
    serde_path_to_error::deserialize(value).map(|parsed| (parsed, warnings)).map_err(|e| {
        // Where in the text it is, when it is what the first look stumbled over too.
        let (path, why) = (e.path().to_string(), e.inner().to_string());
        let place = strict.strip_prefix(&why).map(str::to_owned).unwrap_or_default();
        SpecError::Shape { property: path, why: format!("{}{place}", super::short(why)) }
    })
}

/// Two of oci-spec's names for scheduler flags are not the spec's.
fn rename_scheduler_flags(flags: Option<&mut Value>) {
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => *flag = "SCHED_RESET_ON_FORK".into(),
            Some("SCHED_FLAG_DL_OVERRUN") => *flag = "SCHED_FLAG_D_L_OVERRUN".into(),
            _ => {}
        }
    }
}

fn drop_unknown(value: &mut Value, path: &[&str], warnings: &mut Vec<String>) {
    let list = path.iter().try_fold(value, |v, name| v.get_mut(*name)).and_then(Value::as_array_mut);
    let Some(list) = list else { return };
    list.retain(|item| {
        let name = item.as_str().unwrap_or_default();
        let known = is_known(path, name);
        if !known {
            let warning = format!("ignored {}: unknown name {name:?}", path.join("."));
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        known
    });
}

fn is_known(path: &[&str], name: &str) -> bool {
    let name = Value::String(name.to_owned());
    match path.last() {
        Some(&"architectures") => serde_json::from_value::<oci_spec::runtime::Arch>(name).is_ok(),
        _ => serde_json::from_value::<oci_spec::runtime::Capability>(name).is_ok(),
    }
}
