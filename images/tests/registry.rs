//! Debian's docker-registry on the loopback interface, for one test.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A running registry with its own storage; it ends with this value.
pub struct Registry {
    process: Child,
    port: u16,
}

impl Registry {
    /// Starts one that keeps its files in the folder `at`; with `users`, an htpasswd file, only for those.
    pub fn start(at: &Path, users: Option<&Path>) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let auth = users.map_or(String::new(), |users| {
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", users.display())
        });
        let config = at.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n{auth}",
            at.join("registry").display()
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().context("start docker-registry")?;
        let mut registry = Self { process, port };
        registry.await_answer()?;
        Ok(registry)
    }

    fn await_answer(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        // It says nothing when it is ready, so it is asked.
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!("docker-registry ended: {status}");
            }
            if Instant::now() > deadline {
                bail!("docker-registry does not answer");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
