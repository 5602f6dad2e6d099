//! Who runs containers from images, each with all its state on a stage of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use croft_harness::host::Host;
use croft_harness::stage::Daemon;
use croft_harness::{Croft, Output, Stage, containerd};

/// Which network a container gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// A namespace with nothing but `lo`.
    None,
    /// An address on a bridge.
    Bridge,
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Network::None { "none" } else { "bridge" })
    }
}

/// One of them, with a busybox image called `box`.
#[derive(Debug)]
pub struct Caller {
    home: Home,
    /// Its program, and the options that come before a verb.
    words: Vec<String>,
    /// The options of `run`.
    options: Vec<String>,
    /// What stands for a bridge in `--network=`; none for who has no such option.
    bridge: Option<&'static str>,
}

/// The stage comes first: a daemon ends with it.
#[derive(Debug)]
enum Home {
    Croft(Box<Croft>),
    Other { stage: Stage, _daemon: Option<Daemon> },
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

impl Caller {
    /// croft and croftd.
    pub fn croft(host: &Host) -> Result<Self> {
        let croft = Croft::as_installed(host)?;
        let words = vec![croft.program.display().to_string()];
        Ok(Self { home: Home::Croft(Box::new(croft)), words, options: Vec::new(), bridge: Some("croft") })
    }

    /// Podman, with conmon.
    pub fn podman(host: &Host, runtime: &Path) -> Result<Self> {
        crate::ensure(&["podman", "containernetworking-plugins", "iptables"])?;
        let stage = Stage::new(host)?;
        let mut words = owned(&["podman", "--cgroup-manager=cgroupfs", "--events-backend=file"]);
        words.extend(owned(&["--storage-driver=overlay", &format!("--runtime={}", runtime.display())]));
        for (option, folder) in
            [("root", "root"), ("runroot", "run"), ("tmpdir", "tmp"), ("network-config-dir", "networks")]
        {
            words.push(format!("--{option}={}", stage.path(folder).display()));
        }
        let options = vec![format!("--cgroup-parent=/{}", stage.name())];
        let podman =
            Self { home: Home::Other { stage, _daemon: None }, words, options, bridge: Some("bridge") };
        podman.import()
    }

    /// dockerd.
    pub fn docker(host: &Host, runtime: &Path) -> Result<Self> {
        crate::ensure(&["docker.io", "iptables"])?;
        let stage = Stage::new(host)?;
        let socket = format!("unix://{}", stage.path("docker.sock").display());
        let settings = serde_json::json!({
            "data-root": stage.path("data"), "exec-root": "/run/docker-exec", "pidfile": "/run/docker.pid",
            "hosts": [socket], "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "cgroup-parent": format!("/{}", stage.name()), "storage-driver": "overlay2", "log-level": "warn",
            "runtimes": { "peer": { "path": runtime } }, "default-runtime": "peer",
        });
        let file = stage.path("daemon.json");
        fs::write(&file, settings.to_string())?;
        let daemon = stage.start_daemon("dockerd", &["--config-file", &file.display().to_string()])?;
        let words = owned(&["docker", "--host", &socket]);
        let home = Home::Other { stage, _daemon: Some(daemon) };
        Self { home, words, options: Vec::new(), bridge: Some("bridge") }.import()
    }

    /// containerd's own client, on a folder as the root: nothing is mounted for it.
    pub fn containerd(host: &Host, runtime: &Path) -> Result<Self> {
        crate::ensure(&["containerd"])?;
        let stage = Stage::new(host)?;
        let (daemon, words) = containerd::start(&stage)?;
        let group = format!("/{}/ctr", stage.name());
        let options = owned(&["--runc-binary", &runtime.display().to_string(), "--cgroup", &group]);
        Ok(Self { home: Home::Other { stage, _daemon: Some(daemon) }, words, options, bridge: None })
    }

    fn import(self) -> Result<Self> {
        let archive = self.stage().path("rootfs.tar").display().to_string();
        let done = self.verb(&["import", &archive, "box"])?.success();
        done.with_context(|| format!("its daemon said:\n{}", self.stage().daemon_log()))?;
        Ok(self)
    }

    /// Where it lives.
    pub fn stage(&self) -> &Stage {
        match &self.home {
            Home::Croft(croft) => &croft.stage,
            Home::Other { stage, .. } => stage,
        }
    }

    /// Runs one of its commands to its end.
    pub fn verb(&self, args: &[&str]) -> Result<Output> {
        let words: Vec<&str> =
            self.words[1..].iter().map(String::as_str).chain(args.iter().copied()).collect();
        self.stage().run(&self.words[0], &words)
    }

    /// Whether a container of it can have this.
    pub fn has(&self, network: Network) -> bool {
        network == Network::None || self.bridge.is_some()
    }

    /// All words of its `run` with these options, up to the image.
    pub fn run(&self, network: Network, options: &[&str]) -> Vec<String> {
        let mut words = self.words.clone();
        words.push("run".to_owned());
        words.extend(self.options.iter().cloned());
        if let Some(bridge) = self.bridge {
            words.push(format!("--network={}", if network == Network::None { "none" } else { bridge }));
        }
        words.extend(owned(options));
        words
    }

    /// Runs `true` in a container that is removed.
    pub fn run_true(&self, network: Network, number: usize) -> Command {
        let mut words = self.run(network, &["--rm"]);
        match self.bridge {
            Some(_) => words.extend(owned(&["box", "true"])),
            None => {
                let rootfs = self.stage().path("rootfs").display().to_string();
                words.extend(owned(&["--rootfs", &rootfs, &format!("run-{number}"), "/bin/true"]));
            }
        }
        let mut command = self.stage().command(&words[0]);
        command.args(&words[1..]);
        command
    }
}
