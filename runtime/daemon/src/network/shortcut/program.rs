//! The program at each port of a bridge, put together by hand as BPF_PROG_TYPE_SCHED_CLS, and the two tables that it looks into.
//!
//! The kernel runs it for each packet that comes from a container, with a `struct __sk_buff` (linux/bpf.h). It lets pass what the
//! rules of the bridge would let pass, and only that; whatever it has any doubt about goes on to the bridge:
//!
//! ```text
//! a tag of a VLAN, or shorter than Ethernet's and IPv4's headers     -> bridge
//! sender = ports[the packet's port], or none                          -> bridge
//! hardware address is not the sender's                                -> bridge
//! IPv4: source is not the sender's                                    -> bridge
//! IPv6: neither TCP nor UDP, or source is not one of the sender's two -> bridge
//! receiver = receivers[sender's network, destination], or none         -> bridge
//! receiver is closed, or the sender                                   -> bridge
//! count, and go in at the other end of the receiver's cable
//! ```

use std::collections::HashMap;
use std::os::fd::{AsRawFd, BorrowedFd};

use croft_sys::bpf::Instruction;

// How the tables' elements lie in memory, in bytes, as element.rs writes them.
// A sender: its network, its hardware address, whether it has IPv6, its address, its two addresses of IPv6.
pub const SENDER_NETWORK: i16 = 0;
pub const SENDER_MAC: i16 = 4;
pub const SENDER_HAS_IPV6: i16 = 10;
pub const SENDER_IPV4: i16 = 12;
pub const SENDER_IPV6: [i16; 2] = [16, 32];
pub const SENDER_SIZE: usize = 48;
// A key of receivers: the network, the hardware address, two bytes of nothing.
pub const KEY_NETWORK: i16 = 0;
pub const KEY_MAC: i16 = 4;
const KEY_PADDING: i16 = 10;
pub const KEY_SIZE: usize = 12;
// A receiver: its port, four bytes of nothing, and what it was sent.
pub const RECEIVER_PORT: i16 = 0;
pub const RECEIVER_PACKETS: i16 = 8;
pub const RECEIVER_BYTES: i16 = 16;
pub const RECEIVER_SIZE: usize = 24;
/// The port of a receiver that packets come to by the bridge only.
pub const CLOSED: i32 = 0;

// Fields of `struct __sk_buff`.
const LENGTH: i16 = 0;
const VLAN_PRESENT: i16 = 20;
const PORT: i16 = 40;
const DATA: i16 = 76;
const DATA_END: i16 = 80;

// Of a packet.
const DESTINATION: i16 = 0;
const SOURCE: i16 = 6;
const ETHERTYPE: i16 = 12;
const IPV4_SOURCE: i16 = 26;
const IPV4_HEADERS: i32 = 34;
const IPV6_NEXT_HEADER: i16 = 20;
const IPV6_SOURCE: i16 = 22;
const IPV6_HEADERS: i32 = 54;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const TCP: i32 = 6;
const UDP: i32 = 17;

// Where things are on the stack.
const PORT_KEY: i16 = -4;
const RECEIVER_KEY: i16 = -16;

// Functions of the kernel (bpf-helpers(7)) and what they take.
const MAP_LOOKUP_ELEM: i32 = 1;
const SKB_CHANGE_TYPE: i32 = 32;
const REDIRECT_PEER: i32 = 155;
const PACKET_HOST: i32 = 0;
/// What the program says where it has no opinion: the next filter is asked, and in the end the packet goes on (linux/pkt_cls.h).
const TC_ACT_UNSPEC: i32 = -1;

/// The size of what is loaded or stored.
#[derive(Clone, Copy)]
enum Size {
    Byte = 0x10,
    Half = 0x08,
    Word = 0x00,
    Double = 0x18,
}

/// Where a jump leads.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Label {
    Bridge,
    Ipv6,
    HasPorts,
    SecondAddress,
    IsSender,
}

/// Registers: what is called changes 0 to 5, and leaves the others.
const RESULT: u8 = 0;
const CONTEXT: u8 = 6;
const FOUND: u8 = 7;
const PACKET: u8 = 8;
const TARGET: u8 = 9;
const STACK: u8 = 10;

#[derive(Default)]
struct Assembler {
    code: Vec<Instruction>,
    jumps: Vec<(usize, Label)>,
    labels: HashMap<Label, usize>,
}

impl Assembler {
    fn put(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        self.code.push(Instruction { code, registers, offset, immediate });
    }

