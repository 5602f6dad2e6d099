//! The container's process, from its birth to its program.
//!
//! It is a clone of the runtime, in the plan's new namespaces and groups, with a copy of the runtime's memory: the plan and
//! every descriptor that it needs are there at birth. The program that it runs is a sealed one (`croft_sys::exec::seal`).

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use croft_plan::build::Plan;
use croft_plan::handshake::{Failure, FromHost, FromInit, LONGEST_ANSWER};
use croft_plan::spec::HookPoint;
use croft_plan::step::Step;
use croft_sys::{prctl, signal, socket};

use crate::apply::{apply, home_of};
use crate::gate::{By, Gate};
use crate::hooks;
use crate::world::World;

/// What init needs beside the plan.
#[derive(Debug)]
pub struct Init<'a> {
    /// What to do.
    pub plan: &'a Plan,
    /// The connection to the host.
    pub host: OwnedFd,
    /// Where to wait before the program; a further process of a container does not wait.
    pub gate: Option<Gate>,
    /// The container's state for hooks that init runs.
    pub state: Vec<u8>,
    /// Descriptors from 3 on that the program inherits.
    pub preserve: u32,
}

/// Runs as the container's process. Never returns: it becomes the program, or ends.
pub fn run(init: Init<'_>, world: &mut World) -> ! {
    let failure = match steps(&init, world) {
        Err(failure) => failure,
        Ok(never) => match never {},
    };
    // One write(2): a filter may be in force.
    let text = serde_json::to_vec(&FromInit::Failed(failure)).unwrap_or_default();
    let _ = croft_sys::write(init.host.as_fd(), &text);
    std::process::exit(1)
}

fn fail(step: &str, error: impl std::fmt::Display, errno: Option<i32>) -> Failure {
    Failure { step: step.to_owned(), reason: error.to_string(), errno }
}

fn kernel(step: &'static str) -> impl Fn(croft_sys::Error) -> Failure {
    move |e| fail(step, e, Some(e.errno().raw_os_error()))
}

fn steps(init: &Init<'_>, world: &mut World) -> Result<Infallible, Failure> {
    let plan = init.plan;
    // The lock of the state folder above all: it would be held for as long as the container waits.
    let mut keep = world.held();
    keep.push(init.host.as_fd());
    keep.extend(init.gate.iter().flat_map(|g| [g.start.as_fd(), g.failure.as_fd()]));
    croft_sys::exec::close_all_but(3 + init.preserve, &keep).map_err(kernel("close descriptors"))?;
    let _ = prctl::set_name(c"croft:[init]");
    // The runtime's own: SIGPIPE is ignored in every Rust program, and one that stays has signals held back.
    signal::reset_handlers().map_err(kernel("reset signals"))?;
    signal::set_blocked(signal::Set::EMPTY).map_err(kernel("reset signals"))?;
    if !plan.terminal {
        croft_sys::new_session().map_err(kernel("new session"))?;
    }
    if plan.maps {
        ask(init, &FromInit::MapMe, FromHost::Mapped)?;
    }
    apply(&plan.mounts, world)?;
    if has_runtime_hooks(plan) {
        ask(init, &FromInit::RunHooks, FromHost::HooksDone)?;
    }
    run_hooks(plan, HookPoint::CreateContainer, &init.state)?;
    apply(&plan.root, world)?;
    if is_awaited(plan, init.gate.is_some()) {
        tell_ready(init, world)?;
    }
    // From here on it has no more rights than the container's other processes, who must not look into it (CVE-2016-9962).
    prctl::set_dumpable(prctl::Dumpable::No).map_err(kernel("hide from ptrace"))?;
    world.close_all();
    croft_sys::exec::close_on_exec_from(3 + init.preserve).map_err(kernel("close descriptors on exec"))?;
    world.search_path = search_path(&plan.exec.env);
    for step in &plan.process {
        apply(std::slice::from_ref(step), world)?;
        if let (Step::LoadFilter { .. }, Some(number)) = (step, world.listener) {
            ask(init, &FromInit::Listener(number), FromHost::ListenerTaken)?;
        }
    }
    exec(init, world)
}

/// Whether hooks are due that the host runs while init waits.
pub fn has_runtime_hooks(plan: &Plan) -> bool {
    [HookPoint::Prestart, HookPoint::CreateRuntime].iter().any(|point| !plan.hooks.at(*point).is_empty())
}

