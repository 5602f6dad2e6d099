//! mmdebstrap: trees of Debian packages.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{FETCH_LIMIT, apt};
use crate::process;

/// How much of Debian a tree gets besides the packages that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// The packages and what they depend on, unpacked and not set up: for borrowing programs.
    Unpacked,
    /// The essential packages too, all set up: a system that boots and runs.
    Essential,
    /// As `Essential`, with apt: what Debian's own container images have.
    Minimal,
}

impl Variant {
    fn name(self) -> &'static str {
        match self {
            Variant::Unpacked => "extract",
            Variant::Essential => "essential",
            Variant::Minimal => "minbase",
        }
    }
}

/// A tree of packages of one suite, fetched with lists and a dpkg state of its own: nothing of the machine changes.
#[derive(Debug, Clone, Copy)]
pub struct Bootstrap<'a> {
    /// `bookworm`, `trixie`, `sid`; or one like `bookworm-backports`, which is taken together with its base.
    pub suite: &'a str,
    /// What comes along unasked.
    pub variant: Variant,
    /// The packages; what they depend on is found by apt, what they recommend is left out.
    pub packages: &'a [&'a str],
}

impl Bootstrap<'_> {
    /// What decides the tree's content, as text; see [`crate::cache::Entry`].
    pub fn recipe(&self) -> String {
        format!("{} {} {}\n", self.suite, self.variant.name(), self.packages.join(" "))
    }

    /// Fetches and unpacks into an empty folder.
    pub fn unpack_into(&self, target: &Path) -> Result<()> {
        apt::ensure_packages(&["mmdebstrap", "debian-archive-keyring"])?;
        eprintln!("unpacking Debian {} for {}", self.suite, target.display());
        let archive = apt::archive()?;
        let base = self.suite.strip_suffix("-backports").unwrap_or(self.suite);
        // It runs in a process group of its own: without this it would outlive a Ctrl-C that ends its caller.
        let mut mmdebstrap = Command::new("setpriv");
        mmdebstrap.args(["--pdeathsig", "TERM", "mmdebstrap"]).args([
            "--quiet",
            "--format=directory",
            "--variant",
            self.variant.name(),
        ]);
        mmdebstrap.arg("--aptopt=APT::Install-Recommends \"false\"");
        for option in apt::acquire_options()? {
            mmdebstrap.arg(format!("--aptopt={option}"));
        }
        if base != self.suite {
            mmdebstrap.arg(format!("--aptopt=APT::Default-Release \"{}\"", self.suite));
        }
        for left_out in ["man", "doc", "locale", "info"] {
            mmdebstrap.arg(format!("--dpkgopt=path-exclude=/usr/share/{left_out}/*"));
        }
        if !self.packages.is_empty() {
            mmdebstrap.arg(format!("--include={}", self.packages.join(",")));
        }
        mmdebstrap.arg(base).arg(target).arg(archive.source(base));
        if base != self.suite {
            mmdebstrap.arg(archive.source(self.suite));
        }
        process::run(&mut mmdebstrap, FETCH_LIMIT)?.success().map(drop)
    }
}
