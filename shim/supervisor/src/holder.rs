//! The holder: a tiny process that keeps a copy of every descriptor whose loss would hurt a container.
//!
//! As long as it lives, the death of a supervisor closes no terminal (no SIGHUP) and no pipe (no SIGPIPE), and loses no pidfd. The
//! next supervisor connects to it and takes the copies back by their names. It reads nothing from what it holds.
//!
//! Its packets: `+NAME` with a descriptor, `-NAME`, `?` (answered by `NAME` with a descriptor for each, then `.`), `q`.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use croft_sys::event::{self, Interest};
use croft_sys::rlimit;
use croft_sys::socket;

/// The most bytes of a name: a container's id, a process's and a stream's.
const LONGEST: usize = 1024;

/// The file of the holder's socket below the supervisor's root.
const SOCKET: &str = "holder.sock";

/// The program of the holder: leaves the supervisor's session, then serves.
///
/// # Errors
/// As [`serve`].
pub fn run(listener: &OwnedFd) -> io::Result<()> {
    // It was born with the supervisor's blocked signals: SIGTERM has to end it.
    croft_sys::signal::set_blocked(croft_sys::signal::Set::EMPTY)?;
    // What is sent to the supervisor's terminal or group is not for it; where it leads a group already it stays there.
    let _ = croft_sys::new_session();
    let _ = croft_sys::prctl::set_name(c"croft-holder");
    raise_descriptor_limit();
    serve(listener)
}

/// Runs the holder on a listening socket until it is told to end, or holds nothing and has nobody to hold anything for.
///
/// # Errors
/// When the kernel refuses to wait.
pub fn serve(listener: &OwnedFd) -> io::Result<()> {
    let mut held = BTreeMap::new();
    let mut supervisor: Option<OwnedFd> = None;
    loop {
        let mut sources = vec![(listener.as_fd(), Interest::Readable)];
        sources.extend(supervisor.iter().map(|fd| (fd.as_fd(), Interest::Readable)));
        let ready = event::wait(&sources, None)?;
        if ready.get(1).is_some_and(|r| r.readable || r.hung_up) {
            match supervisor.as_ref().map(|fd| answer(fd.as_fd(), &mut held)) {
                Some(Answered::GoOn) | None => {}
                Some(Answered::Gone) if held.is_empty() => return Ok(()),
                Some(Answered::Gone) => supervisor = None,
                Some(Answered::Quit) => return Ok(()),
            }
        }
        if ready[0].readable
            && let Some(socket) = socket::accept(listener.as_fd())?
            && crate::supervise::may_connect(socket.as_fd())
        {
            // What the one before said last counts, although it is dead: a pipe that it had closed has to be closed here too.
            while let Some(before) = supervisor.take_if(|fd| is_readable(fd)) {
                match answer(before.as_fd(), &mut held) {
                    Answered::GoOn => supervisor = Some(before),
                    Answered::Gone => {}
                    Answered::Quit => return Ok(()),
                }
            }
            socket::set_waiting(socket.as_fd(), socket::Waiting::Blocking)?;
            supervisor = Some(socket);
        }
    }
}

fn is_readable(fd: &OwnedFd) -> bool {
    croft_sys::wait_readable_for(fd.as_fd(), Some(std::time::Duration::ZERO)).unwrap_or(false)
}

enum Answered {
    GoOn,
    Gone,
    Quit,
}

fn answer(socket: BorrowedFd<'_>, held: &mut BTreeMap<Vec<u8>, OwnedFd>) -> Answered {
    let mut buffer = [0; LONGEST + 1];
    let Ok((length, fds)) = socket::receive(socket, &mut buffer) else { return Answered::Gone };
    match (buffer[..length].split_first(), fds.into_iter().next()) {
        (Some((b'+', name)), Some(fd)) => drop(held.insert(name.to_vec(), fd)),
        (Some((b'-', name)), _) => drop(held.remove(name)),
        (Some((b'?', _)), _) => {
            let sent = held.iter().try_for_each(|(name, fd)| socket::send(socket, name, &[fd.as_fd()]));
            if sent.and_then(|()| socket::send(socket, b".", &[])).is_err() {
                return Answered::Gone;
            }
        }
        (Some((b'q', _)), _) => return Answered::Quit,
        (None, _) => return Answered::Gone,
        _ => {}
    }
    Answered::GoOn
}

