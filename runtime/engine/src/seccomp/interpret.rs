//! Runs a seccomp program without the kernel: to know beforehand what it will do.
//!
//! What is not known of a call, its arguments mostly, is carried as unknown, and where the program decides by it, both ways are
//! followed. So the answer is a set: one element when all is known.

use croft_sys::seccomp::SockFilter;
use std::collections::BTreeSet;

/// A system call that a program judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Its number.
    pub number: u32,
    /// The architecture for which it is made (`AUDIT_ARCH_*`).
    pub architecture: u32,
    /// Its arguments.
    pub arguments: Arguments,
}

/// The arguments of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arguments {
    /// These.
    Known([u64; 6]),
    /// Any.
    Unknown,
}

/// A program that the kernel would refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("instruction {0} of the program is not one of seccomp's, or leads out of it")]
pub struct Malformed(pub usize);

/// A value that may be unknown.
type Value = Option<u32>;

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    next: usize,
    accumulator: Value,
    index: Value,
    memory: [Value; 16],
}

/// How many states a run may pass through before its outcome is called unknowable; libseccomp's programs need a few hundred.
const MOST_STATES: usize = 100_000;

/// All that `program` may return for `attempt` (`SECCOMP_RET_*` with its data).
pub fn outcomes(program: &[SockFilter], attempt: Attempt) -> Result<BTreeSet<u32>, Malformed> {
    let start = State { next: 0, accumulator: Some(0), index: Some(0), memory: [Some(0); 16] };
    let mut waiting = vec![start];
    let mut seen = BTreeSet::new();
    let mut returned = BTreeSet::new();
    while let Some(state) = waiting.pop() {
        if !seen.insert(state.clone()) {
            continue;
        }
        if seen.len() > MOST_STATES {
            return Err(Malformed(state.next));
        }
        let instruction = program.get(state.next).ok_or(Malformed(state.next))?;
        match step(*instruction, &attempt, state)? {
            Step::Return(value) => {
                returned.insert(value);
            }
            Step::Go(states) => waiting.extend(states),
        }
    }
    Ok(returned)
}

enum Step {
    Return(u32),
    Go(Vec<State>),
}

/// Classic BPF as seccomp allows it (kernel/seccomp.c, seccomp_check_filter). The numbers are those of linux/bpf_common.h.
fn step(instruction: SockFilter, attempt: &Attempt, mut state: State) -> Result<Step, Malformed> {
    let here = state.next;
    let malformed = Malformed(here);
    let k = instruction.k;
    state.next += 1;
    match instruction.code {
        0x20 => state.accumulator = word(attempt, k).ok_or(malformed)?,
        0x80 => state.accumulator = Some(64), // the length of struct seccomp_data
        0x81 => state.index = Some(64),
        0x00 => state.accumulator = Some(k),
        0x01 => state.index = Some(k),
        0x60 => state.accumulator = *state.memory.get(k as usize).ok_or(malformed)?,
        0x61 => state.index = *state.memory.get(k as usize).ok_or(malformed)?,
        0x02 => *state.memory.get_mut(k as usize).ok_or(malformed)? = state.accumulator,
        0x03 => *state.memory.get_mut(k as usize).ok_or(malformed)? = state.index,
        0x07 => state.index = state.accumulator,
        0x87 => state.accumulator = state.index,
        0x06 => return Ok(Step::Return(k)),
        // What is returned is the program's own choice of words: an unknown one could be anything.
        0x16 => return state.accumulator.map(Step::Return).ok_or(malformed),
        0x05 => state.next = here + 1 + k as usize,
        code if code & 0x07 == 0x05 => return jump(instruction, state).ok_or(malformed),
        code if code & 0x07 == 0x04 => {
            let operand = if code & 0x08 == 0 { Some(k) } else { state.index };
            state.accumulator = arithmetic(code & 0xf0, state.accumulator, operand).ok_or(malformed)?;
        }
        _ => return Err(malformed),
    }
    Ok(Step::Go(vec![state]))
}

/// Where a conditional jump leads: one place, or two if what it looks at is unknown. `None`: there is no such jump.
fn jump(instruction: SockFilter, state: State) -> Option<Step> {
    let operand = if instruction.code & 0x08 == 0 { Some(instruction.k) } else { state.index };
    let test = |a: u32, b: u32| match instruction.code & 0xf0 {
        0x10 => Some(a == b),
        0x20 => Some(a > b),
        0x30 => Some(a >= b),
        0x40 => Some(a & b != 0),
        _ => None,
    };
    test(0, 0)?;
    let to = |distance: u8| State { next: state.next + usize::from(distance), ..state.clone() };
    let (yes, no) = (to(instruction.jt), to(instruction.jf));
    Some(Step::Go(match (state.accumulator, operand) {
        (Some(a), Some(b)) => vec![if test(a, b)? { yes } else { no }],
        _ => vec![yes, no],
    }))
}

/// The accumulator after an operation; `None`: there is no such operation.
fn arithmetic(operation: u16, accumulator: Value, operand: Value) -> Option<Value> {
    let both = |result: fn(u32, u32) -> u32| {
        accumulator.zip(operand).map(|(accumulator, operand)| result(accumulator, operand))
    };
    Some(match operation {
        0x00 => both(u32::wrapping_add),
        0x10 => both(u32::wrapping_sub),
        0x20 => both(u32::wrapping_mul),
        // The kernel ends a program that divides by zero with 0, which kills; such a constant it refuses to load.
        0x30 => both(|a, b| a.checked_div(b).unwrap_or(0)),
        0x40 => both(|a, b| a | b),
        0x50 => both(|a, b| a & b),
        0x60 => both(|a, b| a.wrapping_shl(b)),
        0x70 => both(|a, b| a.wrapping_shr(b)),
        0x80 => accumulator.map(u32::wrapping_neg),
        0xa0 => both(|a, b| a ^ b),
        _ => return None,
    })
}

/// The 32 bits at `offset` of `struct seccomp_data`; the outer `None`: there are none.
fn word(attempt: &Attempt, offset: u32) -> Option<Value> {
    if !offset.is_multiple_of(4) {
        return None;
    }
    match offset {
        0 => Some(Some(attempt.number)),
        4 => Some(Some(attempt.architecture)),
        8 | 12 => Some(None), // where in the program the call is made: nobody knows
        16..64 => Some(match attempt.arguments {
            Arguments::Unknown => None,
            Arguments::Known(arguments) => {
                let argument = arguments[(offset as usize - 16) / 8];
                let is_first = offset.is_multiple_of(8);
                let is_low = is_first == cfg!(target_endian = "little");
                Some(if is_low { argument as u32 } else { (argument >> 32) as u32 })
            }
        }),
        _ => None,
    }
}
