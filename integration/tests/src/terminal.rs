//! Terminals: bytes both ways without loss, sizes, keys that are signals, modes, sockets that get a terminal's master.
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use croft_harness::process;
use croft_harness::suite::OnRunc;
use croft_harness::terminal::{FdSocket, Terminal};
use croft_harness::{Bundle, Facility, Host, Subject, Test};
use rustix::process::{Pid, Signal, kill_process};

const ROOT: &[Facility] = &[Facility::Root];
const LIMIT: Duration = Duration::from_secs(20);

pub const SUBJECT: Subject = Subject {
    name: "terminal",
    on_runc: &[
        (
            "size_at_the_start_and_later",
            OnRunc::Races("runc gives the terminal its size when the program may have begun already"),
        ),
        (
            "input_that_ends_ends_inside_too",
            OnRunc::Fails("runc never tells the container that its input has ended: cat waits for ever"),
        ),
        (
            "bytes_pass_both_ways",
            OnRunc::CroftOnly("runc leaves the caller's terminal turning line feeds into two bytes"),
        ),
        (
            "exec_passes_bytes_both_ways",
            OnRunc::CroftOnly("runc leaves the caller's terminal turning line feeds into two bytes"),
        ),
    ],
    tests: &[
        Test { name: "bytes_pass_both_ways", requires: ROOT, run: bytes_pass_both_ways },
        Test { name: "exec_passes_bytes_both_ways", requires: ROOT, run: exec_passes_bytes_both_ways },
        Test { name: "all_output_is_shown_before_the_end", requires: ROOT, run: all_output },
        Test { name: "size_at_the_start_and_later", requires: ROOT, run: size_at_the_start_and_later },
        Test { name: "size_of_the_configuration", requires: ROOT, run: size_of_the_configuration },
        Test { name: "keys_are_signals_inside", requires: ROOT, run: keys_are_signals_inside },
        Test { name: "mode_comes_back", requires: ROOT, run: mode_comes_back },
        Test { name: "input_that_ends_ends_inside_too", requires: ROOT, run: input_that_ends },
        Test { name: "refused_without_one", requires: ROOT, run: refused_without_one },
        Test { name: "console_socket_gets_the_master", requires: ROOT, run: console_socket },
        Test { name: "exec_console_socket_gets_the_master", requires: ROOT, run: exec_console_socket },
        Test { name: "an_ordinary_user_owns_its_terminal", requires: ROOT, run: an_ordinary_user_owns_it },
    ],
};

fn with_terminal(host: &Host, script: &str) -> Result<Bundle> {
    let bundle = Bundle::shell(host, script)?.edit(|c| c["process"]["terminal"] = true.into());
    bundle.save()?;
    Ok(bundle)
}

/// `run` in the foreground, for a terminal.
fn run(bundle: &Bundle) -> Command {
    let mut command = bundle.command("run");
    command.arg("--bundle").arg(bundle.folder()).arg(bundle.id());
    command
}

fn exec(bundle: &Bundle, options: &[&str], script: &str) -> Command {
    let mut command = bundle.command("exec");
    command.args(options).arg(bundle.id()).args(["/bin/sh", "-c", script]);
    command
}

/// Numbers as text, each of eight bytes, with every kind of byte between them.
fn numbered(count: u32) -> Vec<u8> {
    (0..count).flat_map(|n| [n.to_be_bytes(), n.wrapping_mul(0x9e37_79b1).to_le_bytes()].concat()).collect()
}

/// A terminal in raw mode inside: what is typed comes back byte by byte.
fn echoes(mut terminal: Terminal, bytes: &[u8]) -> Result<()> {
    terminal.wait_for("go\n", LIMIT)?;
    terminal.type_in(bytes, LIMIT)?;
    let back = terminal.take(bytes.len(), LIMIT)?;
    let differs = back.iter().zip(bytes).position(|(a, b)| a != b);
    ensure!(differs.is_none(), "byte {differs:?} differs");
    let (status, rest) = terminal.end(LIMIT)?;
    ensure!(status == 6 && rest.is_empty(), "{status} {rest:?}");
    Ok(())
}

