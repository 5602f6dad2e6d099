//! The program runs from a read-only mount of its own, so that no container can write to it (CVE-2019-5736).

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;

use anyhow::{Context, Result};
use croft_engine::program;

/// Runs this program again from a sealed mount, unless it runs from a read-only one already.
///
/// # Errors
/// When that fails. An ordinary user can make no mount. The file of a program that is the system's is out of reach of the
/// user's containers; one of the user's own is copied into memory and sealed there, which costs milliseconds.
pub fn run_sealed() -> Result<()> {
    if program::is_sealed().context("look at the own program")? {
        return Ok(());
    }
    let own = program::own().context("open the own program")?;
    let sealed = match program::seal(own.as_fd()) {
        Ok(sealed) => sealed,
        Err(e) if e.errno() == program::NOT_PERMITTED => {
            if program::belongs_to_the_system(own.as_fd()).context("look at the own program")? {
                return Ok(());
            }
            program::seal_copy().context("copy the own program into memory")?
        }
        Err(e) => return Err(e).context("make a read-only mount of the own program"),
    };
    let to_c = |text: std::ffi::OsString| CString::new(text.into_vec()).context("an argument has a NUL byte");
    let args: Vec<CString> = std::env::args_os().map(to_c).collect::<Result<_>>()?;
    let env: Vec<CString> = std::env::vars_os()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            to_c(name)
        })
        .collect::<Result<_>>()?;
    match program::fexecve(sealed.as_fd(), &args, &env).context("run the sealed program")? {}
}
