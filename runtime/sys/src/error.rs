//! What a kernel call says when it fails: which call, and the errno.

use rustix::io::Errno;

/// The result of a kernel call.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed kernel call. The caller adds on what and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error {
    call: &'static str,
    errno: Errno,
}

impl Error {
    /// `call` failed with `errno`.
    pub fn new(call: &'static str, errno: Errno) -> Error {
        Error { call, errno }
    }

    /// `call` was made through libc and has just failed: takes this thread's errno.
    pub fn last(call: &'static str) -> Error {
        let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
        Error { call, errno }
    }

    /// The name of the call, as in its manual page.
    pub fn call(&self) -> &'static str {
        self.call
    }

    /// Why it failed.
    pub fn errno(&self) -> Errno {
        self.errno
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.call, self.errno)
    }
}

impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> std::io::Error {
        error.errno.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_call_and_the_reason() {
        let error = Error::new("mount", Errno::PERM);
        assert_eq!(error.errno(), Errno::PERM);
        assert_eq!(error.to_string(), "mount: Operation not permitted (os error 1)");
    }

    #[test]
    fn last_takes_the_errno_libc_left() {
        // SAFETY: close takes any number; -1 is no fd, so nothing is closed and errno is EBADF.
        let returned = unsafe { libc::close(-1) };
        assert_eq!((returned, Error::last("close")), (-1, Error::new("close", Errno::BADF)));
    }
}