fn bytes_pass_both_ways(host: &Host) -> Result<()> {
    let bytes = numbered(1 << 18);
    let script = format!("stty raw -echo; echo go; head -c {}; exit 6", bytes.len());
    let bundle = with_terminal(host, &script)?;
    echoes(Terminal::start(&run(&bundle), 24, 80)?, &bytes)
}

fn exec_passes_bytes_both_ways(host: &Host) -> Result<()> {
    let bytes = numbered(1 << 18);
    let bundle = Bundle::new(host, &["sleep", "1000"])?;
    bundle.started()?;
    let script = format!("stty raw -echo; echo go; head -c {}; exit 6", bytes.len());
    echoes(Terminal::start(&exec(&bundle, &["-t"], &script), 24, 80)?, &bytes)
}

fn all_output(host: &Host) -> Result<()> {
    let bundle = with_terminal(host, "seq 1 100000; exit 3")?;
    let mut terminal = Terminal::start(&run(&bundle), 24, 80)?;
    let (status, text) = terminal.end(LIMIT)?;
    let want: String = (1..=100_000).map(|n| format!("{n}\r\n")).collect();
    ensure!(status == 3 && text == want, "{status}, {} bytes instead of {}", text.len(), want.len());
    Ok(())
}

fn size_at_the_start_and_later(host: &Host) -> Result<()> {
    let bundle =
        with_terminal(host, "stty size; trap 'stty size; exit 5' WINCH; echo ready; sleep 1000 & wait")?;
    let mut terminal = Terminal::start(&run(&bundle), 33, 101)?;
    let text = terminal.wait_for("ready\r\n", LIMIT)?;
    ensure!(text == "33 101\r\nready\r\n", "{text:?}");
    terminal.resize(44, 120)?;
    let (status, text) = terminal.end(LIMIT)?;
    ensure!(status == 5 && text == "44 120\r\n", "{status} {text:?}");
    Ok(())
}

/// A detached container has the configuration's size: nobody's terminal is there to take one from.
fn size_of_the_configuration(host: &Host) -> Result<()> {
    let bundle = with_terminal(host, "stty size; exec sleep 1000")?
        .edit(|c| c["process"]["consoleSize"] = serde_json::json!({"height": 12, "width": 34}));
    let (master, _) = created_on_socket(&bundle)?;
    bundle.start()?.success()?;
    let text = read_line(&master)?;
    ensure!(text == "12 34\r\n", "{text:?}");
    Ok(())
}

fn keys_are_signals_inside(host: &Host) -> Result<()> {
    let bundle = with_terminal(host, "trap 'exit 9' INT; echo ready; sleep 1000 & wait")?;
    let mut terminal = Terminal::start(&run(&bundle), 24, 80)?;
    terminal.wait_for("ready\r\n", LIMIT)?;
    terminal.type_in(b"\x03", LIMIT)?;
    let (status, text) = terminal.end(LIMIT)?;
    ensure!(status == 9, "{status} {text:?}");
    Ok(())
}

/// Raw while the container runs, and as before afterwards, whether the program ends or the runtime is told to end.
fn mode_comes_back(host: &Host) -> Result<()> {
    for signal in [None, Some(Signal::TERM)] {
        let bundle = with_terminal(host, "trap 'exit 7' TERM; echo ready; read x; exit 8")?;
        let mut terminal = Terminal::start(&run(&bundle), 24, 80)?;
        let before = Terminal::start(&Command::new("true"), 24, 80)?.mode()?;
        terminal.wait_for("ready\r\n", LIMIT)?;
        ensure!(terminal.mode()? != before, "not raw");
        let want = match signal {
            Some(signal) => {
                kill_process(Pid::from_raw(terminal.pid() as i32).context("pid")?, signal)?;
                7
            }
            None => {
                terminal.type_in(b"\r", LIMIT)?;
                8
            }
        };
        let (status, text) = terminal.end(LIMIT)?;
        ensure!(status == want && terminal.mode()? == before, "{status} {text:?}");
    }
    Ok(())
}

/// A pipe into a terminal: when it ends, the program inside reads the end of its input.
fn input_that_ends(host: &Host) -> Result<()> {
    let bundle = Bundle::new(host, &["sleep", "1000"])?;
    bundle.started()?;
    let line = process::describe(&exec(&bundle, &["-t"], "cat >/dev/null"));
    let line = line.replace("cat >/dev/null", "'cat >/dev/null; exit 4'");
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("printf 'a line\\nhalf a line' | timeout --foreground 5 {line}")]);
    let mut terminal = Terminal::start(&shell, 24, 80)?;
    let (status, text) = terminal.end(LIMIT)?;
    ensure!(status == 4, "{status} {text:?}");
    Ok(())
}

