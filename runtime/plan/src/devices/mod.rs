//! Which device nodes a container may open and make: the rules of `linux.resources.devices`, and what enforces them.
//!
//! ```text
//! linux.resources.devices, then DEFAULTS -> Rule... -> Allowance (the state they add up to)
//!                                                        |-> BPF_CGROUP_DEVICE program   (cgroup2)
//!                                                        `-> devices.deny, devices.allow (v1)
//! ```
//!
//! The rules mean what v1's devices controller makes of them (cgroup-v1/devices.rst), on both versions: a rule for
//! all devices starts anew with a default, each other rule adds an exception to the default or takes one away.

mod allowance;
mod ebpf;
mod v1;

use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

pub use allowance::{Allowance, Request};
pub use ebpf::Insn;

use crate::cgroup::{CgroupHost, DeviceFilter, Refusal, Version, Write};

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The access is allowed.
    Allow,
    /// The access fails with EPERM.
    Deny,
}

/// A kind of device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A block device.
    Block,
    /// A character device.
    Char,
}

/// A set of ways to use a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access(u8);

impl Access {
    /// Making the node, mknod(2). The bits are those of BPF_DEVCG_ACC_*.
    pub const MKNOD: Access = Access(1);
    /// Opening it for reading.
    pub const READ: Access = Access(2);
    /// Opening it for writing.
    pub const WRITE: Access = Access(4);
    /// All three.
    pub const ALL: Access = Access(7);

    /// The set of these letters: `r`, `w` and `m`. `None` for another letter.
    pub fn parse(letters: &str) -> Option<Access> {
        letters.chars().try_fold(Access(0), |set, letter| match letter {
            'm' => Some(set.with(Access::MKNOD)),
            'r' => Some(set.with(Access::READ)),
            'w' => Some(set.with(Access::WRITE)),
            _ => None,
        })
    }

    /// What is in either set.
    pub fn with(self, other: Access) -> Access {
        Access(self.0 | other.0)
    }

    /// What is in this set and not in the other.
    pub fn without(self, other: Access) -> Access {
        Access(self.0 & !other.0)
    }

    /// What is in both sets.
    pub fn common(self, other: Access) -> Access {
        Access(self.0 & other.0)
    }

    /// Whether nothing is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set as BPF_DEVCG_ACC_* bits.
    pub fn bits(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [(Access::READ, 'r'), (Access::WRITE, 'w'), (Access::MKNOD, 'm')];
        let mut present = letters.into_iter().filter(|(access, _)| !self.common(*access).is_empty());
        present.try_for_each(|(_, letter)| write!(f, "{letter}"))
    }
}

/// The device nodes that a rule is about. `None` is every number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nodes {
    /// Major number.
    pub major: Option<u32>,
    /// Minor number.
    pub minor: Option<u32>,
    /// Block or character.
    pub kind: Kind,
}

impl fmt::Display for Nodes {
    /// As v1's files have it: `c 1:*`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        let kind = match self.kind {
            Kind::Block => 'b',
            Kind::Char => 'c',
        };
        write!(f, "{kind} {}:{}", number(self.major), number(self.minor))
    }
}

/// One entry of `linux.resources.devices`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// For every device and every access: all rules before count no more.
    Everything(Verdict),
    /// For some.
    Some {
        /// Allow or deny.
        verdict: Verdict,
        /// Which nodes.
        nodes: Nodes,
        /// Which accesses.
        access: Access,
    },
}

/// The rules that runc adds after those of every spec, with the path of the node that each stands for. They let the
/// container make any node, and use those that every container has, ptys, and tun (which runc 1.2.0 took out and
/// 1.2.4 put back).
const DEFAULTS: &[(&str, Nodes, Access)] = &[
    ("", nodes(Kind::Char, None, None), Access::MKNOD),
    ("", nodes(Kind::Block, None, None), Access::MKNOD),
    ("/dev/null", nodes(Kind::Char, Some(1), Some(3)), Access::ALL),
    ("/dev/random", nodes(Kind::Char, Some(1), Some(8)), Access::ALL),
    ("/dev/full", nodes(Kind::Char, Some(1), Some(7)), Access::ALL),
    ("/dev/tty", nodes(Kind::Char, Some(5), Some(0)), Access::ALL),
    ("/dev/zero", nodes(Kind::Char, Some(1), Some(5)), Access::ALL),
    ("/dev/urandom", nodes(Kind::Char, Some(1), Some(9)), Access::ALL),
    // /dev/pts/*, and with a terminal /dev/console.
    ("", nodes(Kind::Char, Some(136), None), Access::ALL),
    // /dev/ptmx
    ("", nodes(Kind::Char, Some(5), Some(2)), Access::ALL),
    // /dev/net/tun
    ("", nodes(Kind::Char, Some(10), Some(200)), Access::ALL),
];

