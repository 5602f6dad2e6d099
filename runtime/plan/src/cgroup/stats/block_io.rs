//! `blkio.*` on v1, `io.stat` on cgroup2.

use super::reader::{Read, ReadError, Reader, malformed, number, v1, v2};
use super::{BlockIo, BlockIoEntry, pressure};
use crate::cgroup::{Files, Version};

pub(super) fn read<F: Files>(reader: &mut Reader<'_, F>) -> Result<BlockIo, ReadError<F::Error>> {
    let io = match reader.host.has("blkio", Version::V1) {
        true => read_v1(reader)?,
        false => read_v2(reader)?,
    };
    Ok(BlockIo { psi: pressure::read(reader, "io", "io.pressure")?, ..io })
}

/// A field of [`BlockIo`], to be filled from a file.
type Field = fn(&mut BlockIo) -> &mut Vec<BlockIoEntry>;

const BYTES: Field = |io| &mut io.io_service_bytes_recursive;
const SERVICED: Field = |io| &mut io.io_serviced_recursive;
const QUEUED: Field = |io| &mut io.io_queued_recursive;
const SERVICE_TIME: Field = |io| &mut io.io_service_time_recursive;
const WAIT_TIME: Field = |io| &mut io.io_wait_time_recursive;
const MERGED: Field = |io| &mut io.io_merged_recursive;
const TIME: Field = |io| &mut io.io_time_recursive;
const SECTORS: Field = |io| &mut io.sectors_recursive;

/// The files of v1, which depend on the scheduler of the disks, in runc's order: the first set whose first file says
/// anything is the one.
const SETS: &[&[(&str, Field)]] = &[
    // BFQ with CONFIG_BFQ_CGROUP_DEBUG.
    &[
        ("blkio.bfq.sectors_recursive", SECTORS),
        ("blkio.bfq.io_service_time_recursive", SERVICE_TIME),
        ("blkio.bfq.io_wait_time_recursive", WAIT_TIME),
        ("blkio.bfq.io_merged_recursive", MERGED),
        ("blkio.bfq.io_queued_recursive", QUEUED),
        ("blkio.bfq.time_recursive", TIME),
        ("blkio.bfq.io_serviced_recursive", SERVICED),
        ("blkio.bfq.io_service_bytes_recursive", BYTES),
    ],
    &[("blkio.bfq.io_serviced_recursive", SERVICED), ("blkio.bfq.io_service_bytes_recursive", BYTES)],
    // CFQ, before Linux 5.0.
    &[
        ("blkio.sectors_recursive", SECTORS),
        ("blkio.io_service_time_recursive", SERVICE_TIME),
        ("blkio.io_wait_time_recursive", WAIT_TIME),
        ("blkio.io_merged_recursive", MERGED),
        ("blkio.io_queued_recursive", QUEUED),
        ("blkio.time_recursive", TIME),
        ("blkio.io_serviced_recursive", SERVICED),
        ("blkio.io_service_bytes_recursive", BYTES),
    ],
    &[
        ("blkio.throttle.io_serviced_recursive", SERVICED),
        ("blkio.throttle.io_service_bytes_recursive", BYTES),
    ],
    &[("blkio.throttle.io_serviced", SERVICED), ("blkio.throttle.io_service_bytes", BYTES)],
];

fn read_v1<F: Files>(reader: &mut Reader<'_, F>) -> Result<BlockIo, ReadError<F::Error>> {
    let mut io = BlockIo::default();
    for set in SETS {
        for (file, field) in *set {
            match entries_v1(reader, file)? {
                Some(entries) if !entries.is_empty() => *field(&mut io) = entries,
                _ => break,
            }
        }
        if io != BlockIo::default() {
            break;
        }
    }
    Ok(io)
}

/// Lines `MAJOR:MINOR OPERATION NUMBER`, or without the operation; a line `Total NUMBER` sums them up.
fn entries_v1<F: Files>(reader: &mut Reader<'_, F>, file: &str) -> Read<Vec<BlockIoEntry>, F> {
    let source = v1("blkio", file);
    let Some(text) = reader.text(source)? else { return Ok(None) };
    let line = |line: &str| {
        let words: Vec<&str> = line.split([' ', ':']).collect();
        let (major, minor, op, value) = match words.as_slice() {
            [major, minor, op, value] => (major, minor, *op, value),
            [major, minor, value] => (major, minor, "", value),
            _ => return Err(malformed(source, line)),
        };
        let (major, minor, value) = (number(source, major)?, number(source, minor)?, number(source, value)?);
        Ok(BlockIoEntry { major, minor, op: op.to_owned(), value })
    };
    text.lines().filter(|line| !line.starts_with("Total")).map(line).collect::<Result<_, _>>().map(Some)
}

/// Lines `MAJOR:MINOR KEY=NUMBER ...`. Other keys (discards, iocost) have no name in v1 and are passed over, as by
/// runc; so are devices without any.
fn read_v2<F: Files>(reader: &mut Reader<'_, F>) -> Result<BlockIo, ReadError<F::Error>> {
    let source = v2("io", "io.stat");
    let text = reader.text(source)?.unwrap_or_default();
    let mut io = BlockIo::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else { continue };
        let (major, minor) = (number(source, major)?, number(source, minor)?);
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (field, op) = match key {
                "rbytes" => (BYTES, "Read"),
                "wbytes" => (BYTES, "Write"),
                "rios" => (SERVICED, "Read"),
                "wios" => (SERVICED, "Write"),
                _ => continue,
            };
            let value = number(source, value)?;
            field(&mut io).push(BlockIoEntry { major, minor, op: op.to_owned(), value });
        }
    }
    Ok(io)
}
