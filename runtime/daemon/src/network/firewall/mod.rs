//! croft's own tables of nftables: a skeleton that nft(8) loads once, and elements of its sets and maps that come and go with containers,
//! in one transaction of netlink each, whatever else is in the tables.

mod element;
mod message;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use croft_api::problem::{Kind, Problem};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage, SetElementList, SetElementMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;

use super::netlink::{Failure, Netlink, Request};

use message::Message;

pub use element::{Element, Set, of_attached, of_network};

const SKELETON: &str = include_str!("skeleton.nft");

/// nftables' number among netfilter's protocols.
const NFTABLES: u16 = 10;

/// Elements in one message: a netlink attribute is at most 64 KiB long.
const MOST: usize = 256;

/// What becomes of packets that neither come from a container nor go to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// They are not croft's business.
    Pass,
    /// They are dropped: the host was no router before croft made it one, and becomes none for others.
    Drop,
}

/// The tables of one croftd.
#[derive(Debug)]
pub struct Firewall {
    table: String,
    ports: String,
    /// Kept open: closing one waits until the kernel has freed what was removed last, which takes it 15 ms.
    socket: Mutex<Option<Netlink>>,
}

/// What must be in the tables: elements by set.
pub type Content = BTreeMap<Set, BTreeSet<Element>>;

impl Firewall {
    /// The tables called `table`, for containers whose cables begin with `ports`.
    pub fn new(table: String, ports: &str) -> Self {
        Firewall { table, ports: format!("{ports}*"), socket: Mutex::default() }
    }

    fn skeleton(&self, others: Others) -> String {
        let others = match others {
            Others::Pass => "return",
            // A bridge on either side: a neighbour's containers or machines, which have rules of their own.
            Others::Drop => "meta iifkind != \"bridge\" meta oifkind != \"bridge\" counter drop",
        };
        let text: String = SKELETON
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .fold(String::new(), |text, line| text + line + "\n");
        text.replace("NAME", &self.table).replace("PORTS", &self.ports).replace("OTHERS", others)
    }

    /// Loads the tables anew with all that must be in them, in one transaction: packets never meet half of it.
    ///
    /// # Errors
    /// When nft(8) is not there, or does not want to.
    pub fn load(&self, others: Others, content: &Content) -> Result<(), Problem> {
        let mut text = String::new();
        for family in ["inet", "bridge"] {
            // Removing what is not there fails; making what is there does not.
            text += &format!("table {family} {0} {{}}\ndelete table {family} {0}\n", self.table);
        }
        text += &self.skeleton(others);
        for (set, elements) in content {
            for element in elements {
                text +=
                    &format!("add element {} {} {} {{ {element} }}\n", set.family(), self.table, set.name());
            }
        }
        run_nft(&text)
    }

    /// Removes the tables. Those that are not there are fine.
    ///
    /// # Errors
    /// When nft(8) is not there, or does not want to.
    pub fn unload(&self) -> Result<(), Problem> {
        let text = ["inet", "bridge"]
            .map(|family| format!("table {family} {0} {{}}\ndelete table {family} {0}\n", self.table));
        run_nft(&text.concat())
    }

    /// Adds elements, all or none.
    ///
    /// # Errors
    /// ENOENT: the tables are not there.
    pub fn add(&self, content: &Content) -> Result<(), Failure> {
        self.change(content, NfTablesMessage::NewSetElement, NLM_F_CREATE)
    }

