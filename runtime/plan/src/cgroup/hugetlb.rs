//! `hugepageLimits`: hugetlb pages by size (hugetlb in cgroup-v1 and cgroup-v2.rst).

use oci_spec::runtime::LinuxResources;

use super::{At, Knob, OnMissing, Refusal, Table, Version, Write};

const LIMIT: Knob = Knob {
    property: "hugepageLimits",
    v1: Some(At { controller: "hugetlb", file: "hugetlb.<size>.limit_in_bytes" }),
    v2: Some(At { controller: "hugetlb", file: "hugetlb.<size>.max" }),
    needs: "the hugetlb controller (CONFIG_CGROUP_HUGETLB)",
};

pub(super) fn write(resources: &LinuxResources, table: &mut Table<'_>) -> Result<(), Refusal> {
    for limit in resources.hugepage_limits().iter().flatten() {
        let version = table.place(&LIMIT)?;
        let size = limit.page_size();
        check_size(size, table, version)?;
        if limit.limit() < 0 {
            return Err(Refusal::value(LIMIT.property, limit.limit(), "must be a number of bytes"));
        }
        // The limit of what is used, and of what is reserved: mmap then fails early instead of SIGBUS late. The
        // second is there since Linux 5.7.
        let refuse = OnMissing::Refuse { needs: LIMIT.needs.to_owned() };
        for (reserved, on_missing) in [("", refuse), (".rsvd", OnMissing::Skip)] {
            table.push_write(Write {
                property: LIMIT.property.to_owned(),
                controller: "hugetlb".to_owned(),
                version,
                file: file(size, reserved, version),
                value: limit.limit().to_string(),
                on_missing,
            });
        }
    }
    Ok(())
}

fn file(size: &str, reserved: &str, version: Version) -> String {
    match version {
        Version::V1 => format!("hugetlb.{size}{reserved}.limit_in_bytes"),
        Version::V2 => format!("hugetlb.{size}{reserved}.max"),
    }
}

/// The size is part of a file name, so it must be one that this kernel has.
fn check_size(size: &str, table: &Table<'_>, version: Version) -> Result<(), Refusal> {
    if table.host.huge_pages.contains(size) {
        return Ok(());
    }
    let number = size.strip_suffix("KB").or(size.strip_suffix("MB")).or(size.strip_suffix("GB"));
    if !number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
        return Err(Refusal::value("hugepageLimits.pageSize", size, "must be a size as in 64KB, 2MB, 1GB"));
    }
    Err(Refusal::Nowhere {
        property: LIMIT.property.to_owned(),
        file: file(size, "", version),
        needs: format!("a kernel with huge pages of {size}"),
    })
}
