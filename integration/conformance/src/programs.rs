//! The programs themselves: fetched as Debian's source, built with Debian's Go, kept in the cache.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use croft_harness::cache::Entry;
use croft_harness::debian::{ensure_packages, fetch_source};
use croft_harness::process;

const SOURCE: &str = "golang-github-opencontainers-runtime-tools";

/// The suites to take the source from, first come, first served: bookworm's tarball is not on every mirror, and
/// all of these build with bookworm's Go and libraries.
const SUITES: [&str; 3] = ["trixie", "sid", "bookworm"];

const PACKAGES: [&str; 12] = [
    "golang-go",
    "golang-github-blang-semver-dev",
    "golang-github-google-uuid-dev",
    "golang-github-hashicorp-go-multierror-dev",
    "golang-github-mrunalp-fileutils-dev",
    "golang-github-opencontainers-selinux-dev",
    "golang-github-opencontainers-specs-dev",
    "golang-github-sirupsen-logrus-dev",
    "golang-github-urfave-cli-dev",
    "golang-github-xeipuuv-gojsonschema-dev",
    "golang-gocapability-dev",
    "golang-golang-x-sys-dev",
];

/// Ours, in the place of a package that Debian does not have.
const TAP: &str = include_str!("../tap/tap.go");

/// The program that runs inside the containers, and the root filesystem they get: beside each program when it runs.
pub(crate) const BESIDE: [&str; 2] = ["runtimetest", "rootfs-amd64.tar.gz"];

/// Compiling all of them takes seconds; on a loaded machine, minutes.
const BUILD_LIMIT: Duration = Duration::from_secs(1200);

/// The folder with the built programs.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
    names: Vec<String>,
}

impl Programs {
    /// Those in the cache, fetched and built when they are not there.
    pub fn ready() -> Result<Self> {
        let recipe = format!("{SUITES:?}\n{PACKAGES:?}\n{TAP}");
        Self::in_folder(Entry::by_hash("conformance", recipe).ready(|new, _| build(new))?)
    }

    /// Those in `folder`, as another host's [`Programs::ready`] has left them.
    pub(crate) fn in_folder(folder: PathBuf) -> Result<Self> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !BESIDE.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names.sort();
        Ok(Self { folder, names })
    }

    /// The names, in order, of the programs whose name holds `part`. An error when there is none.
    pub(crate) fn chosen(&self, part: Option<&str>) -> Result<Vec<&str>> {
        let part = part.unwrap_or_default();
        let names: Vec<&str> =
            self.names.iter().map(String::as_str).filter(|name| name.contains(part)).collect();
        ensure!(!names.is_empty(), "no program's name holds {part:?}");
        Ok(names)
    }

    /// The folder with all of them.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a program, or one of the files beside it, is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Whether a program's container is in a cgroup whose name is the same in others.
pub(crate) fn shares_a_cgroup(program: &str) -> bool {
    ["linux_cgroups_", "delete_resources", "delete_only"].iter().any(|start| program.starts_with(start))
}

/// Builds in GOPATH mode with the libraries of Debian's packages: the network is not asked.
fn build(target: &Path) -> Result<()> {
    ensure_packages(&PACKAGES)?;
    let work = target.join("work");
    let github = work.join("src/github.com");
    let source = github.join("opencontainers/runtime-tools");
    fs::create_dir_all(github.join("mndrix/tap-go"))?;
    fs::create_dir_all(&source)?;
    fetch_source(SOURCE, &SUITES, &source)?;
    fs::write(github.join("mndrix/tap-go/tap.go"), TAP)?;
    // `./validation/...` leaves out nothing and needs no list: -o with a folder keeps every main package.
    let mut go = go(&work, &source);
    go.arg("build").arg("-o").arg(target).args(["./cmd/runtimetest", "./validation/..."]);
    process::run(&mut go, BUILD_LIMIT)?.success()?;
    let rootfs = source.join(BESIDE[1]);
    fs::copy(&rootfs, target.join(BESIDE[1])).with_context(|| format!("copy {}", rootfs.display()))?;
    croft_harness::cache::remove_tree(&work)?;
    ensure!(target.join("create").exists() && target.join(BESIDE[0]).exists(), "go built no programs");
    Ok(())
}

fn go(work: &Path, source: &Path) -> Command {
    let mut go = Command::new("go");
    go.current_dir(source)
        .env("GOPATH", format!("{}:/usr/share/gocode", work.display()))
        .env("GOCACHE", work.join("cache"))
        .env("GO111MODULE", "off")
        .env("GOPROXY", "off")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "")
        .env("CGO_ENABLED", "0");
    go
}
