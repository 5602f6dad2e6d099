//! The files that tell a container who is who: /etc/hosts and /etc/resolv.conf.

use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use croft_api::problem::{Kind, Problem};

use super::Networks;

/// What is in a container's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Of /etc/hosts.
    pub hosts: String,
    /// Of /etc/resolv.conf.
    pub resolv: String,
}

/// The host's own, with systemd-resolved's real servers before its stub, which nobody but the host reaches.
pub const RESOLV: [&str; 2] = ["/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"];

/// What of a resolv.conf(5) matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolv {
    /// The servers.
    pub servers: Vec<IpAddr>,
    /// The domains that short names are looked for in.
    pub search: Vec<String>,
}

impl Resolv {
    /// Of the host.
    pub fn of_host() -> Self {
        let text = RESOLV.iter().find_map(|path| fs::read_to_string(Path::new(path)).ok());
        Resolv::parse(&text.unwrap_or_default())
    }

    /// Of a text.
    pub fn parse(text: &str) -> Self {
        let mut resolv = Resolv::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    resolv.servers.extend(words.next().and_then(|ip| ip.parse::<IpAddr>().ok()))
                }
                Some("search" | "domain") => resolv.search = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        resolv
    }
}

impl Networks {
    /// What a container's files say. They can be written before it is there, as its addresses are known.
    ///
    /// # Errors
    /// When it has no lease.
    pub fn files(&self, container: &str, hostname: &str) -> Result<Files, Problem> {
        let known = self.known();
        let no_lease =
            || Problem::new(Kind::Internal, format!("write the files of {container}"), "it has no addresses");
        let lease = known.leases.get(container).ok_or_else(no_lease)?;
        let mut files =
            Files { hosts: "127.0.0.1\tlocalhost\n::1\tlocalhost\n".to_owned(), resolv: String::new() };
        for endpoint in &lease.endpoints {
            let ips = std::iter::once(IpAddr::V4(endpoint.ipv4)).chain(endpoint.ipv6.map(IpAddr::V6));
            for ip in ips {
                let _ = writeln!(files.hosts, "{ip}\t{hostname}");
            }
            if let Some(of) = known.networks.get(&endpoint.network) {
                let _ = writeln!(files.resolv, "nameserver {}", of.gateway4());
            }
        }
        let search = Resolv::of_host().search;
        if !search.is_empty() {
            let _ = writeln!(files.resolv, "search {}", search.join(" "));
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolv_conf_is_understood() {
        let resolv = Resolv::parse(
            "# x\nnameserver 192.0.2.1\nsearch a.example b.example\nnameserver bad\nnameserver 2001:db8::1\n",
        );
        assert_eq!(resolv.servers, ["192.0.2.1".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
        assert_eq!(resolv.search, ["a.example", "b.example"]);
    }
}
