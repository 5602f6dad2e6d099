//! A container's state as the runtime-spec and runc print it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use croft_plan::lifecycle::Status;
use croft_plan::spec::{OCI_VERSION, Spec};
use serde::Serialize;

use crate::state::Record;

/// The state of runtime-spec runtime.md, as hooks get it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OciState {
    oci_version: &'static str,
    id: String,
    status: Status,
    pid: i32,
    bundle: PathBuf,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl OciState {
    /// The state of a container.
    pub fn of(record: &Record, spec: &Spec, pid: i32, status: Status) -> Self {
        OciState {
            oci_version: OCI_VERSION,
            id: record.id.clone(),
            status,
            pid,
            bundle: record.bundle.clone(),
            annotations: spec.annotations.clone(),
        }
    }

    /// As JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// What `state` and `list` print: runc's form.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerState {
    /// The spec's version.
    pub oci_version: String,
    /// The container.
    pub id: String,
    /// Its process, 0 when there is none any more.
    pub pid: i32,
    /// Its state.
    pub status: Status,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Its root folder.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339 in UTC.
    pub created: String,
    /// Its annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The user that created it; a number where it has no name.
    pub owner: String,
}

/// The time now, as [`rfc3339`] gives it, to the second.
pub fn now() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    rfc3339(now.as_secs(), 0)
}

/// `seconds` and `nanoseconds` since 1970 as RFC 3339 in UTC, by the civil calendar (proleptic Gregorian).
pub fn rfc3339(seconds: u64, nanoseconds: u32) -> String {
    let (days, rest) = ((seconds / 86400) as i64, seconds % 86400);
    // Days are counted in eras of 400 years from 0000-03-01, so that leap days come last.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let fraction = format!("{nanoseconds:09}");
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{dot}{fraction}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(rfc3339(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400, 500_000_000), "2000-02-29T00:00:00.5Z");
        assert_eq!(rfc3339(1_795_255_150, 1), "2026-11-21T09:59:10.000000001Z");
    }
}
