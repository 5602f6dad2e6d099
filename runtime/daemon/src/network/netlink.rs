//! Netlink: several requests in one system call, and their answers. Blocking, as these are never waited for: the kernel answers at once.

use std::fmt::Debug;
use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// One thing that the kernel is asked to do.
#[derive(Debug, Clone)]
pub struct Request<M> {
    /// What, in words for the one who reads that it failed.
    pub what: String,
    /// The same for the kernel.
    pub message: M,
    /// Beside NLM_F_REQUEST.
    pub flags: u16,
}

/// What the kernel did not do, and why.
#[derive(Debug)]
pub struct Failure {
    /// What it was asked.
    pub what: String,
    /// Why not.
    pub error: io::Error,
}

impl Failure {
    /// The number of the error.
    pub fn errno(&self) -> Option<rustix::io::Errno> {
        rustix::io::Errno::from_io_error(&self.error)
    }
}

/// A socket of one of netlink's protocols, in the network namespace where it was opened.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netlink").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Netlink {
    /// Opens a socket in this thread's network namespace.
    ///
    /// # Errors
    /// When the kernel has not this protocol.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Sends all requests at once. Each is tried, whatever becomes of the others, unless the protocol has transactions. Gives the answers
    /// of all, or the first failure.
    ///
    /// # Errors
    /// For the first that failed.
    pub fn send<M>(&mut self, requests: Vec<Request<M>>) -> Result<Vec<M>, Failure>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Debug + Into<NetlinkPayload<M>>,
    {
        let mut buffer = Vec::new();
        let first = self.sequence + 1;
        let (mut names, mut unanswered) = (Vec::new(), 0_usize);
        for Request { what, message, flags } in requests {
            self.sequence += 1;
            unanswered += usize::from(flags & (NLM_F_ACK | NLM_F_DUMP) != 0);
            names.push(what);
            let mut header = NetlinkHeader::default();
            header.flags = NLM_F_REQUEST | flags;
            header.sequence_number = self.sequence;
            let mut message = NetlinkMessage::new(header, message.into());
            message.finalize();
            let start = buffer.len();
            buffer.resize(start + message.buffer_len().next_multiple_of(4), 0);
            message.serialize(&mut buffer[start..]);
        }
        let name =
            |sequence: u32| names.get(sequence.wrapping_sub(first) as usize).cloned().unwrap_or_default();
        let lost = |error: io::Error| Failure { what: name(first), error };
        retry(|| self.socket.send_to(&buffer, &SocketAddr::new(0, 0), 0)).map_err(lost)?;

        let (mut answers, mut failure) = (Vec::new(), None);
        while unanswered > 0 {
            let (bytes, sender) = retry(|| self.socket.recv_from_full()).map_err(lost)?;
            // Any process may send to a netlink socket; only the kernel has port 0.
            if sender.port_number() != 0 {
                continue;
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<M>::deserialize(rest)
                    .map_err(|e| lost(io::Error::new(io::ErrorKind::InvalidData, e.to_string())))?;
                let length = (answer.header.length as usize).next_multiple_of(4);
                rest = rest.get(length.max(4)..).unwrap_or_default();
                let number = answer.header.sequence_number;
                if number < first {
                    continue;
                }
                let mut code = 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(answer) => {
                        answers.push(answer);
                        continue;
                    }
                    NetlinkPayload::Error(error) => code = error.raw_code(),
                    NetlinkPayload::Done(done) => code = done.code,
                    NetlinkPayload::Overrun(_) => code = -rustix::io::Errno::NOBUFS.raw_os_error(),
                    _ => {}
                }
                if code == 0 && answer.header.flags & NLM_F_DUMP_INTR != 0 {
                    code = -rustix::io::Errno::INTR.raw_os_error();
                }
                if code != 0 && failure.is_none() {
                    failure =
                        Some(Failure { what: name(number), error: io::Error::from_raw_os_error(-code) });
                }
                unanswered = unanswered.saturating_sub(1);
            }
        }
        failure.map_or(Ok(answers), Err)
    }

    /// Everything that the kernel has of a kind, asked for again if something changed meanwhile.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn dump<M>(&mut self, what: &str, message: &M) -> Result<Vec<M>, Failure>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Debug + Into<NetlinkPayload<M>> + Clone,
    {
        for _ in 0..16 {
            let request = Request { what: what.to_owned(), message: message.clone(), flags: NLM_F_DUMP };
            match self.send(vec![request]) {
                Err(failure) if failure.errno() == Some(rustix::io::Errno::INTR) => {}
                answers => return answers,
            }
        }
        Err(Failure { what: what.to_owned(), error: io::ErrorKind::ResourceBusy.into() })
    }
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
