//! What `croftd check --fix` does: settings of the kernel that croft needs, modules, and croft's own folders.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Host;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fix {
    /// Sets a kernel parameter, until the next boot.
    Sysctl {
        /// Its name, as sysctl(8) has it.
        name: &'static str,
        /// What it becomes.
        value: u64,
    },
    /// Loads a module.
    Module(&'static str),
    /// Makes a folder that root alone can look into.
    Folder(PathBuf),
}

/// The file of a kernel parameter.
pub fn sysctl_file(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}

impl Fix {
    /// Makes the change. Gives what was done, in words.
    ///
    /// # Errors
    /// Why it could not be.
    pub fn apply(&self, host: &Host) -> Result<String> {
        match self {
            Fix::Sysctl { name, value } => {
                let path = host.path(&sysctl_file(name));
                let before = fs::read_to_string(&path).unwrap_or_default();
                fs::write(&path, value.to_string()).with_context(|| format!("write {}", path.display()))?;
                Ok(format!("{name} was {} and is {value} until the next boot", before.trim()))
            }
            Fix::Module(name) => {
                let mut modprobe = Command::new("modprobe");
                modprobe.arg("--dirname").arg(&host.root).arg(name);
                let done = modprobe.output().context("start modprobe")?;
                let said = String::from_utf8_lossy(&done.stderr);
                ensure!(done.status.success(), "modprobe {name}: {}", said.trim());
                Ok(format!("module {name} is loaded"))
            }
            Fix::Folder(path) => {
                let below = host.path(&path.to_string_lossy());
                let made = DirBuilder::new().recursive(true).mode(0o711).create(&below);
                made.with_context(|| format!("make {}", below.display()))?;
                Ok(format!("folder {} is made", path.display()))
            }
        }
    }
}
