//! Names. In each network the host's address answers for the names of the containers there; for all others the host's servers are asked.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use croft_api::problem::{Kind, Problem};
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::super::files::Resolv;
use super::super::record::{Attached, Definition, Endpoint};
use super::{Service, Task};

const PORT: u16 = 53;

/// Seconds for which an answer may be remembered: names move with containers.
const TTL: u32 = 5;

/// A server that says nothing for so long says nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// A connection without questions ends.
const SILENCE: Duration = Duration::from_secs(30);

/// Questions to the host's servers at a time, for one network; more are refused.
const PENDING: usize = 256;

/// The largest datagram that is understood.
const DATAGRAM: usize = 4096;

/// Answers in a network.
pub fn listen(service: &Rc<Service>, of: &Definition) -> Result<Vec<Task>, Problem> {
    let pending = Rc::new(Semaphore::new(PENDING));
    let mut tasks = Vec::new();
    let ips = std::iter::once(IpAddr::V4(of.gateway4())).chain(of.gateway6().map(IpAddr::V6));
    for ip in ips {
        let address = SocketAddr::new(ip, PORT);
        let bound = std::net::UdpSocket::bind(address)
            .and_then(|udp| Ok((udp, std::net::TcpListener::bind(address)?)));
        let sockets = bound.and_then(|(udp, tcp)| {
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            Ok((UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?))
        });
        let (udp, tcp) = sockets.map_err(|e| {
            let problem =
                Problem::new(Kind::Conflict, format!("answer for names at {address}"), e.to_string());
            problem.hint(format!(
                "ss -lnp 'sport = {PORT}' shows who does: have it listen on its own addresses only"
            ))
        })?;
        let asked = Asked { service: Rc::clone(service), of: of.clone(), pending: Rc::clone(&pending) };
        tasks.push(Task(spawn_local(datagrams(asked.clone(), Rc::new(udp)))));
        tasks.push(Task(spawn_local(connections(asked, tcp))));
    }
    Ok(tasks)
}

/// Who is asked: the service, in one network.
#[derive(Clone)]
struct Asked {
    service: Rc<Service>,
    of: Definition,
    pending: Rc<Semaphore>,
}

/// By which way a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Datagram,
    Connection,
}

async fn datagrams(asked: Asked, socket: Rc<UdpSocket>) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let Ok((length, sender)) = socket.recv_from(&mut buffer).await else { continue };
        if !asked.is_neighbour(sender.ip()) {
            continue;
        }
        let (asked, socket, question) = (asked.clone(), Rc::clone(&socket), buffer[..length].to_vec());
        spawn_local(async move {
            if let Some(answer) = asked.answer(&question, sender.ip(), Way::Datagram).await {
                let _ = socket.send_to(&answer, sender).await;
            }
        });
    }
}

async fn connections(asked: Asked, listener: TcpListener) {
    loop {
        let Ok((stream, sender)) = listener.accept().await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        if asked.is_neighbour(sender.ip()) {
            let asked = asked.clone();
            spawn_local(async move { drop(connection(&asked, sender.ip(), stream).await) });
        }
    }
}

async fn connection(asked: &Asked, sender: IpAddr, mut stream: TcpStream) -> io::Result<()> {
    while let Ok(length) = timeout(SILENCE, stream.read_u16()).await? {
        let mut question = vec![0; length.into()];
        timeout(SILENCE, stream.read_exact(&mut question)).await??;
        let Some(answer) = asked.answer(&question, sender, Way::Connection).await else { break };
        stream.write_u16(answer.len().try_into().unwrap_or(u16::MAX)).await?;
        stream.write_all(&answer).await?;
    }
    Ok(())
}

