//! The one error of this crate: which kernel call failed, and why.

use rustix::io::Errno;

/// The outcome of a kernel call.
pub type Result<T> = std::result::Result<T, Error>;

/// A kernel call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {}", reason(*errno))]
pub struct Error {
    call: &'static str,
    errno: Errno,
}

impl Error {
    /// An error of `call` with a known reason.
    pub fn new(call: &'static str, errno: Errno) -> Self {
        Self { call, errno }
    }

    /// An error of `call` with the calling thread's `errno`.
    pub fn last(call: &'static str) -> Self {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        Self { call, errno: Errno::from_raw_os_error(errno) }
    }

    /// What a call made through libc returned, or `call` failing with this thread's errno if that is -1.
    pub(crate) fn check(call: &'static str, returned: libc::c_long) -> Result<libc::c_long> {
        if returned == -1 { Err(Error::last(call)) } else { Ok(returned) }
    }

    /// The name of the call, as in its manual page.
    pub fn call(&self) -> &'static str {
        self.call
    }

    /// The kernel's reason.
    pub fn errno(&self) -> Errno {
        self.errno
    }
}

/// The words of strerror(3), in lower case and without the number, as Go says them: callers of runc match on those.
pub fn reason(errno: Errno) -> String {
    let text = std::io::Error::from_raw_os_error(errno.raw_os_error()).to_string();
    let words = text.split(" (os error").next().unwrap_or_default();
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// Names the call of a failed `rustix`, `nix` or `std` result.
pub trait Call<T> {
    /// Turns the foreign error into one that says which `call` failed.
    fn call(self, call: &'static str) -> Result<T>;
}

impl<T> Call<T> for std::result::Result<T, Errno> {
    fn call(self, call: &'static str) -> Result<T> {
        self.map_err(|errno| Error::new(call, errno))
    }
}

impl<T> Call<T> for std::result::Result<T, nix::errno::Errno> {
    fn call(self, call: &'static str) -> Result<T> {
        self.map_err(|errno| Error::new(call, Errno::from_raw_os_error(errno as i32)))
    }
}

impl<T> Call<T> for std::io::Result<T> {
    fn call(self, call: &'static str) -> Result<T> {
        self.map_err(|e| {
            let errno = e.raw_os_error().unwrap_or(libc::EIO);
            Error::new(call, Errno::from_raw_os_error(errno))
        })
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> std::io::Error {
        error.errno.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_said_as_go_says_them() {
        assert_eq!(Error::new("open", Errno::NOENT).to_string(), "open: no such file or directory");
        assert_eq!(reason(Errno::SRCH), "no such process");
    }
}
