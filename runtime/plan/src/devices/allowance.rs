//! What a list of device rules adds up to.

use std::collections::BTreeMap;

use super::{Access, Kind, Nodes, Rule, Verdict};
use crate::cgroup::Refusal;

/// What a list of device rules adds up to: a default, and exceptions from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    default: Verdict,
    exceptions: BTreeMap<Nodes, Access>,
}

/// One use of one device node, as the kernel asks about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Block or character.
    pub kind: Kind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// What for. An open(2) with O_RDWR asks for two at once.
    pub access: Access,
}

impl Allowance {
    /// What these rules add up to, in their order, on top of "deny everything".
    ///
    /// # Errors
    /// [`Refusal::Value`] for a rule that takes a part out of a wider exception. v1's controller ignores such a rule
    /// without a word, so that the container has more than the spec says; runc refuses it as well, on both versions.
    pub fn of(rules: &[Rule]) -> Result<Allowance, Refusal> {
        let mut allowance = Allowance { default: Verdict::Deny, exceptions: BTreeMap::new() };
        for rule in rules {
            match *rule {
                Rule::Everything(verdict) => {
                    allowance = Allowance { default: verdict, exceptions: BTreeMap::new() }
                }
                Rule::Some { verdict, nodes, access } if verdict == allowance.default => {
                    allowance.take_away(nodes, access)?;
                }
                Rule::Some { nodes, access, .. } => allowance.add(nodes, access),
            }
        }
        Ok(allowance)
    }

    /// What holds for what is no exception.
    pub fn default(&self) -> Verdict {
        self.default
    }

    /// The exceptions from the default, in order of their numbers.
    pub fn exceptions(&self) -> impl Iterator<Item = (Nodes, Access)> + '_ {
        self.exceptions.iter().map(|(nodes, access)| (*nodes, *access))
    }

    /// Whether there is nothing to enforce.
    pub fn allows_everything(&self) -> bool {
        self.default == Verdict::Allow && self.exceptions.is_empty()
    }

    /// The answer to a request. As in the kernel (security/device_cgroup.c), one exception has to allow all that a
    /// request asks for, and one that denies any part of it denies it.
    pub fn permits(&self, request: Request) -> bool {
        let mut matching = self.exceptions().filter(|(nodes, _)| nodes.match_request(request));
        match self.default {
            Verdict::Deny => matching.any(|(_, access)| request.access.without(access).is_empty()),
            Verdict::Allow => !matching.any(|(_, access)| !request.access.common(access).is_empty()),
        }
    }

    fn add(&mut self, nodes: Nodes, access: Access) {
        self.exceptions.entry(nodes).and_modify(|old| *old = old.with(access)).or_insert(access);
    }

    fn take_away(&mut self, nodes: Nodes, access: Access) -> Result<(), Refusal> {
        for wider in nodes.wider() {
            if self.exceptions.get(&wider).is_some_and(|of_wider| !of_wider.common(access).is_empty()) {
                let why = format!("cannot punch hole in existing wildcard rule {wider}");
                return Err(Refusal::value("devices", format!("{nodes} {access}"), why));
            }
        }
        let left = self.exceptions.get(&nodes).map_or(Access(0), |old| old.without(access));
        if left.is_empty() {
            self.exceptions.remove(&nodes);
        } else {
            self.exceptions.insert(nodes, left);
        }
        Ok(())
    }
}

impl Nodes {
    fn match_request(self, request: Request) -> bool {
        self.kind == request.kind
            && self.major.is_none_or(|major| major == request.major)
            && self.minor.is_none_or(|minor| minor == request.minor)
    }

    /// The sets of nodes that a rule could name and that hold this one and more.
    fn wider(self) -> impl Iterator<Item = Nodes> {
        let any_major = Nodes { major: None, ..self };
        let any_minor = Nodes { minor: None, ..self };
        let any = Nodes { major: None, minor: None, ..self };
        [any_major, any_minor, any].into_iter().filter(move |wider| *wider != self)
    }
}