const fn nodes(kind: Kind, major: Option<u32>, minor: Option<u32>) -> Nodes {
    Nodes { major, minor, kind }
}

/// The default rules, without those for nodes that the spec makes itself (paths of `linux.devices`): as in runc, such
/// a node is allowed only by a rule of the spec.
pub fn defaults<'a>(made_by_spec: impl IntoIterator<Item = &'a str>) -> Vec<Rule> {
    let made: Vec<&str> = made_by_spec.into_iter().collect();
    let kept = DEFAULTS.iter().filter(|(path, ..)| !made.contains(path));
    kept.map(|(_, nodes, access)| Rule::Some { verdict: Verdict::Allow, nodes: *nodes, access: *access })
        .collect()
}

/// The rules of `linux.resources.devices`.
///
/// # Errors
/// [`Refusal::Value`] for an entry that v1's devices controller could not express.
pub fn rules(devices: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>, Refusal> {
    devices.iter().enumerate().map(|(i, device)| rule(i, device)).collect()
}

fn rule(i: usize, device: &LinuxDeviceCgroup) -> Result<Rule, Refusal> {
    let refuse = |field: &str, value: &dyn fmt::Display, why: &str| {
        Err(Refusal::value(&format!("devices[{i}].{field}"), value, why))
    };
    let verdict = if device.allow() { Verdict::Allow } else { Verdict::Deny };
    let letters = device.access().as_deref().unwrap_or_default();
    let access = match Access::parse(letters) {
        Some(access) if access.is_empty() => {
            return refuse("access", &"\"\"", "device access field cannot be empty");
        }
        Some(access) => access,
        None => return refuse("access", &letters, "only r, w and m are accesses"),
    };
    let kind = match device.typ().unwrap_or(LinuxDeviceType::A) {
        LinuxDeviceType::A => return Ok(Rule::Everything(verdict)),
        LinuxDeviceType::B => Kind::Block,
        LinuxDeviceType::C => Kind::Char,
        other => return refuse("type", &other.as_str(), "invalid cgroup device type"),
    };
    let number = |field, value: Option<i64>| match value {
        // Go's callers write -1 for every number.
        None | Some(-1) => Ok(None),
        Some(n) => u32::try_from(n)
            .map(Some)
            .or_else(|_| refuse(field, &n, "not a device number").map(|_: Rule| None)),
    };
    let nodes =
        Nodes { major: number("major", device.major())?, minor: number("minor", device.minor())?, kind };
    Ok(Rule::Some { verdict, nodes, access })
}

/// What enforces an [`Allowance`] on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Nothing: every device is allowed.
    Nothing,
    /// A program to load as BPF_PROG_TYPE_CGROUP_DEVICE and to attach to the container's group on cgroup2.
    Ebpf(Vec<Insn>),
    /// Writes for the container's group in v1's devices hierarchy, made anew.
    V1(Vec<Write>),
}

/// What enforces this on this host: a program where cgroup2 takes them, v1's controller elsewhere.
///
/// # Errors
/// [`Refusal::Nowhere`] on a host with neither.
pub fn filter(allowance: &Allowance, host: &CgroupHost) -> Result<Filter, Refusal> {
    match host.device_filter {
        _ if allowance.allows_everything() => Ok(Filter::Nothing),
        DeviceFilter::Ebpf => Ok(Filter::Ebpf(ebpf::program(allowance))),
        DeviceFilter::NoEbpf if host.has(v1::CONTROLLER, Version::V1) => {
            Ok(Filter::V1(v1::writes(allowance)))
        }
        DeviceFilter::NoEbpf => Err(Refusal::Nowhere {
            property: "devices".to_owned(),
            file: "device filter".to_owned(),
            needs: "bpf(2) with CONFIG_CGROUP_BPF and CAP_BPF or CAP_SYS_ADMIN, or the v1 devices controller"
                .to_owned(),
        }),
    }
}
