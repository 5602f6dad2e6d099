//! Limits of what goes through a cable, by token buckets (tc-tbf(8)).
//!
//! What comes into the container waits in a bucket on the host's end of its cable. What leaves it has come in there already; it is led
//! through a device of its own (an ifb), and waits in a bucket on that: it is slowed down rather than dropped, as by a real cable.

use std::collections::HashSet;

use croft_api::network::Rates;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirrorOption, TcActionOption, TcActionType, TcAttribute,
    TcFilterU32Option, TcHandle, TcHeader, TcMessage, TcMirror, TcMirrorActionType, TcOption, TcU32Key,
    TcU32Selector, TcU32SelectorFlags,
};
use rustix::io::Errno;

use super::super::netlink::Failure;
use super::{Links, failure, up};

/// How much may go at once, as a part of what goes in a second: 10 ms.
const BURST: u64 = 100;

/// The least that may go at once, in bytes: less would let the kernel's clock be the limit.
const LEAST_BURST: u64 = 16 << 10;

/// How much may wait, as a part of what goes in a second: 50 ms. More would only be late.
const QUEUE: u64 = 20;

/// The least that may wait, in bytes: a few of the largest packets that are cut up on the way.
const LEAST_QUEUE: u64 = 128 << 10;

// Of linux/pkt_sched.h.
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TC_LINKLAYER_ETHERNET: u8 = 1;

/// Every protocol (linux/if_ether.h), and the filter's place among others, as a filter's header has them.
pub(super) const ALL_PROTOCOLS: u16 = 3;
pub(super) const PRIORITY: u32 = 1;

/// What filters what comes in at a device.
pub(super) const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0 };

const TBF: &str = "tbf";

/// The device that what leaves a container goes through, if that is limited.
pub fn device(port: &str) -> String {
    port.replacen("-v", "-i", 1)
}

impl Links {
    /// Limits what goes through a cable, whatever its limits were.
    ///
    /// # Errors
    /// When the kernel has no token buckets, or no device for what leaves.
    pub fn limit(&mut self, port: &str, rates: Rates) -> Result<(), Failure> {
        let gone = || failure(&format!("limit {port}"), std::io::ErrorKind::NotFound.into());
        let index = self.find(port)?.ok_or_else(gone)?.index;
        match rates.ingress {
            Some(rate) => self.bucket(port, index, rate)?,
            None => self.no_queue(port, index, TcHandle::ROOT)?,
        }
        let device = device(port);
        let Some(rate) = rates.egress else {
            self.no_queue(port, index, TcHandle::INGRESS)?;
            return self.remove(&device);
        };
        let there = self.find(&device)?;
        if there.is_none() || !self.is_led(index)? {
            // One that somebody removed is still where packets are led to, and dropped; and the shortcut's program leads nowhere.
            self.no_queue(port, index, TcHandle::INGRESS)?;
        }
        if there.is_none() {
            let mut message = LinkMessage::default();
            message.attributes.push(LinkAttribute::IfName(device.clone()));
            message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]));
            let made = RouteNetlinkMessage::NewLink(message);
            self.one(format!("make {device}"), made, NLM_F_CREATE | NLM_F_EXCL)?;
        }
        let through = self.find(&device)?.ok_or_else(gone)?.index;
        self.0.send(vec![up(through, &device)])?;
        self.bucket(&device, through, rate)?;
        let ingress = tc(index, INGRESS, TcHandle::INGRESS, "ingress", vec![]);
        let what = format!("lead what comes from {port} to {device}");
        let made = self.one(
            what.clone(),
            RouteNetlinkMessage::NewQueueDiscipline(ingress),
            NLM_F_CREATE | NLM_F_EXCL,
        );
        match made {
            Err(failure) if failure.errno() == Some(Errno::EXIST) => Ok(()),
            made => {
                made?;
                self.one(what, RouteNetlinkMessage::NewTrafficFilter(redirect(index, through)), NLM_F_CREATE)
                    .map(drop)
            }
        }
    }

    /// Takes the device away that what leaves a container goes through. One that is not there is fine.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn lift(&mut self, port: &str) -> Result<(), Failure> {
        self.remove(&device(port))
    }

    /// The devices with a token bucket.
    ///
    /// # Errors
    /// When they cannot be asked for.
    pub fn limited(&mut self) -> Result<HashSet<u32>, Failure> {
        let message = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let answers = self.0.dump("list the limits of rates", &message)?;
        let bucket = |answer| {
            let RouteNetlinkMessage::NewQueueDiscipline(message) = answer else { return None };
            let is_bucket = message.attributes.contains(&TcAttribute::Kind(TBF.to_owned()));
            is_bucket.then_some(message.header.index.cast_unsigned())
        };
        Ok(answers.into_iter().filter_map(bucket).collect())
    }

    fn bucket(&mut self, name: &str, index: u32, rate: u64) -> Result<(), Failure> {
        let message = tc(index, TcHandle { major: 1, minor: 0 }, TcHandle::ROOT, TBF, token_bucket(rate));
        let what = format!("limit {name} to {rate} bit/s");
        self.one(what, RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map(drop)
    }

    pub(super) fn no_queue(&mut self, name: &str, index: u32, parent: TcHandle) -> Result<(), Failure> {
        let message = TcMessage::from_parts(
            TcHeader { index: index.cast_signed(), parent, ..TcHeader::default() },
            vec![],
        );
        match self.one(
            format!("take the queues and filters of {name} away"),
            RouteNetlinkMessage::DelQueueDiscipline(message),
            0,
        ) {
            // There was none.
            Err(failure) if matches!(failure.errno(), Some(Errno::NOENT | Errno::INVAL)) => Ok(()),
            done => done.map(drop),
        }
    }
}

