//! Host and init: what each may say when.
//!
//! ```text
//!   init                      host
//!   Born ── MapMe ─────────▶  writes the id maps
//!        ◀──────── Mapped ──                          (only with a new user namespace)
//!   Mounted ── RunHooks ───▶  runs prestart, createRuntime
//!        ◀──── HooksDone ───                          (only with such hooks)
//!   Rooted ── Ready ───────▶  sets limits             (beside it: the terminal's master)
//!        ◀────── Proceed ───                          (not where the gate comes with nothing to do before it)
//!   Filtered ─ Listener(n) ▶  fetches descriptor n
//!        ◀─ ListenerTaken ──                          (only with a listener)
//!   Gated ── Gated ────────▶  saves "created"
//!        ◀───── Recorded ───                          (not where the host opens the gate itself: that is the answer;
//!                                                      a further process closes the socket by its exec instead)
//!   any ── Failed ─────────▶  undoes, reaps, reports
//! ```
//!
//! Messages are JSON, one a packet. Init waits for an answer wherever it could otherwise outlive a host that dies: at the
//! end of the stream it ends. From `Recorded` on, `delete` finds it by the record.

use serde::{Deserialize, Serialize};

/// The longest message, in bytes.
pub const LONGEST: usize = 16 * 1024;

/// The longest that the host says, in bytes.
pub const LONGEST_ANSWER: usize = 64;

/// What init says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromInit {
    /// Its user namespace waits for maps.
    MapMe,
    /// Namespaces and mounts are made; the runtime's hooks are due.
    RunHooks,
    /// The root is in place and all that can fail there has not. A terminal's master may be beside this.
    Ready,
    /// The system call filter has a listener: the number of its descriptor in init.
    Listener(i32),
    /// It is about to wait for its start.
    Gated,
    /// A step failed; init ends.
    Failed(Failure),
}

/// What the host says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromHost {
    /// The id maps are written.
    Mapped,
    /// The hooks have run.
    HooksDone,
    /// Give up your rights.
    Proceed,
    /// The host has the listener.
    ListenerTaken,
    /// The container is recorded: wait at the gate, whatever becomes of the host.
    Recorded,
}

/// A step that failed, as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step's line.
    pub step: String,
    /// Why.
    pub reason: String,
    /// The kernel's error number, where it was the kernel that refused.
    pub errno: Option<i32>,
}

/// How far init is, as the host knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Just cloned.
    Born,
    /// Its ids are mapped.
    Mapped,
    /// The runtime's hooks have run.
    Hooked,
    /// It is ready to give up its rights.
    Rooted,
    /// Its filter's listener is taken.
    Filtered,
    /// It waits at the gate.
    Gated,
    /// It failed.
    Failed,
}

/// Which optional messages a plan has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expect {
    /// A new user namespace.
    pub maps: bool,
    /// Hooks of the runtime.
    pub hooks: bool,
    /// Something to do before it gives up its rights.
    pub ready: bool,
    /// A filter's listener.
    pub listener: bool,
    /// A gate. Without one the end of the stream means that init has become its program.
    pub gate: bool,
}

/// What reached the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message.
    Said(FromInit),
    /// The end of the stream.
    Closed,
}

/// A message that is not due.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("init said {event:?} when it was {state:?}")]
pub struct OutOfOrder {
    /// How far init was.
    pub state: State,
    /// What it said.
    pub event: Event,
}

impl State {
    /// The state after `event`.
    ///
    /// # Errors
    /// When the event is not due: init is broken, or not what answers.
    pub fn next(self, event: &Event, expect: Expect) -> Result<State, OutOfOrder> {
        use Event::{Closed, Said};
        let mapped = self == State::Mapped || (self == State::Born && !expect.maps);
        let hooked = self == State::Hooked || (mapped && !expect.hooks);
        let rooted = self == State::Rooted || (hooked && !expect.ready);
        let filtered = self == State::Filtered || (rooted && !expect.listener);
        match event {
            Said(FromInit::Failed(_)) if !matches!(self, State::Gated | State::Failed) => Ok(State::Failed),
            Said(FromInit::MapMe) if self == State::Born && expect.maps => Ok(State::Mapped),
            Said(FromInit::RunHooks) if mapped && expect.hooks => Ok(State::Hooked),
            Said(FromInit::Ready) if hooked && expect.ready => Ok(State::Rooted),
            Said(FromInit::Listener(_)) if rooted && expect.listener => Ok(State::Filtered),
            Said(FromInit::Gated) if filtered && expect.gate => Ok(State::Gated),
            Closed if filtered && !expect.gate => Ok(State::Gated),
            _ => Err(OutOfOrder { state: self, event: event.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 7] = [
        State::Born,
        State::Mapped,
        State::Hooked,
        State::Rooted,
        State::Filtered,
        State::Gated,
        State::Failed,
    ];

    fn events() -> Vec<Event> {
        let failure = Failure { step: "s".into(), reason: "r".into(), errno: None };
        let said = [
            FromInit::MapMe,
            FromInit::RunHooks,
            FromInit::Ready,
            FromInit::Listener(3),
            FromInit::Gated,
            FromInit::Failed(failure),
        ];
        said.into_iter().map(Event::Said).chain([Event::Closed]).collect()
    }

    /// Every pair of state and event, for every plan: exactly one order leads to the gate.
    #[test]
    fn one_order_leads_to_the_gate() {
        for bits in 0..32 {
            let [maps, hooks, ready, listener, gate] = [1, 2, 4, 8, 16].map(|bit| bits & bit > 0);
            let expect = Expect { maps, hooks, ready, listener, gate };
            let mut paths = vec![(State::Born, Vec::new())];
            let mut arrived = Vec::new();
            while let Some((state, path)) = paths.pop() {
                for event in events() {
                    match state.next(&event, expect) {
                        Ok(State::Gated) => arrived.push(path.clone()),
                        Ok(State::Failed) => {}
                        Ok(next) => {
                            let mut longer = path.clone();
                            longer.push(event.clone());
                            assert!(longer.len() < 5, "a loop: {longer:?}");
                            paths.push((next, longer));
                        }
                        Err(error) => assert_eq!((error.state, error.event), (state, event)),
                    }
                }
            }
            assert_eq!(arrived.len(), 1, "{expect:?}: {arrived:?}");
            let mut want = Vec::new();
            want.extend(expect.maps.then_some(Event::Said(FromInit::MapMe)));
            want.extend(expect.hooks.then_some(Event::Said(FromInit::RunHooks)));
            want.extend(expect.ready.then_some(Event::Said(FromInit::Ready)));
            want.extend(expect.listener.then_some(Event::Said(FromInit::Listener(3))));
            assert_eq!(arrived[0], want);
        }
    }

    #[test]
    fn nothing_follows_the_end() {
        for state in [State::Gated, State::Failed] {
            for event in events() {
                assert!(state.next(&event, Expect::default()).is_err(), "{state:?} {event:?}");
            }
        }
    }

    #[test]
    fn failing_is_allowed_anywhere_before_the_end() {
        let failed = events().remove(5);
        for state in STATES.into_iter().filter(|s| !matches!(s, State::Gated | State::Failed)) {
            assert_eq!(state.next(&failed, Expect::default()), Ok(State::Failed), "{state:?}");
        }
    }
}
