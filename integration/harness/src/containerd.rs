//! containerd with all it keeps on a stage.

use std::fs;

use anyhow::Result;

use crate::stage::{Daemon, Stage};

/// Starts it. Beside it, its client with the options that come before a verb: its address, and a namespace of the stage's name.
pub fn start(stage: &Stage) -> Result<(Daemon, Vec<String>)> {
    let socket = stage.path("sock").display().to_string();
    let settings = format!(
        "version = 2\nroot = {:?}\nstate = \"/run/containerd\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
         [debug]\nlevel = \"warn\"\n[grpc]\naddress = {socket:?}\n[ttrpc]\naddress = {:?}\n",
        stage.path("data"),
        stage.path("sock.ttrpc")
    );
    let file = stage.path("config.toml");
    fs::write(&file, settings)?;
    let daemon = stage.start_daemon("containerd", &["--config", &file.display().to_string()])?;
    let words = ["ctr", "--address", &socket, "--namespace", stage.name()];
    Ok((daemon, words.map(str::to_owned).into()))
}