    /// to = what is at from + offset (BPF_LDX | BPF_MEM).
    fn load(&mut self, size: Size, to: u8, from: u8, offset: i16) {
        self.put(0x61 | size as u8, to, from, offset, 0);
    }

    /// What is at to + offset = from (BPF_STX | BPF_MEM).
    fn store(&mut self, size: Size, to: u8, offset: i16, from: u8) {
        self.put(0x63 | size as u8, to, from, offset, 0);
    }

    /// What is at to + offset += from, in one piece (BPF_STX | BPF_ATOMIC | BPF_DW, BPF_ADD).
    fn count(&mut self, to: u8, offset: i16, from: u8) {
        self.put(0xdb, to, from, offset, 0);
    }

    /// to = from (BPF_ALU64 | BPF_MOV | BPF_X).
    fn copy(&mut self, to: u8, from: u8) {
        self.put(0xbf, to, from, 0, 0);
    }

    /// to = number (BPF_ALU64 | BPF_MOV | BPF_K).
    fn set(&mut self, to: u8, number: i32) {
        self.put(0xb7, to, 0, 0, number);
    }

    /// to += number (BPF_ALU64 | BPF_ADD | BPF_K).
    fn add(&mut self, to: u8, number: i32) {
        self.put(0x07, to, 0, 0, number);
    }

    /// To `label` if a register is `number` (BPF_JMP | BPF_JEQ | BPF_K).
    fn if_is(&mut self, register: u8, number: i32, label: Label) {
        self.jump(0x15, register, 0, number, label);
    }

    /// To `label` if a register is not `number` (BPF_JMP | BPF_JNE | BPF_K).
    fn if_is_not(&mut self, register: u8, number: i32, label: Label) {
        self.jump(0x55, register, 0, number, label);
    }

    /// To `label` if two registers are equal (BPF_JMP | BPF_JEQ | BPF_X).
    fn if_equal(&mut self, one: u8, other: u8, label: Label) {
        self.jump(0x1d, one, other, 0, label);
    }

    /// To `label` if two registers differ (BPF_JMP | BPF_JNE | BPF_X).
    fn if_differ(&mut self, one: u8, other: u8, label: Label) {
        self.jump(0x5d, one, other, 0, label);
    }

    /// To `label` if one is more than the other (BPF_JMP | BPF_JGT | BPF_X).
    fn if_more(&mut self, one: u8, other: u8, label: Label) {
        self.jump(0x2d, one, other, 0, label);
    }

    fn goto(&mut self, label: Label) {
        self.jump(0x05, 0, 0, 0, label);
    }

    fn jump(&mut self, code: u8, one: u8, other: u8, immediate: i32, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.put(code, one, other, 0, immediate);
    }

    /// The label's jumps lead here.
    fn here(&mut self, label: Label) {
        self.labels.insert(label, self.code.len());
    }

    /// A function of the kernel (BPF_JMP | BPF_CALL).
    fn call(&mut self, function: i32) {
        self.put(0x85, 0, 0, 0, function);
    }

    /// FOUND = what `table` has for the key at an offset of the stack, and to the bridge if it has nothing.
    fn look_up(&mut self, table: BorrowedFd<'_>, key: i16) {
        // BPF_LD | BPF_IMM | BPF_DW with BPF_PSEUDO_MAP_FD: two instructions' room.
        self.put(0x18, 1, 1, 0, table.as_raw_fd());
        self.put(0, 0, 0, 0, 0);
        self.copy(2, STACK);
        self.add(2, key.into());
        self.call(MAP_LOOKUP_ELEM);
        self.if_is(RESULT, 0, Label::Bridge);
        self.copy(FOUND, RESULT);
    }

    /// To the bridge if a packet has not this many bytes in one piece.
    fn want(&mut self, bytes: i32) {
        self.load(Size::Word, 3, CONTEXT, DATA_END);
        self.copy(2, PACKET);
        self.add(2, bytes);
        self.if_more(2, 3, Label::Bridge);
    }

    /// To the bridge if a field of the packet is not as the sender's.
    fn must_equal(&mut self, size: Size, of_packet: i16, of_sender: i16) {
        self.load(size, 2, PACKET, of_packet);
        self.load(size, 3, FOUND, of_sender);
        self.if_differ(2, 3, Label::Bridge);
    }

    /// (BPF_JMP | BPF_EXIT).
    fn exit(&mut self) {
        self.put(0x95, 0, 0, 0, 0);
    }

