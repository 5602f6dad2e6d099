//! One machine from its start to its end: copies its output, waits for its status, cleans up.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Child;
use std::time::Instant;

use anyhow::{Context, Error, Result, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::image::Image;
use crate::interrupts::Interrupts;
use crate::qemu::{self, PORTS};
use crate::workdir::Workdir;
use crate::{Outcome, Streams, Vm, job};

/// Boots the machine, runs the command and returns how it ended.
pub(crate) fn run(vm: &Vm, command: &[OsString], streams: &mut Streams) -> Result<Outcome> {
    let script = job::script(vm, command)?;
    let image = Image::ready()?;
    let deadline = Instant::now() + vm.limit;
    let interrupts = Interrupts::block()?;
    let mut boot = 1;
    loop {
        let workdir = Workdir::new()?;
        let mut machine = Machine::start(vm, &image, workdir.path(), script.clone())?;
        if let Some(outcome) = machine.attend(&interrupts, deadline, streams)? {
            return Ok(outcome);
        }
        let report = report(vm, workdir.path()).context(format!("boot {boot} of {BOOTS}"));
        if boot == BOOTS || machine.has_begun() || !has_panicked(workdir.path()) {
            return Err(report);
        }
        eprintln!("{report:#}\nThe kernel panicked before the job began: the machine boots once more.");
        boot += 1;
    }
}

/// How many machines are tried for one job. Now and then the kernel panics at its start in a page fault where nothing is
/// wrong, while the host is busy: an error of the emulation (QEMU 10.0.2; none in 75 boots three at a time, one in some
/// hundreds in all).
const BOOTS: u32 = 3;

/// Enough for a kernel panic with its trace.
const CONSOLE_LINES: usize = 80;

/// What the machine's log files say, for one that ended without a status.
fn report(vm: &Vm, folder: &Path) -> Error {
    let mut text = String::from("run in a virtual machine: it ended without a status");
    let shares = vm.shares.iter().map(|share| format!("{}.log", share.name));
    for name in ["qemu.log".to_owned()].into_iter().chain(shares).chain(["console".to_owned()]) {
        let log = fs::read(folder.join(&name)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.trim_end().lines().collect();
        if !lines.is_empty() {
            text.push_str(&format!(
                "\n--- {name}\n{}",
                lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n")
            ));
        }
    }
    anyhow!(text)
}

/// A child that is killed and reaped when its owner goes.
struct Process(Child);

impl Process {
    fn end(&mut self) {
        // Both fail only when the process is reaped already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The host's end of one of the guest's virtio ports. QEMU connects to each once, when it starts.
enum Port {
    Bound(UnixListener),
    Connected(UnixStream),
    Closed,
}

impl Port {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Port::Bound(listener) => Some(listener.as_fd()),
            Port::Connected(stream) => Some(stream.as_fd()),
            Port::Closed => None,
        }
    }
}

fn bind(folder: &Path, name: &str) -> Result<UnixListener> {
    let path = qemu::socket(folder, name);
    UnixListener::bind(&path).with_context(|| format!("bind {}", path.display()))
}

enum Event {
    /// Which of the ports have something to accept or to read.
    Ports([bool; 3]),
    Interrupted(u8),
    Deadline,
    /// The status has come, or QEMU is gone.
    Ended,
}

/// Whether the kernel's last words in the console's log are a panic.
fn has_panicked(folder: &Path) -> bool {
    let console = fs::read(folder.join("console")).unwrap_or_default();
    String::from_utf8_lossy(&console).contains("Kernel panic - not syncing")
}

/// The first line of a guest's reply (guest/init.sh).
const BEGUN: &[u8] = b"begun\n";

struct Machine {
    qemu: Process,
    qemu_fd: OwnedFd,
    _virtiofsd: Vec<Process>,
    /// As in [`PORTS`].
    ports: [Port; 3],
    script: Vec<u8>,
    /// What came on the control port.
    reply: Vec<u8>,
    buffer: Vec<u8>,
}

impl Machine {
    fn start(vm: &Vm, image: &Image, folder: &Path, script: Vec<u8>) -> Result<Machine> {
        let [control, stdout, stderr] = PORTS;
        let ports = [bind(folder, control)?, bind(folder, stdout)?, bind(folder, stderr)?].map(Port::Bound);
        let mut virtiofsd = Vec::new();
        for share in &vm.shares {
            let listener = bind(folder, &share.name)?;
            virtiofsd.push(Process(qemu::start_virtiofsd(image, share, listener, folder)?));
        }
        let qemu = Process(qemu::start(vm, image, folder, script.len())?);
        let qemu_fd =
            pidfd_open(Pid::from_child(&qemu.0), PidfdFlags::empty()).context("open QEMU's pidfd")?;
        let buffer = vec![0; 64 * 1024];
        Ok(Machine { qemu, qemu_fd, _virtiofsd: virtiofsd, ports, script, reply: Vec::new(), buffer })
    }

    /// Passes on what the machine writes until it ends; none when that is without a status.
    fn attend(
        &mut self,
        interrupts: &Interrupts,
        deadline: Instant,
        streams: &mut Streams,
    ) -> Result<Option<Outcome>> {
        loop {
            match self.wait(interrupts, deadline)? {
                Event::Interrupted(signal) => return Ok(Some(Outcome::Interrupted(signal))),
                Event::Deadline => return Ok(Some(Outcome::TimedOut)),
                Event::Ports(ready) => {
                    for (index, _) in ready.into_iter().enumerate().filter(|(_, is_ready)| *is_ready) {
                        self.serve(index, streams)?;
                    }
                }
                Event::Ended => {
                    self.drain(streams)?;
                    return Ok(self.status().map(Outcome::Exited));
                }
            }
        }
    }

    /// The guest has come to the job.
    fn has_begun(&self) -> bool {
        self.reply.starts_with(BEGUN)
    }

    /// The job's exit status, once all of it has come.
    fn status(&self) -> Option<u8> {
        std::str::from_utf8(self.reply.strip_prefix(BEGUN)?).ok()?.strip_suffix('\n')?.parse().ok()
    }

    /// Waits for the next thing to do. What has been written comes before the end.
    fn wait(&self, interrupts: &Interrupts, deadline: Instant) -> Result<Event> {
        if self.status().is_some() {
            return Ok(Event::Ended);
        }
        let mut fds = vec![PollFd::new(&self.qemu_fd, PollFlags::IN), PollFd::new(interrupts, PollFlags::IN)];
        let open: Vec<usize> =
            (0..self.ports.len()).filter(|index| self.ports[*index].fd().is_some()).collect();
        fds.extend(
            self.ports.iter().filter_map(Port::fd).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
        );
        let left =
            Timespec::try_from(deadline.saturating_duration_since(Instant::now())).context("time limit")?;
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return Ok(Event::Deadline),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Event::Ports([false; 3])),
            Err(error) => return Err(error).context("wait for a virtual machine"),
        }
        let is_ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if is_ready[1] {
            return Ok(Event::Interrupted(interrupts.take()?));
        }
        if is_ready[0] {
            return Ok(Event::Ended);
        }
        let mut ports = [false; 3];
        for (index, ready) in open.into_iter().zip(&is_ready[2..]) {
            ports[index] = *ready;
        }
        Ok(Event::Ports(ports))
    }

    /// Accepts QEMU's connection on a port, or reads once what has come there and passes it on.
    fn serve(&mut self, index: usize, streams: &mut Streams) -> Result<()> {
        match &mut self.ports[index] {
            Port::Bound(listener) => {
                let (mut stream, _) = listener.accept().context("accept QEMU's connection")?;
                if index == 0 {
                    // Short enough for the socket's buffer: it does not wait for the guest.
                    stream.write_all(&self.script).context("send the job to a virtual machine")?;
                }
                self.ports[index] = Port::Connected(stream);
            }
            Port::Connected(stream) => {
                let length = match stream.read(&mut self.buffer) {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
                    other => other.context("read from a virtual machine")?,
                };
                let data = &self.buffer[..length];
                match index {
                    0 => self.reply.extend(data),
                    1 => pass_on(streams.stdout, data)
                        .context("write the standard output of a virtual machine")?,
                    _ => pass_on(streams.stderr, data)
                        .context("write the standard error of a virtual machine")?,
                }
                if length == 0 {
                    self.ports[index] = Port::Closed;
                }
            }
            Port::Closed => {}
        }
        Ok(())
    }

    /// Ends QEMU and passes on what it had written: the sockets keep that.
    fn drain(&mut self, streams: &mut Streams) -> Result<()> {
        self.qemu.end();
        for index in 0..self.ports.len() {
            while let Port::Connected(_) = self.ports[index] {
                self.serve(index, streams)?;
            }
        }
        Ok(())
    }
}

fn pass_on(sink: &mut dyn Write, data: &[u8]) -> io::Result<()> {
    sink.write_all(data)?;
    sink.flush()
}
