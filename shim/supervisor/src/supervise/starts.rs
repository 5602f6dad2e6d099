//! Starts without a croft-oci: a gate is opened, and what comes of it is heard from the loop. Nothing is cloned for it.

use std::cmp::Reverse;
use std::os::fd::AsFd;
use std::time::Instant;

use croft_engine::start::{self, Starting};
use croft_sys::epoll::Interest;

use crate::protocol::{Failure, FailureKind, Reply};
use crate::supervise::Supervisor;
use crate::supervise::operations::Verb;
use crate::supervise::token::Token;

/// A start that is under way.
#[derive(Debug)]
pub struct Start {
    /// Who asked: connection and call.
    caller: (u32, u64),
    starting: Starting,
    /// Until when it may take.
    until: Instant,
}

impl Supervisor {
    /// Starts a container by opening its gate, when that is all there is to it. Otherwise, and when it cannot be started, nothing was done
    /// and it is for croft-oci, which says why not: false.
    pub(super) fn start_here(&mut self, caller: (u32, u64), n: u32) -> bool {
        let Some(process) = self.processes.get_mut(&n) else { return false };
        let Ok(Some(gated)) = start::by_gate(&self.states, &process.key.id) else { return false };
        let token = Token::Start(n);
        if self.poll.add(gated.as_fd(), token.number(), Interest::Readable).is_err() {
            return false;
        }
        // An error closes the descriptor, of which there is no other copy, and with that takes it out of the set.
        let Ok(starting) = gated.begin() else { return false };
        process.busy = Some(Verb::Start);
        let until = Instant::now() + self.options.limit;
        self.timers.push(Reverse((until, token)));
        self.starts.insert(n, Start { caller, starting, until });
        true
    }

    /// A container that is being started has become its program, or could not.
    pub(super) fn start_ready(&mut self, n: u32) {
        let Some(Start { caller, starting, .. }) = self.starts.remove(&n) else { return };
        // Closed with the rest of the start; the number may be another's at once.
        let _ = self.poll.remove(starting.as_fd());
        match starting.finish() {
            Ok(()) => {
                self.started(n);
                self.reply(caller.0, caller.1, Reply::Done);
                // It may have ended at once.
                self.finish(n);
            }
            Err(error) => self.start_failed(n, caller, error.to_string()),
        }
    }

    /// The time of a start was over at `at`; it may have ended before that.
    pub(super) fn start_late(&mut self, n: u32, at: Instant) {
        if self.starts.get(&n).is_none_or(|start| start.until != at) {
            return;
        }
        let Some(Start { caller, starting, .. }) = self.starts.remove(&n) else { return };
        let _ = self.poll.remove(starting.as_fd());
        let why = format!("its program did not begin within {:?}", self.options.limit);
        self.start_failed(n, caller, why);
    }

    fn start_failed(&mut self, n: u32, caller: (u32, u64), why: String) {
        let Some(process) = self.processes.get_mut(&n) else { return };
        process.busy = None;
        let what = format!("{} of {}", Verb::Start.name(), process.key);
        let failure = Failure { kind: FailureKind::Runtime, what, why };
        self.reply(caller.0, caller.1, Reply::Failed(failure));
        self.finish(n);
    }
}
