//! What Go's types allow in `linux.resources` and oci-spec's do not.

use serde_json::Value;

/// Makes the JSON of `linux.resources` (or of `update --resources`) mean to oci-spec what it means to runc:
///
/// - a `pids` without a limit is no request: oci-spec would read a limit of 0;
/// - a hugepage limit is unsigned in the spec, signed in oci-spec: what is larger than any memory becomes the largest
///   signed number, which the kernel rounds to "max" alike.
pub fn prepass(resources: &mut Value) {
    let Some(resources) = resources.as_object_mut() else { return };
    if resources
        .get("pids")
        .is_some_and(|pids| pids.is_object() && pids.get("limit").is_none_or(Value::is_null))
    {
        resources.remove("pids");
    }
    let limits = resources.get_mut("hugepageLimits").and_then(Value::as_array_mut);
    for limit in limits.into_iter().flatten().filter_map(|entry| entry.get_mut("limit")) {
        if limit.as_u64().is_some_and(|bytes| i64::try_from(bytes).is_err()) {
            *limit = Value::from(i64::MAX);
        }
    }
}
