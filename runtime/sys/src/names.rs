//! Host and domain name of the caller's uts namespace, and folders that are made for a working directory.

use std::path::Path;

use crate::error::{Call, Result};

/// Sets the host name (sethostname(2)).
pub fn set_hostname(name: &str) -> Result<()> {
    rustix::system::sethostname(name.as_bytes()).call("sethostname")
}

/// Sets the NIS domain name (setdomainname(2)).
pub fn set_domainname(name: &str) -> Result<()> {
    rustix::system::setdomainname(name.as_bytes()).call("setdomainname")
}

/// Makes a folder and those above it, as the caller and in the caller's root.
pub fn mkdir_all(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).call("mkdir")
}
