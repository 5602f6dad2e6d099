//! `*.pressure` of cgroup2 (accounting/psi.rst). A hybrid host has them for its cgroup2 groups as well.

use serde::Serializer;

use super::reader::{Read, ReadError, Reader, malformed, number, v2};
use super::{Pressure, PressureLine};
use crate::cgroup::{Files, Source};

/// The pressure in this file. There is none without CONFIG_PSI, and while `cgroup.pressure` is 0.
pub(super) fn read<F: Files>(reader: &mut Reader<'_, F>, controller: &str, file: &str) -> Read<Pressure, F> {
    let source = v2(controller, file);
    let Some(text) = reader.text(source)? else { return Ok(None) };
    let mut pressure = Pressure::default();
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("some", numbers)) => pressure.some = parse(source, numbers)?,
            Some(("full", numbers)) => pressure.full = parse(source, numbers)?,
            _ => {}
        }
    }
    Ok(Some(pressure))
}

fn parse<E>(source: Source<'_>, numbers: &str) -> Result<PressureLine, ReadError<E>> {
    let mut line = PressureLine::default();
    for word in numbers.split(' ') {
        let (key, value) = word.split_once('=').ok_or_else(|| malformed(source, word))?;
        let percent = || value.parse().map_err(|_| malformed(source, word));
        match key {
            "avg10" => line.avg10 = percent()?,
            "avg60" => line.avg60 = percent()?,
            "avg300" => line.avg300 = percent()?,
            "total" => line.total = number(source, value)?,
            _ => {}
        }
    }
    Ok(line)
}

/// A number as Go's JSON has it: a whole one without a fraction.
pub(super) fn as_go<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    match number.fract() == 0.0 && (0.0..1e15).contains(number) {
        true => serializer.serialize_u64(*number as u64),
        false => serializer.serialize_f64(*number),
    }
}
