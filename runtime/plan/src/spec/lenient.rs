//! Parsing that forgives what runc forgives: names from a newer kernel or spec than oci-spec's strict enums know.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::SpecError;

/// Lists whose elements oci-spec knows as an enum: the path to the list, and the key of the name where an element is an object.
const LISTS: &[(&[&str], Option<&str>)] = &[
    (&["process", "capabilities", "bounding"], None),
    (&["process", "capabilities", "effective"], None),
    (&["process", "capabilities", "inheritable"], None),
    (&["process", "capabilities", "permitted"], None),
    (&["process", "capabilities", "ambient"], None),
    (&["process", "rlimits"], Some("type")),
    (&["linux", "seccomp", "architectures"], None),
];

/// Parses `bytes`; when a name in one of the lists above is unknown it is left out and named in a warning.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Vec<String>), SpecError> {
    let strict = match serde_json::from_slice::<T>(bytes) {
        Ok(parsed) => return Ok((parsed, Vec::new())),
        Err(e) => e,
    };
    let Ok(mut value) = serde_json::from_slice::<Value>(bytes) else {
        return Err(SpecError::Parse(strict.to_string()));
    };
    let mut warnings = Vec::new();
    for (path, key) in LISTS {
        drop_unknown(&mut value, path, *key, &mut warnings);
        // `exec --process` gives the process alone.
        if let Some(inside) = path.strip_prefix(&["process"]) {
            drop_unknown(&mut value, inside, *key, &mut warnings);
        }
    }
    serde_json::from_value(value)
        .map(|parsed| (parsed, warnings))
        .map_err(|_| SpecError::Parse(strict.to_string()))
}

fn drop_unknown(value: &mut Value, path: &[&str], key: Option<&str>, warnings: &mut Vec<String>) {
    let list = path.iter().try_fold(value, |v, name| v.get_mut(*name)).and_then(Value::as_array_mut);
    let Some(list) = list else { return };
    list.retain(|item| {
        let name = key.map_or(Some(item), |k| item.get(k)).and_then(Value::as_str).unwrap_or_default();
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
        Some(&"rlimits") => serde_json::from_value::<oci_spec::runtime::PosixRlimitType>(name).is_ok(),
        Some(&"architectures") => serde_json::from_value::<oci_spec::runtime::Arch>(name).is_ok(),
        _ => serde_json::from_value::<oci_spec::runtime::Capability>(name).is_ok(),
    }
}
