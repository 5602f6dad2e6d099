//! Scopes of systemd (`--systemd-cgroup`), asked for over D-Bus; see org.freedesktop.systemd1(5).
//!
//! A scope needs a process when it is made, and the container's process is to be born in the scope's group, with its limits
//! in force. So a process that does nothing holds the scope until then.
//!
//! The connection is rustbus's: it waits on the caller's own thread. zbus needs an executor, whose threads would make this
//! process one that must not clone (croft_sys::clone).

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use croft_plan::step::Property;
use croft_sys::clone::{Child, Parent, Side, clone3};
use croft_sys::{socket, wait};
use rustbus::connection::Timeout;
use rustbus::message_builder::{MarshalledMessage, MessageBuilder, MessageType};
use rustbus::{Marshal, RpcConn, Signature, standard_messages};

use crate::apply::{Cause, Outcome};
use crate::world::World;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PATH: &str = "/org/freedesktop/systemd1";

/// How long systemd may take for one job. It has other work too while a machine boots.
const LIMIT: Timeout = Timeout::Duration(Duration::from_secs(30));

/// A process that does nothing in a new scope; it ends with this, or with the runtime.
#[derive(Debug)]
pub struct Holder {
    child: Child,
    hold: Option<OwnedFd>,
}

impl Holder {
    fn new() -> croft_sys::Result<Self> {
        let (hold, theirs) = socket::packet_pair()?;
        match clone3(0, None, Parent::Caller)? {
            Side::Parent(child) => Ok(Self { child, hold: Some(hold) }),
            Side::Child => {
                // The lock of the state folder among them.
                let _ = croft_sys::exec::close_all_but(3, &[theirs.as_fd()]);
                let _ = croft_sys::read(theirs.as_fd(), &mut [0]);
                std::process::exit(0)
            }
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.hold = None;
        let _ = wait::wait(self.child.pidfd.as_fd());
    }
}

/// A property's value as D-Bus has it: a variant.
#[derive(Debug, Marshal, Signature)]
enum Value {
    Text(String),
    Flag(bool),
    Number(u64),
    Bytes(Vec<u8>),
    Processes(Vec<u32>),
}

fn values(properties: &[(String, Property)]) -> Vec<(String, Value)> {
    let value = |property: &Property| match property.clone() {
        Property::Text(text) => Value::Text(text),
        Property::Flag(flag) => Value::Flag(flag),
        Property::Number(number) => Value::Number(number),
        Property::Set(bytes) => Value::Bytes(bytes),
    };
    properties.iter().map(|(name, property)| (name.clone(), value(property))).collect()
}

/// Starts a scope, held by a process of ours until the container's is in it.
pub fn start_scope(world: &mut World, unit: &str, properties: &[(String, Property)]) -> Outcome {
    let holder = Holder::new()?;
    let mut manager = Manager::connect().map_err(Cause::because)?;
    let ask = |manager: &mut Manager| {
        let mut all = values(properties);
        all.push(("PIDs".to_owned(), Value::Processes(vec![holder.child.pid as u32])));
        let none: Vec<(String, Vec<(String, Value)>)> = Vec::new();
        let mut call = Manager::call("StartTransientUnit");
        call.body.push_param4(unit, "replace", all, none).map_err(|e| Failure::Bus(e.to_string()))?;
        manager.job(call)
    };
    let started = match ask(&mut manager) {
        // What a container of the same name has left, which failed and was not collected.
        Err(Failure::Refused { name, .. }) if name.ends_with(".UnitExists") => {
            let _ = manager.reset_failed(unit);
            ask(&mut manager)
        }
        other => other,
    };
    started.map_err(|e| Cause::because(e.to_string()))?;
    world.holder = Some(holder);
    Ok(())
}

/// Tells systemd the new limits of a scope.
pub fn change_scope(unit: &str, properties: &[(String, Property)]) -> Outcome {
    let change = || {
        let mut manager = Manager::connect()?;
        let mut call = Manager::call("SetUnitProperties");
        let pushed = call.body.push_param3(unit, true, values(properties));
        pushed.map_err(|e| Failure::Bus(e.to_string()))?;
        manager.ask(call).map(drop)
    };
    change().map_err(|e: Failure| Cause::because(e.to_string()))
}

/// Stops a scope. One that is gone is fine.
///
/// # Errors
/// In words.
pub fn stop_scope(unit: &str) -> Result<(), String> {
    let stop = || {
        let mut manager = Manager::connect()?;
        let mut call = Manager::call("StopUnit");
        call.body.push_param2(unit, "replace").map_err(|e| Failure::Bus(e.to_string()))?;
        manager.job(call)?;
        let _ = manager.reset_failed(unit);
        Ok(())
    };
    match stop() {
        Err(Failure::Refused { name, .. }) if name.ends_with(".NoSuchUnit") => Ok(()),
        other => other.map_err(|e: Failure| format!("stop systemd scope {unit}: {e}")),
    }
}

/// Why systemd did not do something.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("speak to systemd over D-Bus: {0}")]
    Bus(String),
    #[error("systemd refused: {text} ({name})")]
    Refused { name: String, text: String },
    #[error("systemd's job ended as {0:?}")]
    Job(String),
}

