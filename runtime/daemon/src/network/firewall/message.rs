//! Messages of nf_tables. What is asked is written by netlink-packet-netfilter; what is answered is read here, since that crate writes all
//! of a list into an error that does not happen, for each of its elements: a second for a few thousand.

use netlink_packet_core::{
    DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_packet_netfilter::NetfilterMessage;

/// One message.
#[derive(Debug, Clone)]
pub enum Message {
    /// To the kernel.
    Asked(NetfilterMessage),
    /// From it, as it came.
    Answered(Vec<u8>),
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        match self {
            Message::Asked(message) => message.message_type(),
            Message::Answered(_) => 0,
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Message::Asked(message) => NetlinkSerializable::buffer_len(message),
            Message::Answered(bytes) => bytes.len(),
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        match self {
            Message::Asked(message) => message.serialize(buffer),
            Message::Answered(bytes) => buffer.copy_from_slice(bytes),
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Message::Answered(payload.to_vec()))
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        NetlinkPayload::InnerMessage(message)
    }
}

/// What comes before the attributes (nfgenmsg).
const HEADER: usize = 4;

// Of linux/netfilter/nf_tables.h.
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_KEY_END: u16 = 10;
pub const NFTA_DATA_VALUE: u16 = 1;

/// An element as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// Its key.
    pub key: Vec<u8>,
    /// The end of its key, where that is a range.
    pub end: Vec<u8>,
    /// What it leads to, in a map.
    pub data: Vec<u8>,
}

/// The elements that an answer has.
pub fn elements(answer: &Message) -> Vec<Raw> {
    let Message::Answered(bytes) = answer else { return Vec::new() };
    let lists = of_kind(bytes.get(HEADER..).unwrap_or_default(), NFTA_SET_ELEM_LIST_ELEMENTS);
    let elements = lists
        .iter()
        .flat_map(|list| NlasIterator::new(list).flatten().map(|element| element.value().to_vec()));
    let value = |element: &[u8], kind| {
        let data = of_kind(element, kind).into_iter().next().unwrap_or_default();
        of_kind(&data, NFTA_DATA_VALUE).into_iter().next().unwrap_or_default()
    };
    let raw = |element: Vec<u8>| Raw {
        key: value(&element, NFTA_SET_ELEM_KEY),
        end: value(&element, NFTA_SET_ELEM_KEY_END),
        data: value(&element, NFTA_SET_ELEM_DATA),
    };
    elements.map(raw).collect()
}

fn of_kind(attributes: &[u8], kind: u16) -> Vec<Vec<u8>> {
    let attributes = NlasIterator::new(attributes).flatten().filter(|attribute| attribute.kind() == kind);
    attributes.map(|attribute| attribute.value().to_vec()).collect()
}