    fn finish(mut self) -> Vec<Instruction> {
        for (place, label) in self.jumps {
            let distance = self.labels[&label] - place - 1;
            self.code[place].offset = i16::try_from(distance).expect("the program is short");
        }
        self.code
    }
}

/// The program for these tables.
pub fn program(ports: BorrowedFd<'_>, receivers: BorrowedFd<'_>) -> Vec<Instruction> {
    let mut a = Assembler::default();
    a.copy(CONTEXT, 1);
    a.load(Size::Word, 2, CONTEXT, VLAN_PRESENT);
    a.if_is_not(2, 0, Label::Bridge);
    a.load(Size::Word, PACKET, CONTEXT, DATA);
    a.want(IPV4_HEADERS);
    a.load(Size::Word, 2, CONTEXT, PORT);
    a.store(Size::Word, STACK, PORT_KEY, 2);
    a.look_up(ports, PORT_KEY);

    a.must_equal(Size::Word, SOURCE, SENDER_MAC);
    a.must_equal(Size::Half, SOURCE + 4, SENDER_MAC + 4);
    a.load(Size::Half, 2, PACKET, ETHERTYPE);
    a.if_is(2, ETH_P_IPV6.to_be().into(), Label::Ipv6);
    a.if_is_not(2, ETH_P_IP.to_be().into(), Label::Bridge);
    a.must_equal(Size::Word, IPV4_SOURCE, SENDER_IPV4);
    a.goto(Label::IsSender);

    a.here(Label::Ipv6);
    a.want(IPV6_HEADERS);
    a.load(Size::Half, 2, FOUND, SENDER_HAS_IPV6);
    a.if_is(2, 0, Label::Bridge);
    // What neighbours say of themselves is ICMP, and what comes before that may be any header of options: the bridge's rules know.
    a.load(Size::Byte, 2, PACKET, IPV6_NEXT_HEADER);
    a.if_is(2, TCP, Label::HasPorts);
    a.if_is_not(2, UDP, Label::Bridge);
    a.here(Label::HasPorts);
    a.load(Size::Double, 2, PACKET, IPV6_SOURCE);
    a.load(Size::Double, 3, PACKET, IPV6_SOURCE + 8);
    let [first, second] = SENDER_IPV6;
    a.load(Size::Double, 4, FOUND, first);
    a.load(Size::Double, 5, FOUND, first + 8);
    a.if_differ(2, 4, Label::SecondAddress);
    a.if_equal(3, 5, Label::IsSender);
    a.here(Label::SecondAddress);
    a.load(Size::Double, 4, FOUND, second);
    a.load(Size::Double, 5, FOUND, second + 8);
    a.if_differ(2, 4, Label::Bridge);
    a.if_differ(3, 5, Label::Bridge);

    a.here(Label::IsSender);
    a.load(Size::Word, 2, FOUND, SENDER_NETWORK);
    a.store(Size::Word, STACK, RECEIVER_KEY + KEY_NETWORK, 2);
    a.load(Size::Word, 2, PACKET, DESTINATION);
    a.store(Size::Word, STACK, RECEIVER_KEY + KEY_MAC, 2);
    a.load(Size::Half, 2, PACKET, DESTINATION + 4);
    a.store(Size::Half, STACK, RECEIVER_KEY + KEY_MAC + 4, 2);
    a.set(2, 0);
    a.store(Size::Half, STACK, RECEIVER_KEY + KEY_PADDING, 2);
    a.look_up(receivers, RECEIVER_KEY);
    a.load(Size::Word, TARGET, FOUND, RECEIVER_PORT);
    a.if_is(TARGET, CLOSED, Label::Bridge);
    a.load(Size::Word, 2, CONTEXT, PORT);
    a.if_equal(2, TARGET, Label::Bridge);
    a.set(2, 1);
    a.count(FOUND, RECEIVER_PACKETS, 2);
    a.load(Size::Word, 2, CONTEXT, LENGTH);
    a.count(FOUND, RECEIVER_BYTES, 2);
    // Its hardware address is not that of the port that it has come to, so that the kernel takes it for somebody else's.
    a.copy(1, CONTEXT);
    a.set(2, PACKET_HOST);
    a.call(SKB_CHANGE_TYPE);
    a.copy(1, TARGET);
    a.set(2, 0);
    a.call(REDIRECT_PEER);
    a.exit();

    a.here(Label::Bridge);
    a.set(RESULT, TC_ACT_UNSPEC);
    a.exit();
    a.finish()
}