impl From<Failure> for String {
    fn from(failure: Failure) -> Self {
        failure.to_string()
    }
}

/// systemd, or an ordinary user's own.
struct Manager {
    bus: RpcConn,
}

impl Manager {
    fn connect() -> Result<Self, Failure> {
        let bus = if crate::is_root() { RpcConn::system_conn(LIMIT) } else { RpcConn::session_conn(LIMIT) };
        Ok(Self { bus: bus.map_err(|e| Failure::Bus(e.to_string()))? })
    }

    fn call(method: &str) -> MarshalledMessage {
        MessageBuilder::new().call(method).with_interface(MANAGER).on(PATH).at(SYSTEMD).build()
    }

    fn ask(&mut self, mut call: MarshalledMessage) -> Result<MarshalledMessage, Failure> {
        let bus = |e: String| Failure::Bus(e);
        let sent = self.bus.send_message(&mut call).map_err(|e| bus(e.to_string()))?;
        let serial = sent.write_all().map_err(|(_, e)| bus(e.to_string()))?;
        let answer = self.bus.wait_response(serial, LIMIT).map_err(|e| bus(e.to_string()))?;
        if answer.typ == MessageType::Error {
            let name = answer.dynheader.error_name.clone().unwrap_or_default();
            let text = answer.body.parser().get::<String>().unwrap_or_default();
            return Err(Failure::Refused { name, text });
        }
        Ok(answer)
    }

    /// Makes a call that gives a job, and waits for the job's end.
    fn job(&mut self, call: MarshalledMessage) -> Result<(), Failure> {
        let rule = format!("type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved'");
        self.ask(standard_messages::add_match(&rule))?;
        self.ask(Self::call("Subscribe"))?;
        let answer = self.ask(call)?;
        let job = answer.body.parser().get::<rustbus::wire::ObjectPath<String>>();
        let job = job.map_err(|e| Failure::Bus(e.to_string()))?;
        loop {
            let signal = self.bus.wait_signal(LIMIT).map_err(|e| Failure::Bus(e.to_string()))?;
            if signal.dynheader.member.as_deref() != Some("JobRemoved") {
                continue;
            }
            let ended = signal.body.parser().get4::<u32, rustbus::wire::ObjectPath<String>, String, String>();
            let (_, path, _, result) = ended.map_err(|e| Failure::Bus(e.to_string()))?;
            match result.as_str() {
                _ if path != job => {}
                "done" => return Ok(()),
                _ => return Err(Failure::Job(result)),
            }
        }
    }

    fn reset_failed(&mut self, unit: &str) -> Result<(), Failure> {
        let mut call = Self::call("ResetFailedUnit");
        call.body.push_param(unit).map_err(|e| Failure::Bus(e.to_string()))?;
        self.ask(call).map(drop)
    }
}
