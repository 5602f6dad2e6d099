//! `hugetlb.*`, by the sizes that the kernel has.

use std::collections::BTreeMap;

use super::Hugetlb;
use super::reader::{Read, ReadError, Reader, v1, v2};
use crate::cgroup::{Files, Version};

type Sizes = BTreeMap<String, Hugetlb>;

pub(super) fn read<F: Files>(reader: &mut Reader<'_, F>) -> Result<Sizes, ReadError<F::Error>> {
    let mut sizes = Sizes::new();
    for size in &reader.host.huge_pages {
        // Reservations, which the kernel counts since 5.7; before, what is used.
        for counter in [format!("hugetlb.{size}.rsvd"), format!("hugetlb.{size}")] {
            let found = match reader.host.has("hugetlb", Version::V1) {
                true => read_v1(reader, &counter)?,
                false => read_v2(reader, &counter)?,
            };
            if let Some(found) = found {
                sizes.insert(size.clone(), found);
                break;
            }
        }
    }
    Ok(sizes)
}

fn read_v1<F: Files>(reader: &mut Reader<'_, F>, counter: &str) -> Read<Hugetlb, F> {
    let mut number = |name: &str| reader.number(v1("hugetlb", &format!("{counter}.{name}")));
    let Some(usage) = number("usage_in_bytes")? else { return Ok(None) };
    let max = number("max_usage_in_bytes")?.unwrap_or(0);
    Ok(Some(Hugetlb { usage, max, failcnt: number("failcnt")?.unwrap_or(0) }))
}

fn read_v2<F: Files>(reader: &mut Reader<'_, F>, counter: &str) -> Read<Hugetlb, F> {
    let Some(usage) = reader.number(v2("hugetlb", &format!("{counter}.current")))? else { return Ok(None) };
    let events = reader.keyed(v2("hugetlb", &format!("{counter}.events")))?.unwrap_or_default();
    Ok(Some(Hugetlb { usage, max: 0, failcnt: events.get("max").copied().unwrap_or(0) }))
}
