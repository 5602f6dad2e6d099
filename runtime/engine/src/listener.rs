//! Handing a system call filter's listener to its agent: runtime-spec config-linux.md, The Container Process State.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use croft_sys::socket;

use crate::error::{Context, Error, Result};

/// Sends the listener with the container process state to the socket at `path`.
///
/// # Errors
/// When nobody listens there.
pub fn send(path: &Path, metadata: &str, listener: BorrowedFd<'_>, state: &[u8]) -> Result<()> {
    let state: serde_json::Value = serde_json::from_slice(state)
        .map_err(|e| Error::refused("container process state", e.to_string()))?;
    let message = serde_json::json!({
        "ociVersion": state["ociVersion"],
        "fds": ["seccompFd"],
        "pid": state["pid"],
        "metadata": metadata,
        "state": state,
    });
    let socket = socket::connect_stream(path).on(|| format!("connect to {}", path.display()))?;
    socket::send(socket.as_fd(), message.to_string().as_bytes(), &[listener])
        .on(|| format!("send the listener to {}", path.display()))
}