/// Allows this process as many descriptors as its hard limit does, and gives the limit from before.
pub fn raise_descriptor_limit() -> rlimit::Limit {
    let resource = rlimit::Resource::Nofile;
    let before = rlimit::get(resource);
    // Refused: the old limit stays, and says so when it is reached.
    let _ = rlimit::set(None, resource, rlimit::Limit { soft: before.hard, hard: before.hard });
    before
}

/// The supervisor's side.
#[derive(Debug)]
pub struct Holder {
    socket: OwnedFd,
}

impl Holder {
    /// Connects to the holder of the supervisor's root, or starts one.
    ///
    /// # Errors
    /// When neither can be done.
    pub fn find(root: &Path) -> io::Result<Self> {
        let path = socket_path(root);
        if let Ok(socket) = socket::connect_packet(&path) {
            return Ok(Self { socket });
        }
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        // It listens before the holder runs, so there is nothing to wait for.
        let listener = socket::listen_packet(&path)?;
        Command::new("/proc/self/exe")
            .arg("holder")
            .stdin(Stdio::from(listener))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { socket: socket::connect_packet(&path)? })
    }

    /// Gives it a copy of `fd`.
    ///
    /// # Errors
    /// When it has gone.
    pub fn put(&self, name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(socket::send(self.socket.as_fd(), format!("+{name}").as_bytes(), &[fd])?)
    }

    /// Lets it forget a descriptor.
    ///
    /// # Errors
    /// When it has gone.
    pub fn forget(&self, name: &str) -> io::Result<()> {
        Ok(socket::send(self.socket.as_fd(), format!("-{name}").as_bytes(), &[])?)
    }

    /// Copies of all that it holds, by name.
    ///
    /// # Errors
    /// When it has gone.
    pub fn fetch(&self) -> io::Result<BTreeMap<String, OwnedFd>> {
        socket::send(self.socket.as_fd(), b"?", &[])?;
        let mut held = BTreeMap::new();
        loop {
            let mut buffer = [0; LONGEST];
            let (length, fds) = socket::receive(self.socket.as_fd(), &mut buffer)?;
            match (&buffer[..length], fds.into_iter().next()) {
                (b".", None) => return Ok(held),
                ([], _) => return Err(io::ErrorKind::UnexpectedEof.into()),
                (name, Some(fd)) => drop(held.insert(String::from_utf8_lossy(name).into_owned(), fd)),
                (_, None) => {}
            }
        }
    }

    /// Tells it to end.
    pub fn quit(&self) {
        // One that has gone already is fine.
        let _ = socket::send(self.socket.as_fd(), b"q", &[]);
    }
}

impl AsFd for Holder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn socket_path(root: &Path) -> PathBuf {
    root.join(SOCKET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_of_one_who_died_count() {
        let folder = tempfile::tempdir().unwrap();
        let listener = socket::listen_packet(&socket_path(folder.path())).unwrap();
        let (reader, writer) = croft_sys::pipe().unwrap();
        // All of this is there before the holder looks for the first time.
        let first = Holder::find(folder.path()).unwrap();
        for n in 0..20 {
            first.put(&format!("{n}/stdin"), writer.as_fd()).unwrap();
            first.forget(&format!("{n}/stdin")).unwrap();
        }
        drop((first, writer));
        let second = Holder::find(folder.path()).unwrap();
        let holder = std::thread::spawn(move || serve(&listener));
        assert_eq!(second.fetch().unwrap().len(), 0);
        assert_eq!(croft_sys::read(reader.as_fd(), &mut [0; 8]), Ok(0), "the pipe is closed");
        second.quit();
        holder.join().unwrap().unwrap();
    }

    #[test]
    fn what_it_holds_outlives_the_one_who_gave_it() {
        let folder = tempfile::tempdir().unwrap();
        let listener = socket::listen_packet(&socket_path(folder.path())).unwrap();
        let holder = std::thread::spawn(move || serve(&listener));
        let (reader, writer) = croft_sys::pipe().unwrap();
        let first = Holder::find(folder.path()).unwrap();
        first.put("a/stdout", reader.as_fd()).unwrap();
        first.put("b/stdout", reader.as_fd()).unwrap();
        first.forget("b/stdout").unwrap();
        drop((first, reader));
        croft_sys::write(writer.as_fd(), b"hello").unwrap();
        let second = Holder::find(folder.path()).unwrap();
        let held = second.fetch().unwrap();
        assert_eq!(held.keys().collect::<Vec<_>>(), ["a/stdout"]);
        let mut buffer = [0; 8];
        assert_eq!(croft_sys::read(held["a/stdout"].as_fd(), &mut buffer), Ok(5));
        second.quit();
        holder.join().unwrap().unwrap();
    }
}
