//! A container, as far as networks are concerned: a process in namespaces of its own.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long packets are waited for that should come.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How long packets are waited for that should not.
pub const SHORT: Duration = Duration::from_millis(700);

/// A process that does nothing, in a network namespace.
pub struct Guest {
    child: Child,
    pid: u32,
    namespace: File,
    /// Which of its namespaces are its own, for nsenter(1).
    own: &'static [&'static str],
}

impl Guest {
    /// One whose network namespace belongs to a user namespace of its own.
    pub fn container() -> Guest {
        Guest::unshare(&["--map-root-user"], &["--user", "--net"])
    }

    /// A host beside ours.
    pub fn host() -> Guest {
        Guest::unshare(&[], &["--net"])
    }

    fn unshare(more: &[&str], own: &'static [&'static str]) -> Guest {
        let mut command = Command::new("unshare");
        let mut child = command
            .args(own)
            .args(more)
            .args(["sh", "-c", "echo $$; exec sleep 1000"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = line.trim().parse().unwrap();
        Guest { child, pid, namespace: File::open(format!("/proc/{pid}/ns/net")).unwrap(), own }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// Runs a shell's line inside, as root there.
    pub fn sh(&self, line: &str) -> Result<String, String> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string()]).args(self.own).args(["sh", "-c", line]);
        let output = command.output().unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(text) } else { Err(format!("{line}: {text}")) }
    }

    pub fn must(&self, line: &str) -> String {
        self.sh(line).unwrap()
    }

    /// Does something on a thread that is inside, with the test's own rights.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(self.namespace(), kind).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().unwrap())
    }

    /// Answers to whoever connects with `name`, or sends a datagram, as long as the test runs; and who connected, before it.
    pub fn serve(&self, port: u16, name: &'static str) {
        let (tcp, udp) = self
            .within(|| (TcpListener::bind(("::", port)).unwrap(), UdpSocket::bind(("::", port)).unwrap()));
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let from = stream.peer_addr().unwrap().ip().to_canonical();
                let _ = write!(stream, "{from} {name}");
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 16];
            while let Ok((_, sender)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(format!("{} {name}", sender.ip().to_canonical()).as_bytes(), sender);
            }
        });
    }

    /// What answers at an address, by TCP.
    pub fn ask(&self, to: impl Into<IpAddr>, port: u16) -> Result<(IpAddr, String), String> {
        let to = SocketAddr::new(to.into(), port);
        self.within(|| ask(to))
    }

    pub fn pings(&self, ip: impl Into<IpAddr>) -> bool {
        let ip = ip.into();
        self.sh(&format!("busybox ping -c 1 -W 1 {ip}")).is_ok()
    }

    /// Ends it. Its namespace goes with it, when nobody else has it.
    pub fn end(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What answers at an address, by TCP, and to whom it thinks it talks.
pub fn ask(to: SocketAddr) -> Result<(IpAddr, String), String> {
    let answered = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&to, SHORT)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = answered().map_err(|e| format!("{to}: {e}"))?;
    let (from, name) = text.split_once(' ').ok_or_else(|| format!("{to} says {text:?}"))?;
    Ok((from.parse().unwrap(), name.to_owned()))
}

/// The same by UDP.
pub fn ask_udp(to: SocketAddr) -> Result<String, String> {
    let answered = || -> std::io::Result<String> {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_read_timeout(Some(SHORT))?;
        socket.connect(to)?;
        socket.send(b"?")?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let text = answered().map_err(|e| format!("{to}: {e}"))?;
    Ok(text.split_once(' ').unwrap_or_default().1.to_owned())
}
