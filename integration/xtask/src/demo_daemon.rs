//! The second half of the demo: croftd with a registry, an image, a network and containers, killed in the middle.
//!
//! All of it is on a stage: the machine's own network, mounts and files stay as they are.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use croft_harness::{Croft, Host, process};

/// Packing a Debian root filesystem.
const PACK_LIMIT: Duration = Duration::from_secs(120);

/// Where the registry listens, in the stage's own network namespace.
const REGISTRY: &str = "127.0.0.1:5000";

/// A web server for which a minimal Debian has everything.
const SERVER: &str = r#"use IO::Socket::INET;
$| = 1;
my $server = IO::Socket::INET->new(LocalPort => 80, Listen => 9, ReuseAddr => 1) or die "listen: $!";
print "listening\n";
while (my $client = $server->accept) {
    print "served ", $client->peerhost, "\n";
    print $client "hello from the container called web\n";
}"#;

/// A client: bash itself connects.
const ASK: &str = "exec 3<>/dev/tcp/web/80 && echo \"$(hostname) asks web: $(cat <&3)\"";

/// Shows croftd with a root filesystem as an image.
pub fn show(croft_oci: &Path, rootfs: &Path) -> Result<()> {
    let mut demo = Demo { croft: Croft::without_images(&Host::of(croft_oci.to_owned())?)? };
    println!("\n== croftd and croft, in a scratch folder and a network namespace of the demo's own");
    let _registry = demo.registry(rootfs)?;
    let image = format!("{REGISTRY}/debian:12");
    println!("\n== a container from the registry's image: its own ids, its own name");
    let script = "echo I am $(id -un) on $(hostname), and root here is $(awk '{print $2}' /proc/self/uid_map) on the host";
    demo.run(&["run", "--rm", "--name", "first", &image, "sh", "-c", script])?;
    println!("\n== two containers on a network, and a port of the host");
    let server =
        ["run", "-d", "--name", "web", "-p", "8080:80", "--memory", "64m", &image, "perl", "-e", SERVER];
    demo.show_as(&server, "run -d --name web -p 8080:80 --memory 64m IMAGE perl -e 'a small web server'")?;
    demo.until_it_listens()?;
    demo.run(&["run", "--rm", "--name", "client", &image, "bash", "-c", ASK])?;
    demo.ask_from_the_host()?;
    demo.run(&["ps"])?;
    demo.run(&["stats", "--no-stream"])?;
    println!("\n== croftd is killed with SIGKILL: the containers go on");
    demo.croft.kill()?;
    demo.ask_from_the_host()?;
    println!("$ croftd &");
    demo.croft.start()?;
    demo.run(&["ps"])?;
    demo.run(&["exec", "web", "sh", "-c", "echo exec: beside $(cat /proc/1/comm), process 1 as before"])?;
    demo.run(&["logs", "web"])?;
    demo.run(&["stop", "--time", "1", "web"])?;
    demo.run(&["rm", "web"])?;
    demo.run(&["events", "--since", "0", "--no-follow"])?;
    demo.run(&["system", "check"])
}

/// croftd on its stage.
struct Demo {
    croft: Croft,
}

/// A program that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // nsenter; what it started ends with the stage.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Demo {
    /// Starts a registry and puts the root filesystem into it as an image, which is not in croft's own store then.
    fn registry(&self, rootfs: &Path) -> Result<Running> {
        let archive = self.croft.path("debian.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(rootfs).args(["--one-file-system", "--xattrs", "-cf", &archive, "."]);
        process::run(&mut tar, PACK_LIMIT)?.success()?;
        let config = self.croft.path("registry.yml");
        let folder = self.croft.path("registry");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {folder}\nhttp:\n  addr: {REGISTRY}\n"
        );
        std::fs::write(&config, text)?;
        println!("$ docker-registry serve registry.yml &");
        let mut serve = self.croft.stage.command("docker-registry");
        serve.args(["serve", &config]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Running(serve.spawn().context("start docker-registry")?);
        self.until("exec 3<>/dev/tcp/127.0.0.1/5000")?;
        let image = format!("{REGISTRY}/debian:12");
        self.show_as(&["image", "import", &archive, &image], &format!("image import debian.tar {image}"))?;
        self.run(&["image", "push", &image])?;
        self.run(&["image", "rm", &image])?;
        self.run(&["image", "pull", &image])?;
        self.run(&["image", "ls"])?;
        Ok(registry)
    }

    /// Waits until `script` succeeds on the stage.
    fn until(&self, script: &str) -> Result<()> {
        let script = format!("until ({script}) 2>/dev/null; do :; done");
        self.croft.stage.run("timeout", &["20", "bash", "-c", &script])?.success().map(drop)
    }

    /// Waits until the web server has said that it listens.
    fn until_it_listens(&self) -> Result<()> {
        let program = self.croft.program.display();
        self.until(&format!("{program} logs web | grep -q listening"))
    }

    fn ask_from_the_host(&self) -> Result<()> {
        println!("$ nc 127.0.0.1 8080    (on the host)");
        let answer = self.croft.stage.run("bash", &["-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && cat <&3"])?;
        print!("{}", answer.success()?.stdout);
        Ok(())
    }

    fn run(&self, args: &[&str]) -> Result<()> {
        self.show_as(args, &args.join(" "))
    }

    fn show_as(&self, args: &[&str], shown: &str) -> Result<()> {
        println!("$ croft {shown}");
        let status = self.croft.stage.command(&self.croft.program.display().to_string()).args(args).status();
        let status = status.context("run croft")?;
        ensure!(status.success(), "croft {shown}: {status}\n{}", self.croft.stage.daemon_log());
        Ok(())
    }
}
