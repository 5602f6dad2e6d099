//! What an fd in the set is, as the number that the kernel gives back for it.

use crate::frames::Output;

/// What is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Token {
    /// The socket that clients connect to.
    Listener,
    /// The signals.
    Signals,
    /// The holder.
    Holder,
    /// A client's connection.
    Connection(u32),
    /// A client attached to streams.
    Attached(u32),
    /// A process that is no child of this one.
    Process(u32),
    /// The input of a process.
    Input(u32),
    /// An output stream of a process.
    Output(u32, Output),
    /// A croft-oci at work, by its pid.
    Operation(u32),
    /// The start of a process.
    Start(u32),
}

impl Token {
    /// As a number.
    pub fn number(self) -> u64 {
        let (kind, which) = match self {
            Token::Listener => (0, 0),
            Token::Signals => (1, 0),
            Token::Holder => (2, 0),
            Token::Connection(n) => (3, n),
            Token::Attached(n) => (4, n),
            Token::Process(n) => (5, n),
            Token::Input(n) => (6, n),
            Token::Output(n, Output::Stdout) => (7, n),
            Token::Output(n, Output::Stderr) => (8, n),
            Token::Operation(n) => (9, n),
            Token::Start(n) => (10, n),
        };
        kind << 32 | u64::from(which)
    }

    /// From its number.
    pub fn of(number: u64) -> Option<Self> {
        let which = number as u32;
        Some(match number >> 32 {
            0 => Token::Listener,
            1 => Token::Signals,
            2 => Token::Holder,
            3 => Token::Connection(which),
            4 => Token::Attached(which),
            5 => Token::Process(which),
            6 => Token::Input(which),
            7 => Token::Output(which, Output::Stdout),
            8 => Token::Output(which, Output::Stderr),
            9 => Token::Operation(which),
            10 => Token::Start(which),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_tokens() {
        let process = [
            Token::Connection(7),
            Token::Attached(7),
            Token::Process(7),
            Token::Input(u32::MAX),
            Token::Start(8),
        ];
        let streams = Output::BOTH.map(|output| Token::Output(9, output));
        for token in
            [Token::Listener, Token::Signals, Token::Holder].into_iter().chain(process).chain(streams)
        {
            assert_eq!(Token::of(token.number()), Some(token));
        }
        assert_eq!(Token::of(99 << 32), None);
    }
}