fn refused_without_one(host: &Host) -> Result<()> {
    let bundle = with_terminal(host, "true")?;
    let detached = bundle.run_with(&["--detach"])?.failure()?;
    let words = "cannot allocate tty if runc will detach without setting console socket";
    ensure!(detached.contains(words), "{detached}");
    let created = bundle.create()?.failure()?;
    ensure!(created.contains(words), "{created}");
    let mut alone = Command::new("setsid");
    let run = run(&bundle);
    alone.arg("--wait").arg(run.get_program()).args(run.get_args());
    let text = process::run(&mut alone, LIMIT)?.failure()?;
    ensure!(text.contains("open /dev/tty: no such device or address"), "{text}");
    let plain = Bundle::shell(host, "true")?;
    let socket = plain.folder().join("socket");
    let socket = socket.to_string_lossy();
    let text = plain.create_with(&["--console-socket", &socket])?.failure()?;
    ensure!(text.contains("cannot use console socket if runc will not detach or allocate tty"), "{text}");
    Ok(())
}

/// `create` with a console socket: the terminal's master, and the name that came with it.
fn created_on_socket(bundle: &Bundle) -> Result<(OwnedFd, String)> {
    let path = bundle.folder().join("socket");
    let socket = FdSocket::listen(&path)?;
    bundle.create_with(&["--console-socket", &path.to_string_lossy()])?.success()?;
    socket.received()
}

fn read_line(master: &impl AsFd) -> Result<String> {
    let mut text = String::new();
    while !text.ends_with('\n') {
        let mut buffer = [0; 256];
        let n = rustix::io::read(master, &mut buffer).context("read a terminal's master")?;
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    Ok(text)
}

fn console_socket(host: &Host) -> Result<()> {
    let bundle = with_terminal(host, "stty -echo; echo ready; read x; echo got $x; exec sleep 1000")?;
    let (master, name) = created_on_socket(&bundle)?;
    ensure!(name.contains("ptmx") || name.contains("pts"), "{name:?}");
    bundle.start()?.success()?;
    ensure!(read_line(&master)? == "ready\r\n");
    rustix::io::write(&master, b"word\r")?;
    let text = read_line(&master)?;
    ensure!(text == "got word\r\n", "{text:?}");
    Ok(())
}

fn exec_console_socket(host: &Host) -> Result<()> {
    let bundle = Bundle::new(host, &["sleep", "1000"])?;
    bundle.started()?;
    let path = bundle.folder().join("socket");
    let socket = FdSocket::listen(&path)?;
    let pid_file = bundle.folder().join("pid");
    let (path, pid_path) = (path.to_string_lossy(), pid_file.to_string_lossy());
    let options = ["-t", "-d", "--console-socket", &path, "--pid-file", &pid_path];
    bundle.exec_with(&options, &["/bin/sh", "-c", "tty; read x; echo got $x"])?.success()?;
    let (master, _) = socket.received()?;
    let text = read_line(&master)?;
    ensure!(text.starts_with("/dev/pts/"), "{text:?}");
    rustix::io::write(&master, b"word\r")?;
    ensure!(read_line(&master)?.starts_with("word"));
    let pid = Pid::from_raw(std::fs::read_to_string(&pid_file)?.parse()?).context("pid")?;
    rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())?;
    Ok(())
}

/// What an ordinary user has as its terminal it can open by name as well.
fn an_ordinary_user_owns_it(host: &Host) -> Result<()> {
    let bundle = with_terminal(host, "echo by name > $(tty) && exit 5")?
        .edit(|c| c["process"]["user"] = serde_json::json!({"uid": 1000, "gid": 1000}));
    bundle.save()?;
    let mut terminal = Terminal::start(&run(&bundle), 24, 80)?;
    let (status, text) = terminal.end(LIMIT)?;
    ensure!(status == 5 && text == "by name\r\n", "{status} {text:?}");
    Ok(())
}
