//! `pids.*`.

use super::Pids;
use super::reader::{ReadError, Reader, v1, v2};
use crate::cgroup::{CORE, Files, Source};

pub(super) fn read<F: Files>(reader: &mut Reader<'_, F>) -> Result<Pids, ReadError<F::Error>> {
    for at in [v1, v2] as [for<'a> fn(&'a str, &'a str) -> Source<'a>; 2] {
        let Some(current) = reader.number(at("pids", "pids.current"))? else { continue };
        let limit = reader.number(at("pids", "pids.max"))?.filter(|max| *max != u64::MAX);
        return Ok(Pids { current, limit: limit.unwrap_or(0) });
    }
    // Without the controller, the processes of the group itself.
    let processes = reader.text(v2(CORE, "cgroup.procs"))?.unwrap_or_default();
    Ok(Pids { current: processes.lines().count() as u64, limit: 0 })
}
