//! Programs of eBPF that see what comes in at a device (tc-bpf(8)).

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};
use rustix::io::Errno;

use super::super::netlink::Failure;
use super::Links;
use super::limits::{ALL_PROTOCOLS, INGRESS, PRIORITY, tc};

impl Links {
    /// Runs `program` for each packet that comes in at the device with this index, which has no filter yet.
    ///
    /// # Errors
    /// EEXIST: it has filters of somebody else. Others when the kernel lacks what is needed. Nothing is left of it then.
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
        let queued = self.one(what.clone(), RouteNetlinkMessage::NewQueueDiscipline(queue), new);
        match queued {
            // A croftd that was killed has left it so.
            Err(failure) if failure.errno() == Some(Errno::EXIST) && self.filters(index)?.is_empty() => {}
            queued => drop(queued?),
        }
        let filtered = self.one(what, RouteNetlinkMessage::NewTrafficFilter(filter), new);
        if filtered.is_err() {
            self.no_queue(name, index, TcHandle::INGRESS)?;
        }
        filtered.map(drop)
    }

    /// Takes away whatever sees what comes in at a device.
    ///
    /// # Errors
    /// When the kernel does not want to.
    pub fn declassify(&mut self, name: &str, index: u32) -> Result<(), Failure> {
        self.no_queue(name, index, TcHandle::INGRESS)
    }

    /// The number of the program called `name` that sees what comes in at a device, if there is one.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn classifier(&mut self, index: u32, name: &str) -> Result<Option<u32>, Failure> {
        Ok(self.filters(index)?.into_iter().find_map(|filter| program_of(filter, name)))
    }

    /// Whether what comes in at a device is led elsewhere.
    pub(super) fn is_led(&mut self, index: u32) -> Result<bool, Failure> {
        let is_u32 = |filter: &TcMessage| filter.attributes.contains(&TcAttribute::Kind("u32".to_owned()));
        Ok(self.filters(index)?.iter().any(is_u32))
    }

    fn filters(&mut self, index: u32) -> Result<Vec<TcMessage>, Failure> {
        let message = tc(index, TcHandle::UNSPEC, INGRESS, TcFilterBpf::KIND, vec![]);
        let what = format!("list the filters of device {index}");
        let answers = self.0.dump(&what, &RouteNetlinkMessage::GetTrafficFilter(message))?;
        let filters = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewTrafficFilter(filter) => Some(filter),
            _ => None,
        });
        Ok(filters.collect())
    }
}

fn program_of(filter: TcMessage, name: &str) -> Option<u32> {
    let options = filter.attributes.into_iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let is_named =
        options.iter().any(|o| matches!(o, TcOption::Bpf(TcFilterBpfOption::ProgName(n)) if n == name));
    options.into_iter().filter(|_| is_named).find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(id),
        _ => None,
    })
}
