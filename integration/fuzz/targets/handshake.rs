//! What init says, as packets that are lines here: no order of them loops or comes back from the end. The first byte is the plan.
#![no_main]

use croft_plan::handshake::{Event, Expect, FromHost, FromInit, State};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let expect = Expect { maps: first & 1 > 0, hooks: first & 2 > 0, listener: first & 4 > 0 };
    let (mut at, mut steps) = (State::Born, 0);
    for packet in rest.split(|byte| *byte == b'\n') {
        let _ = serde_json::from_slice::<FromHost>(packet);
        let event = match serde_json::from_slice::<FromInit>(packet) {
            Ok(said) => Event::Said(said),
            Err(_) if packet.is_empty() => Event::Closed,
            Err(_) => continue,
        };
        let ended = matches!(at, State::Gated | State::Failed);
        match at.next(&event, expect) {
            Ok(next) => {
                assert!(!ended, "{next:?} after {at:?}");
                at = next;
                steps += 1;
                assert!(steps <= 5, "a loop at {at:?}");
            }
            Err(error) => drop(error.to_string()),
        }
    }
});
