//! Builds the static programs: croft-oci, croft-shim, croft-init and croft, optimised, as a user gets them, and the probe.
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::debian::ensure_packages;
use crate::host::target_folder;
use crate::process;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The Debian packages that building croft needs: the C library that compiles system call filters, and how its crate finds it.
pub const PACKAGES: &[&str] = &["gcc", "pkg-config", "libc6-dev", "libseccomp-dev"];

/// Static glibc and no position independence: the kernel maps one file, and no relocation runs at each start.
const RUSTFLAGS: &str = "-C target-feature=+crt-static -C relocation-model=static";

/// A static binary has to stay below this, in bytes.
pub const SIZE_LIMIT: u64 = 6_000_000;

/// A cold build on a loaded machine.
const BUILD_LIMIT: Duration = Duration::from_secs(1800);

/// The type of a program header that names a dynamic loader (elf(5)).
const PT_INTERP: u32 = 3;

/// Where [`croft_oci`] puts the program.
pub fn croft_oci_path() -> Result<PathBuf> {
    installed_path("croft-oci")
}

/// The static, optimised croft-oci: built if the sources are newer, and checked to be static and below [`SIZE_LIMIT`].
///
/// Where cargo is not (the virtual machine) it is taken as it is.
pub fn croft_oci() -> Result<PathBuf> {
    installed("croft-oci")
}

/// Where [`croft_shim`] puts the program.
pub fn croft_shim_path() -> Result<PathBuf> {
    installed_path("croft-shim")
}

/// The static, optimised croft-shim, as [`croft_oci`].
pub fn croft_shim() -> Result<PathBuf> {
    installed("croft-shim")
}

/// Where [`croft_init`] puts the program.
pub fn croft_init_path() -> Result<PathBuf> {
    installed_path("croft-init")
}

/// The static, optimised croft-init, as [`croft_oci`].
pub fn croft_init() -> Result<PathBuf> {
    installed("croft-init")
}

/// The static, optimised croft, as [`croft_oci`]: half of the time of a short command would be the loading of libraries.
pub fn croft() -> Result<PathBuf> {
    installed("croft")
}

fn installed_path(package: &str) -> Result<PathBuf> {
    Ok(folder()?.join(TARGET).join("release").join(package))
}

fn installed(package: &str) -> Result<PathBuf> {
    let program = installed_path(package)?;
    build(package, "release", &program)?;
    check(&program)?;
    Ok(program)
}

/// The static program that tests put into containers, built as [`croft_oci`] is, but quickly.
pub fn probe() -> Result<PathBuf> {
    let program = folder()?.join(TARGET).join("probe/croft-probe");
    build("croft-probe", "probe", &program)?;
    program
        .canonicalize()
        .with_context(|| format!("{} is not built: run cargo xtask test", program.display()))
}

/// The croft-oci of which `CROFT_FAULT`, the text of a step, makes that step fail. A debug build, beside those of the tests:
/// only two crates are compiled for it.
pub fn faulty_croft_oci() -> Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = cargo();
    command.args(["build", "--quiet", "--package", "croft-oci"]);
    command.args(["--features", "fault", "--bin", "croft-oci-fault"]).current_dir(&workspace);
    process::run(&mut command, BUILD_LIMIT)?.success()?;
    Ok(target_folder()?.join("debug/croft-oci-fault"))
}

/// How croftd and croft are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// Quickly, for tests.
    Debug,
    /// Optimised, as a user gets them.
    Release,
}

/// croftd, croft-shim and croft: the programs that are used together, in this order. croft-shim is always the one that a user
/// gets, and croft-init is beside it.
pub fn daemon(build: Build) -> Result<[PathBuf; 3]> {
    let (folder, profile) = match build {
        Build::Debug => ("debug", "dev"),
        Build::Release => ("release", "release"),
    };
    let built = target_folder()?.join(folder);
    if env::var_os("CARGO").is_some() {
        ensure_packages(PACKAGES)?;
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut command = cargo();
        command.args(["build", "--quiet", "--profile", profile, "--package", "croftd"]);
        if build == Build::Debug {
            command.args(["--package", "croft"]);
        }
        process::run(command.current_dir(&workspace), BUILD_LIMIT)?.success()?;
    }
    croft_init()?;
    let croft = if build == Build::Debug { built.join("croft") } else { croft()? };
    Ok([built.join("croftd"), croft_shim()?, croft])
}

/// An example of a package of the workspace, as a debug build.
pub fn example(package: &str, name: &str) -> Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = cargo();
    command.args(["build", "--quiet", "--package", package, "--example", name]).current_dir(&workspace);
    ensure_packages(PACKAGES)?;
    process::run(&mut command, BUILD_LIMIT)?.success()?;
    Ok(target_folder()?.join("debug/examples").join(name))
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
}

fn build(package: &str, profile: &str, program: &Path) -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    if !workspace.join("Cargo.toml").exists() || (env::var_os("CARGO").is_none() && program.exists()) {
        return Ok(());
    }
    ensure_packages(PACKAGES)?;
    let mut command = cargo();
    command
        .args(["build", "--quiet", "--package", package, "--profile", profile, "--target", TARGET])
        .arg("--target-dir")
        .arg(folder()?)
        .current_dir(&workspace)
        .env("RUSTFLAGS", RUSTFLAGS);
    process::run(&mut command, BUILD_LIMIT)?.success().map(drop)
}

/// A target folder of its own: the flags hold for the whole build, and sharing one would rebuild everything in turns.
fn folder() -> Result<PathBuf> {
    Ok(target_folder()?.join("static"))
}

/// An error unless the program needs no loader and is small enough.
fn check(program: &Path) -> Result<()> {
    let bytes = fs::read(program).with_context(|| format!("read {}", program.display()))?;
    let types = program_header_types(&bytes).with_context(|| format!("{}: no ELF", program.display()))?;
    ensure!(!types.contains(&PT_INTERP), "{}: is not static", program.display());
    if bytes.len() as u64 >= SIZE_LIMIT {
        bail!("{}: has {} bytes, and {SIZE_LIMIT} is the limit", program.display(), bytes.len());
    }
    Ok(())
}

/// The types of the program headers of a 64-bit little-endian ELF file (elf(5)).
fn program_header_types(elf: &[u8]) -> Option<Vec<u32>> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let start = u64::from_le_bytes(elf.strip_prefix(b"\x7fELF\x02\x01")?.get(26..34)?.try_into().ok()?);
    let (size, count) = (usize::from(u16_at(54)?), usize::from(u16_at(56)?));
    let header = |n: usize| {
        let at = usize::try_from(start).ok()? + n * size;
        Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?))
    };
    (0..count).map(header).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_has_a_loader_and_a_static_one_has_none() {
        let own = fs::read("/proc/self/exe").unwrap();
        assert!(program_header_types(&own).unwrap().contains(&PT_INTERP));
        let busybox = fs::read(crate::rootfs::host_busybox().unwrap()).unwrap();
        assert!(!program_header_types(&busybox).unwrap().contains(&PT_INTERP));
        assert!(check(Path::new("/proc/self/exe")).unwrap_err().to_string().contains("is not static"));
        assert!(program_header_types(b"#!/bin/sh").is_none());
    }
}
