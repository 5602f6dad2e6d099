//! The device filter of cgroup2: a BPF_PROG_TYPE_CGROUP_DEVICE program, put together by hand.
//!
//! The kernel runs it for each open and mknod with a `struct bpf_cgroup_dev_ctx` (linux/bpf.h): access and kind in
//! one word, major, minor. It returns 1 to allow. The program asks the exceptions one after the other:
//!
//! ```text
//! r2 = kind, r3 = access, r4 = major, r5 = minor
//! for each exception: any of (kind, access, major, minor) differs -> next; r0 = its verdict; exit
//! r0 = default; exit
//! ```

use std::fmt;

use super::{Access, Allowance, Kind, Nodes, Verdict};

/// One instruction, `struct bpf_insn` of linux/bpf.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insn {
    /// Operation, class and source.
    pub code: u8,
    /// Destination register.
    pub dst: u8,
    /// Source register.
    pub src: u8,
    /// Offset of a jump or a load.
    pub off: i16,
    /// The immediate operand.
    pub imm: i32,
}

impl Insn {
    /// The instruction as bpf(2) takes it on this machine.
    pub fn to_bytes(self) -> [u8; 8] {
        // Two bit-fields in one byte: the first one is in the low half on a little-endian machine.
        let registers =
            if cfg!(target_endian = "little") { self.src << 4 | self.dst } else { self.dst << 4 | self.src };
        let ([off0, off1], [imm0, imm1, imm2, imm3]) = (self.off.to_ne_bytes(), self.imm.to_ne_bytes());
        [self.code, registers, off0, off1, imm0, imm1, imm2, imm3]
    }
}

impl fmt::Display for Insn {
    /// The instruction in the manner of the kernel's own listing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Insn { code, dst, src, off, imm } = *self;
        match code {
            LOAD_WORD => write!(f, "r{dst} = *(u32 *)(r{src} +{off})"),
            MOV => write!(f, "w{dst} = {imm}"),
            MOV_REGISTER => write!(f, "w{dst} = w{src}"),
            AND => write!(f, "w{dst} &= {imm:#x}"),
            SHIFT_RIGHT => write!(f, "w{dst} >>= {imm}"),
            JUMP => write!(f, "goto +{off}"),
            JUMP_NOT_EQUAL => write!(f, "if w{dst} != {imm} goto +{off}"),
            JUMP_ANY_BIT => write!(f, "if w{dst} & {imm:#x} goto +{off}"),
            EXIT => write!(f, "exit"),
            _ => write!(f, "{code:#04x} r{dst} r{src} {off} {imm}"),
        }
    }
}

// Operations, as linux/bpf.h and linux/bpf_common.h make them up. All are of 32 bits (ALU32, JMP32: Linux 5.1), so
// that no number is extended by its sign.
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOV: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K
const MOV_REGISTER: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const AND: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const JUMP: u8 = 0x05; // BPF_JMP | BPF_JA
const JUMP_NOT_EQUAL: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
const JUMP_ANY_BIT: u8 = 0x46; // BPF_JMP32 | BPF_JSET | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// The program that enforces this.
pub(super) fn program(allowance: &Allowance) -> Vec<Insn> {
    let start = [
        load(KIND, 0),
        Insn { code: MOV_REGISTER, dst: ACCESS, src: KIND, off: 0, imm: 0 },
        with_number(AND, KIND, 0xffff),
        with_number(SHIFT_RIGHT, ACCESS, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    let exceptions =
        allowance.exceptions().flat_map(|exception| exception_block(allowance.default(), exception));
    start.into_iter().chain(exceptions).chain(answer(allowance.default())).collect()
}

/// Tests for one exception: each failed one jumps over the rest and the answer.
fn exception_block(default: Verdict, (nodes, access): (Nodes, Access)) -> Vec<Insn> {
    let mut tests = vec![with_number(JUMP_NOT_EQUAL, KIND, kind_number(nodes.kind))];
    let numbers = [(MAJOR, nodes.major), (MINOR, nodes.minor)];
    for (register, number) in numbers.into_iter().filter_map(|(register, number)| Some((register, number?))) {
        tests.push(with_number(JUMP_NOT_EQUAL, register, number.cast_signed()));
    }
    let verdict = match default {
        // It has to allow all that is asked for: any bit outside of it fails.
        Verdict::Deny if access == Access::ALL => Verdict::Allow,
        Verdict::Deny => {
            let others = Access::ALL.without(access);
            tests.push(with_number(JUMP_ANY_BIT, ACCESS, others.bits().into()));
            Verdict::Allow
        }
        // It denies any part of what is asked for: with a bit in common, over the jump to the next.
        Verdict::Allow => {
            tests.push(Insn { off: 1, ..with_number(JUMP_ANY_BIT, ACCESS, access.bits().into()) });
            tests.push(with_number(JUMP, 0, 0));
            Verdict::Deny
        }
    };
    let answer = answer(verdict);
    let length = tests.len() + answer.len();
    for (i, test) in tests.iter_mut().enumerate().filter(|(_, test)| test.off == 0) {
        test.off = i16::try_from(length - i - 1).expect("a block has at most seven instructions");
    }
    tests.into_iter().chain(answer).collect()
}

fn kind_number(kind: Kind) -> i32 {
    match kind {
        Kind::Block => 1, // BPF_DEVCG_DEV_BLOCK
        Kind::Char => 2,  // BPF_DEVCG_DEV_CHAR
    }
}

fn answer(verdict: Verdict) -> [Insn; 2] {
    let allow = match verdict {
        Verdict::Allow => 1,
        Verdict::Deny => 0,
    };
    [with_number(MOV, RESULT, allow), Insn { code: EXIT, dst: 0, src: 0, off: 0, imm: 0 }]
}

fn load(register: u8, offset: i16) -> Insn {
    Insn { code: LOAD_WORD, dst: register, src: CONTEXT, off: offset, imm: 0 }
}

/// An operation on a register and a number. A jump goes nowhere yet.
fn with_number(code: u8, register: u8, number: i32) -> Insn {
    Insn { code, dst: register, src: 0, off: 0, imm: number }
}