/// Whether the runtime waits for init to be ready. What has no gate becomes its program before the runtime has looked at it.
pub fn is_awaited(plan: &Plan, gated: bool) -> bool {
    !gated || plan.waits_with_its_rights()
}

fn exec(init: &Init<'_>, world: &World) -> Result<Infallible, Failure> {
    let plan = init.plan;
    let c = |text: &String| CString::new(text.as_str()).map_err(|e| fail("exec", e, None));
    let args: Vec<CString> = plan.exec.args.iter().map(c).collect::<Result<_, _>>()?;
    let mut env = plan.exec.env.clone();
    if !env.iter().any(|e| e.starts_with("HOME=")) {
        env.push(format!("HOME={}", home_of(plan.exec.uid)));
    }
    let env: Vec<CString> = env.iter().map(c).collect::<Result<_, _>>()?;
    let run = || {
        let Some(program) = &world.program else { return fail("exec", "no program was found", None) };
        let error = match croft_sys::exec::execve(program, &args, &env) {
            Err(error) => error,
            Ok(never) => match never {},
        };
        let text = std::io::Error::from(error).to_string();
        let why = text.split(" (os error").next().unwrap_or_default().to_lowercase();
        fail("exec", format!("exec: {:?}: {why}", plan.exec.args[0]), Some(error.errno().raw_os_error()))
    };
    let Some(gate) = &init.gate else { return Err(run()) };
    match gate.opener {
        // Before it is recorded nobody could find it: it ends with the host then, and not after.
        By::Another => ask(init, &FromInit::Gated, FromHost::Recorded)?,
        // The gate opens once it is recorded, or never.
        By::Runtime => say(init, &FromInit::Gated, &[])?,
    }
    croft_sys::shut(init.host.as_fd());
    let why = match gate.wait() {
        Err(_) => std::process::exit(1),
        Ok(()) => match run_hooks(plan, HookPoint::StartContainer, &init.state) {
            Err(failure) => format!("{}: {}", failure.step, failure.reason),
            // The configuration has no process. The starter tells the user.
            Ok(()) if plan.exec.args.is_empty() => std::process::exit(0),
            Ok(()) => run().reason,
        },
    };
    gate.fail(&why);
    std::process::exit(1)
}

fn search_path(env: &[String]) -> String {
    let found = env.iter().rev().find_map(|e| e.strip_prefix("PATH="));
    found.unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").to_owned()
}

fn run_hooks(plan: &Plan, point: HookPoint, state: &[u8]) -> Result<(), Failure> {
    hooks::run(plan.hooks.at(point), point, state).map_err(|e| fail("run hooks", e, None))
}

fn tell_ready(init: &Init<'_>, world: &mut World) -> Result<(), Failure> {
    let terminal = world.terminal.take();
    let fds: Vec<_> = terminal.iter().map(|t| t.as_fd()).collect();
    say(init, &FromInit::Ready, &fds)?;
    hear(init, FromHost::Proceed)
}

fn ask(init: &Init<'_>, message: &FromInit, answer: FromHost) -> Result<(), Failure> {
    say(init, message, &[])?;
    hear(init, answer)
}

fn say(init: &Init<'_>, message: &FromInit, fds: &[std::os::fd::BorrowedFd<'_>]) -> Result<(), Failure> {
    let text = serde_json::to_vec(message).map_err(|e| fail("speak to the host", e, None))?;
    if fds.is_empty() {
        return croft_sys::write(init.host.as_fd(), &text)
            .map(drop)
            .map_err(|e| fail("speak to the host", e, None));
    }
    socket::send(init.host.as_fd(), &text, fds).map_err(kernel("speak to the host"))
}

fn hear(init: &Init<'_>, want: FromHost) -> Result<(), Failure> {
    let mut buffer = [0; LONGEST_ANSWER];
    let n = loop {
        match croft_sys::read(init.host.as_fd(), &mut buffer) {
            Err(croft_sys::Errno::INTR) => {}
            other => break other.map_err(|e| fail("listen to the host", e, None))?,
        }
    };
    if n == 0 {
        // The host is gone: nobody is left to tell.
        std::process::exit(1);
    }
    match serde_json::from_slice::<FromHost>(&buffer[..n]) {
        Ok(said) if said == want => Ok(()),
        other => Err(fail("listen to the host", format!("it said {other:?} instead of {want:?}"), None)),
    }
}
