//! state.json: what is read comes back the same from what is written.
#![no_main]

use croft_engine::state::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(record) = Record::parse(bytes) else { return };
    let written = serde_json::to_vec(&record).expect("a record can be written");
    assert_eq!(Record::parse(&written).as_ref(), Ok(&record));
});
