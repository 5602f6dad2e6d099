//! Programs of eBPF that see what comes in at a device (tc-bpf(8)).

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};

use super::super::netlink::Failure;
use super::limits::{ALL_PROTOCOLS, INGRESS, PRIORITY, tc};
use super::{Links, request};

impl Links {
    /// Runs `program` for each packet that comes in at the device with this index, which has no filter yet.
    ///
    /// # Errors
    /// EEXIST: it has filters. Others when the kernel lacks what is needed.
    pub fn classify(&mut self, index: u32, program: BorrowedFd<'_>, name: &str) -> Result<(), Failure> {
        let what = format!("run {name} for what comes from device {index}");
        let queue = tc(index, INGRESS, TcHandle::INGRESS, "ingress", vec![]);
        let options = [
            TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned()),
            TcFilterBpfOption::ProgName(name.to_owned()),
            TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
        ];
        let options = options.into_iter().map(TcOption::Bpf).collect();
        let mut filter = tc(index, TcHandle::UNSPEC, INGRESS, TcFilterBpf::KIND, options);
        filter.header.info = PRIORITY << 16 | u32::from(ALL_PROTOCOLS.to_be());
        let new = NLM_F_CREATE | NLM_F_EXCL;
        self.0
            .send(vec![
                request(what.clone(), RouteNetlinkMessage::NewQueueDiscipline(queue), new),
                request(what, RouteNetlinkMessage::NewTrafficFilter(filter), new),
            ])
            .map(drop)
    }

    /// Takes away whatever sees what comes in at a device.
    ///
    /// # Errors
    /// When the kernel does not want to.
    pub fn declassify(&mut self, name: &str, index: u32) -> Result<(), Failure> {
        self.no_queue(name, index, TcHandle::INGRESS)
    }

    /// The number of the program that sees what comes in at a device, if there is one.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn classifier(&mut self, index: u32) -> Result<Option<u32>, Failure> {
        let message = tc(index, TcHandle::UNSPEC, INGRESS, TcFilterBpf::KIND, vec![]);
        let what = format!("list the filters of device {index}");
        let answers = self.0.dump(&what, &RouteNetlinkMessage::GetTrafficFilter(message))?;
        Ok(answers.into_iter().find_map(program_of))
    }
}

fn program_of(answer: RouteNetlinkMessage) -> Option<u32> {
    let RouteNetlinkMessage::NewTrafficFilter(TcMessage { attributes, .. }) = answer else { return None };
    let options = attributes.into_iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    options.into_iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(id),
        _ => None,
    })
}
