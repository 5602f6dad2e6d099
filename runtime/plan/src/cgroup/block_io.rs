//! `blockIO`: weights and throttles ("IO" in cgroup-v2.rst, cgroup-v1/blkio-controller.rst, bfq-iosched.rst).

use oci_spec::runtime::{LinuxBlockIo, LinuxResources, LinuxThrottleDevice, LinuxWeightDevice};

use super::{At, Knob, Refusal, Table, Version};

const CONTROLLER: &str = "the io controller (CONFIG_BLK_CGROUP)";
const WEIGHTS: &str =
    "the BFQ scheduler (CONFIG_BFQ_GROUP_IOSCHED, module bfq) or iocost (CONFIG_BLK_CGROUP_IOCOST)";
const CFQ: &str = "the v1 blkio controller of a kernel before 5.0 with CONFIG_CFQ_GROUP_IOSCHED";

const WEIGHT: Knob = Knob {
    property: "blockIO.weight",
    v1: Some(At { controller: "blkio", file: "blkio.weight" }),
    v2: Some(At { controller: "io", file: "io.bfq.weight" }),
    needs: WEIGHTS,
};
/// Where a host without the first file has the weight.
const OTHER_WEIGHT: Knob = Knob {
    property: "blockIO.weight",
    v1: Some(At { controller: "blkio", file: "blkio.bfq.weight" }),
    v2: Some(At { controller: "io", file: "io.weight" }),
    needs: WEIGHTS,
};
const WEIGHT_DEVICE: Knob = Knob {
    property: "blockIO.weightDevice",
    v1: Some(At { controller: "blkio", file: "blkio.weight_device" }),
    v2: Some(At { controller: "io", file: "io.bfq.weight" }),
    needs: WEIGHTS,
};
const OTHER_WEIGHT_DEVICE: Knob = Knob {
    property: "blockIO.weightDevice",
    v1: Some(At { controller: "blkio", file: "blkio.bfq.weight_device" }),
    v2: Some(At { controller: "io", file: "io.weight" }),
    needs: WEIGHTS,
};
const LEAF_WEIGHT: Knob = Knob {
    property: "blockIO.leafWeight",
    v1: Some(At { controller: "blkio", file: "blkio.leaf_weight" }),
    v2: None,
    needs: CFQ,
};
const LEAF_WEIGHT_DEVICE: Knob = Knob {
    property: "blockIO.weightDevice.leafWeight",
    v1: Some(At { controller: "blkio", file: "blkio.leaf_weight_device" }),
    v2: None,
    needs: CFQ,
};

const fn throttle(property: &'static str, v1_file: &'static str) -> Knob {
    let v1 = Some(At { controller: "blkio", file: v1_file });
    Knob { property, v1, v2: Some(At { controller: "io", file: "io.max" }), needs: CONTROLLER }
}
const READ_BPS: Knob = throttle("blockIO.throttleReadBpsDevice", "blkio.throttle.read_bps_device");
const WRITE_BPS: Knob = throttle("blockIO.throttleWriteBpsDevice", "blkio.throttle.write_bps_device");
const READ_IOPS: Knob = throttle("blockIO.throttleReadIOPSDevice", "blkio.throttle.read_iops_device");
const WRITE_IOPS: Knob = throttle("blockIO.throttleWriteIOPSDevice", "blkio.throttle.write_iops_device");

pub(super) fn write(resources: &LinuxResources, table: &mut Table<'_>) -> Result<(), Refusal> {
    let Some(io) = resources.block_io() else { return Ok(()) };
    if let Some(weight) = weight(&WEIGHT, io.weight())? {
        let version = table.place(&WEIGHT)?;
        table.put_or((&WEIGHT, weight.to_string()), (&OTHER_WEIGHT, other_weight(weight, version)), version);
    }
    if let Some(weight) = weight(&LEAF_WEIGHT, io.leaf_weight())? {
        let version = table.place(&LEAF_WEIGHT)?;
        table.put(&LEAF_WEIGHT, version, weight);
    }
    for device in io.weight_device().iter().flatten() {
        weight_device(device, table)?;
    }
    for (knob, key, devices) in throttles(io) {
        for device in devices.iter().flatten() {
            let version = table.place(knob)?;
            let number = number(knob, device.major(), device.minor())?;
            let value = match (version, device.rate()) {
                (Version::V1, rate) => format!("{number} {rate}"),
                // v1 takes a rate of 0 as "no limit"; v2 has a word for that and refuses 0.
                (Version::V2, 0) => format!("{number} {key}=max"),
                (Version::V2, rate) => format!("{number} {key}={rate}"),
            };
            table.put(knob, version, value);
        }
    }
    Ok(())
}

type Throttle<'a> = (&'static Knob, &'static str, &'a Option<Vec<LinuxThrottleDevice>>);

/// The throttles, with the key that each has in `io.max`.
fn throttles(io: &LinuxBlockIo) -> [Throttle<'_>; 4] {
    [
        (&READ_BPS, "rbps", io.throttle_read_bps_device()),
        (&WRITE_BPS, "wbps", io.throttle_write_bps_device()),
        (&READ_IOPS, "riops", io.throttle_read_iops_device()),
        (&WRITE_IOPS, "wiops", io.throttle_write_iops_device()),
    ]
}

fn weight_device(device: &LinuxWeightDevice, table: &mut Table<'_>) -> Result<(), Refusal> {
    let number = number(&WEIGHT_DEVICE, device.major(), device.minor())?;
    if let Some(weight) = weight(&WEIGHT_DEVICE, device.weight())? {
        let version = table.place(&WEIGHT_DEVICE)?;
        let other = format!("{number} {}", other_weight(weight, version));
        table.put_or((&WEIGHT_DEVICE, format!("{number} {weight}")), (&OTHER_WEIGHT_DEVICE, other), version);
    }
    if let Some(weight) = weight(&LEAF_WEIGHT_DEVICE, device.leaf_weight())? {
        let version = table.place(&LEAF_WEIGHT_DEVICE)?;
        table.put(&LEAF_WEIGHT_DEVICE, version, format!("{number} {weight}"));
    }
    Ok(())
}

/// A weight of the spec: 10 to 1000, 0 for not set.
fn weight(knob: &Knob, weight: Option<u16>) -> Result<Option<u16>, Refusal> {
    match weight {
        None | Some(0) => Ok(None),
        Some(10..=1000) => Ok(weight),
        Some(weight) => Err(Refusal::value(knob.property, weight, "valid range is 10-1000")),
    }
}

/// The weight for the second file: the same number on v1; on v2 `io.weight` goes from 1 to 10000, and runc stretches
/// 10..1000 over it.
fn other_weight(weight: u16, version: Version) -> String {
    match version {
        Version::V1 => weight.to_string(),
        Version::V2 => (1 + (u32::from(weight) - 10) * 9999 / 990).to_string(),
    }
}

/// A device as cgroup files name it: `8:0`.
fn number(knob: &Knob, major: i64, minor: i64) -> Result<String, Refusal> {
    let number = format!("{major}:{minor}");
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(_), Ok(_)) => Ok(number),
        _ => Err(Refusal::value(knob.property, number, "not a device number")),
    }
}