pub(super) fn tc(
    index: u32,
    handle: TcHandle,
    parent: TcHandle,
    kind: &str,
    options: Vec<TcOption>,
) -> TcMessage {
    let header = TcHeader { index: index.cast_signed(), handle, parent, ..TcHeader::default() };
    let mut attributes = vec![TcAttribute::Kind(kind.to_owned())];
    if !options.is_empty() {
        attributes.push(TcAttribute::Options(options));
    }
    TcMessage::from_parts(header, attributes)
}

/// The options of a bucket (struct tc_tbf_qopt). Rates are in bytes there.
fn token_bucket(rate: u64) -> Vec<TcOption> {
    let bytes = rate / 8;
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let burst = small((bytes / BURST).max(LEAST_BURST));
    let queue = small((bytes / QUEUE).max(LEAST_QUEUE));
    let mut parameters = Vec::new();
    // The rate, the peak rate, how much may wait; a bucket's size and a packet's in time, which come from the size in bytes.
    for rate in [small(bytes), 0] {
        parameters.extend([0, TC_LINKLAYER_ETHERNET, 0, 0, 0, 0, 0, 0]);
        parameters.extend(rate.to_ne_bytes());
    }
    parameters.extend([queue, 0, 0].map(u32::to_ne_bytes).concat());
    let option = |kind, value| TcOption::Other(DefaultNla::new(kind, value));
    vec![
        option(TCA_TBF_PARMS, parameters),
        option(TCA_TBF_RATE64, bytes.to_ne_bytes().to_vec()),
        option(TCA_TBF_BURST, burst.to_ne_bytes().to_vec()),
    ]
}

/// A filter for every packet: it goes on as if `to` sent it.
fn redirect(from: u32, to: u32) -> TcMessage {
    let mut selector = TcU32Selector::default();
    (selector.flags, selector.nkeys, selector.keys) =
        (TcU32SelectorFlags::Terminal, 1, vec![TcU32Key::default()]);
    let mut mirror = TcMirror::default();
    (mirror.generic.action, mirror.eaction, mirror.ifindex) =
        (TcActionType::Stolen, TcMirrorActionType::EgressRedir, to);
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind("mirred".to_owned()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))]),
    ];
    let options = [TcFilterU32Option::Selector(selector), TcFilterU32Option::Action(vec![action])];
    let options = options.into_iter().map(TcOption::U32).collect();
    let mut message = tc(from, TcHandle::UNSPEC, INGRESS, "u32", options);
    message.header.info = PRIORITY << 16 | u32::from(ALL_PROTOCOLS.to_be());
    message
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Nla;

    use super::*;

    #[test]
    fn a_bucket_is_as_the_kernel_wants_it() {
        let options = token_bucket(100_000_000);
        let lengths: Vec<usize> = options.iter().map(Nla::value_len).collect();
        assert_eq!(lengths, [36, 8, 4]);
        let TcOption::Other(parameters) = &options[0] else { panic!("it has parameters") };
        let mut bytes = [0; 36];
        parameters.emit_value(&mut bytes);
        assert_eq!(bytes[8..12], 12_500_000_u32.to_ne_bytes());
        assert_eq!(bytes[24..28], 625_000_u32.to_ne_bytes(), "50 ms");
        assert_eq!(device("t-v00002a"), "t-i00002a");
    }
}