    /// Removes elements. Those that are not there are fine.
    ///
    /// # Errors
    /// When the kernel does not want to.
    pub fn remove(&self, content: &Content) -> Result<(), Failure> {
        match self.change(content, NfTablesMessage::DeleteSetElement, 0) {
            Err(failure) if failure.errno() == Some(Errno::NOENT) => {}
            removed => return removed,
        }
        // One that is missing has undone the removal of all.
        for (set, elements) in content {
            for element in elements {
                let one = Content::from([(*set, BTreeSet::from([element.clone()]))]);
                match self.change(&one, NfTablesMessage::DeleteSetElement, 0) {
                    Err(failure) if failure.errno() != Some(Errno::NOENT) => return Err(failure),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn change(
        &self,
        content: &Content,
        kind: fn(SetElementMessage) -> NfTablesMessage,
        flags: u16,
    ) -> Result<(), Failure> {
        let what = format!("change elements of nftables' {}", self.table);
        let mut requests = vec![control(ControlMessage::BatchBegin)];
        for (set, elements) in content {
            let elements: Vec<&Element> = elements.iter().collect();
            for some in elements.chunks(MOST) {
                let list = some.iter().map(|element| ListAttribute::Element(element.attributes())).collect();
                let attributes = vec![
                    SetElementList::Table(self.table.clone()),
                    SetElementList::Set(set.name().to_owned()),
                    SetElementList::Elements(list),
                ];
                let message = kind(SetElementMessage { attributes });
                requests.push(Request {
                    what: what.clone(),
                    message: of_family(set.protocol(), message),
                    flags: flags | NLM_F_ACK,
                });
            }
        }
        if requests.len() == 1 {
            return Ok(());
        }
        requests.push(control(ControlMessage::BatchEnd));
        self.speak(&what, |netlink| netlink.send(requests)).map(drop)
    }

    fn speak<T>(
        &self,
        what: &str,
        say: impl FnOnce(&mut Netlink) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *socket {
            Some(netlink) => say(netlink),
            none => {
                let opened = Netlink::open(NETLINK_NETFILTER)
                    .map_err(|error| Failure { what: what.to_owned(), error })?;
                say(none.insert(opened))
            }
        }
    }

    /// What is in the tables; none when they are not there, or have not the rules that they should have.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn content(&self, others: Others) -> Result<Option<Content>, Failure> {
        let what = "list nftables' elements";
        self.speak(what, |netlink| self.read(netlink, what, others))
    }

    fn read(&self, netlink: &mut Netlink, what: &str, others: Others) -> Result<Option<Content>, Failure> {
        for (family, protocol) in
            [("inet", NetfilterProtoFamily::Inet), ("bridge", NetfilterProtoFamily::Bridge)]
        {
            let message = RuleMessage { attributes: vec![RuleAttribute::Table(self.table.clone())] };
            let rules =
                netlink.dump("list nftables' rules", &of_family(protocol, NfTablesMessage::GetRule(message)));
            match rules {
                Ok(rules) if rules.len() == self.rules(family, others) => {}
                Err(failure) if failure.errno() != Some(Errno::NOENT) => return Err(failure),
                _ => return Ok(None),
            }
        }
        let mut content = Content::new();
        for set in Set::ALL {
            let attributes =
                vec![SetElementList::Table(self.table.clone()), SetElementList::Set(set.name().to_owned())];
            let message = NfTablesMessage::GetSetElement(SetElementMessage { attributes });
            let answers = match netlink.dump(what, &of_family(set.protocol(), message)) {
                Err(failure) if failure.errno() == Some(Errno::NOENT) => return Ok(None),
                answers => answers?,
            };
            let elements =
                answers.iter().flat_map(message::elements).filter_map(|raw| Element::read(set, &raw));
            content.entry(set).or_default().extend(elements);
        }
        content.retain(|_, elements| !elements.is_empty());
        Ok(Some(content))
    }

    /// How many rules the skeleton has in a table.
    fn rules(&self, family: &str, others: Others) -> usize {
        let text = self.skeleton(others);
        let table = text
            .split("\ntable ")
            .find(|table| table.trim_start_matches("table ").trim_start().starts_with(family));
        let is_rule = |line: &&str| {
            let line = line.trim();
            !(line.is_empty()
                || line.ends_with('{')
                || line == "}"
                || ["set ", "map ", "type "].iter().any(|w| line.starts_with(w)))
        };
        table.map_or(0, |table| table.lines().filter(is_rule).count())
    }
}

fn of_family(family: NetfilterProtoFamily, message: NfTablesMessage) -> Message {
    Message::Asked(NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message))
}

fn control(message: ControlMessage) -> Request<Message> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFTABLES);
    let message = Message::Asked(NetfilterMessage::new(header, message));
    Request { what: "change nftables".to_owned(), message, flags: 0 }
}

/// nft(8), wherever it is: root's PATH has not always sbin.
fn nft() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders
        .map(|folder| folder.join("nft"))
        .find(|program| program.is_file())
        .unwrap_or_else(|| PathBuf::from("nft"))
}

fn run_nft(text: &str) -> Result<(), Problem> {
    let failed = |why: String| Problem::new(Kind::Internal, "set up the firewall of croft's networks", why);
    let mut command = Command::new(nft());
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| {
        failed(format!("nft: {e}"))
            .hint("install nftables (Debian: apt install nftables), or use --network none or host")
    })?;
    let mut input = child.stdin.take().expect("it was asked for");
    let written = input.write_all(text.as_bytes());
    drop(input);
    let output = child.wait_with_output().map_err(|e| failed(format!("nft: {e}")))?;
    if output.status.success() {
        return written.map_err(|e| failed(format!("nft: {e}")));
    }
    Err(failed(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_skeleton_is_filled_in_and_its_rules_are_counted() {
        let firewall = Firewall::new("t1".to_owned(), "t1-v");
        let text = firewall.skeleton(Others::Pass);
        for word in ["NAME", "PORTS", "OTHERS", "#"] {
            assert!(!text.contains(word), "{word}: {text}");
        }
        assert!(text.contains("iifname \"t1-v*\" jump port"));
        // Or it would let what has a VLAN's tag pass, before the rule that drops that.
        assert!(text.contains("\tether type ip iifname . ether saddr . ip saddr @senders4 accept"));
        assert_eq!([firewall.rules("inet", Others::Drop), firewall.rules("bridge", Others::Pass)], [29, 12]);
    }
}