impl Asked {
    /// Whether an address is one of this network: others shall not learn who is here.
    fn is_neighbour(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.of.ipv4.contains(&ip),
            IpAddr::V6(ip) => self.of.ipv6.is_some_and(|net| net.contains(&ip)),
        }
    }

    /// The networks of who asks: it finds its neighbours in all of them, whichever it asks in.
    fn networks_of(&self, sender: IpAddr) -> Vec<Definition> {
        let served = self.service.served.borrow();
        let is_it = |attached: &&Attached| attached.has(&self.of.name, sender);
        let found = served.values().map(|served| &served.attached).find(is_it);
        found.map_or_else(|| vec![self.of.clone()], |attached| attached.networks.clone())
    }

    async fn answer(&self, question: &[u8], sender: IpAddr, way: Way) -> Option<Vec<u8>> {
        let message = Message::from_vec(question).ok()?;
        if message.metadata.message_type != MessageType::Query {
            return None;
        }
        let networks = self.networks_of(sender);
        let code = match self.known(&message, &networks) {
            Found::Here(records) => return self.reply(&message, ResponseCode::NoError, records),
            Found::Refused(code) => code,
            // What leads nowhere does not lead there by questions for names either.
            Found::Elsewhere if networks.iter().all(|of| of.internal) => ResponseCode::Refused,
            Found::Elsewhere => match self.ask_others(question, way).await {
                Some(answer) => return Some(answer),
                None => ResponseCode::ServFail,
            },
        };
        self.reply(&message, code, Vec::new())
    }

    fn reply(&self, question: &Message, code: ResponseCode, records: Vec<Record>) -> Option<Vec<u8>> {
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.metadata.authoritative = code == ResponseCode::NoError;
        answer.metadata.response_code = code;
        answer.add_queries(question.queries.iter().cloned());
        answer.add_answers(records);
        answer.to_vec().ok()
    }

    fn known(&self, message: &Message, networks: &[Definition]) -> Found {
        let [query] = message.queries.as_slice() else { return Found::Refused(ResponseCode::FormErr) };
        if message.metadata.op_code != OpCode::Query {
            return Found::Refused(ResponseCode::NotImp);
        }
        if query.query_class() != DNSClass::IN {
            return Found::Refused(ResponseCode::Refused);
        }
        let name = query.name();
        if let Ok(net) = name.parse_arpa_name() {
            return self.name_of(name, net.addr(), query.query_type());
        }
        let text = name.to_ascii();
        let text = text.trim_end_matches('.');
        let served = self.service.served.borrow();
        let mut records = Vec::new();
        let mut is_here = false;
        for lease in served.values().map(|served| &served.attached.lease) {
            // The network that is asked in first.
            let own = |endpoint: &&Endpoint| endpoint.network == self.of.name;
            let further = |endpoint: &&Endpoint| networks.iter().any(|of| of.name == endpoint.network);
            let called = |endpoint: &&Endpoint| {
                let mut names = lease.names.iter().chain(&endpoint.aliases);
                names.any(|name| name.eq_ignore_ascii_case(text))
            };
            let here = || lease.endpoints.iter().filter(called);
            let Some(endpoint) = here().find(own).or_else(|| here().find(further)) else { continue };
            is_here = true;
            let data = match query.query_type() {
                RecordType::A => Some(RData::A(A(endpoint.ipv4))),
                RecordType::AAAA => endpoint.ipv6.map(|ip| RData::AAAA(AAAA(ip))),
                _ => None,
            };
            records.extend(data.map(|data| Record::from_rdata(name.clone(), TTL, data)));
        }
        match is_here {
            true => Found::Here(records),
            // A name without a domain is nobody's but ours; the world need not know what containers look for.
            false
                if !text.contains('.') && matches!(query.query_type(), RecordType::A | RecordType::AAAA) =>
            {
                Found::Refused(ResponseCode::NXDomain)
            }
            false => Found::Elsewhere,
        }
    }

    fn name_of(&self, name: &Name, ip: IpAddr, kind: RecordType) -> Found {
        if !self.is_neighbour(ip) {
            return Found::Elsewhere;
        }
        let served = self.service.served.borrow();
        let has = |served: &&super::Served| served.attached.has(&self.of.name, ip);
        let text = served.values().find(has).and_then(|served| served.attached.lease.names.first());
        let Some(host) = text.and_then(|text| Name::from_ascii(format!("{text}.")).ok()) else {
            return Found::Refused(ResponseCode::NXDomain);
        };
        match kind {
            RecordType::PTR => {
                Found::Here(vec![Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(host)))])
            }
            _ => Found::Here(Vec::new()),
        }
    }

    /// Asks the host's servers, in their order.
    async fn ask_others(&self, question: &[u8], way: Way) -> Option<Vec<u8>> {
        let _permit = self.pending.try_acquire().ok()?;
        for server in Resolv::of_host().servers {
            // Ours are not the host's.
            if self.is_neighbour(server) {
                continue;
            }
            let server = SocketAddr::new(server, PORT);
            let asked = async {
                match way {
                    Way::Datagram => ask_by_datagram(server, question).await,
                    Way::Connection => ask_by_connection(server, question).await,
                }
            };
            if let Ok(Ok(answer)) = timeout(PATIENCE, asked).await {
                return Some(answer);
            }
        }
        None
    }
}

enum Found {
    Here(Vec<Record>),
    Refused(ResponseCode),
    Elsewhere,
}

async fn ask_by_datagram(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    // A port of its own, which the kernel draws: with the question's number that is what makes a false answer hard to place.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if buffer.get(..2) == question.get(..2) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_by_connection(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_u16(question.len().try_into().map_err(io::Error::other)?).await?;
    stream.write_all(question).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}
