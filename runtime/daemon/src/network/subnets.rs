//! Ranges of addresses: every network has its own, no two croftd of a host give out the same, and none that the host has a route to.
//!
//! A range is taken by making a file for it in a folder that all croftd of the host share, with the folder locked, since whether two
//! ranges overlap cannot be seen from one file's name.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use croft_api::problem::{Kind, Problem};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Where networks get their addresses from when nobody says: 512 ranges.
const POOL: &str = "10.88.0.0/13";

/// The size of a network. A bridge has at most 1023 ports, so that more addresses could not be used.
const PREFIX: u8 = 22;

/// The host's ranges.
#[derive(Debug, Clone)]
pub struct Subnets {
    folder: PathBuf,
    owner: String,
}

impl Subnets {
    /// The ranges in `folder`, given out in the name of the croftd whose root folder is `owner`.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(folder: &Path, owner: &Path) -> Result<Self, Problem> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(|e| failed(folder, &e))?;
        Ok(Subnets { folder: folder.to_owned(), owner: owner.to_string_lossy().into_owned() })
    }

    /// Takes a range for a network, or the one that is asked for; `routes` are the host's.
    ///
    /// # Errors
    /// When it is taken, or none is left.
    pub fn take(&self, network: &str, wish: Option<Ipv4Net>, routes: &[IpNet]) -> Result<Ipv4Net, Problem> {
        let title = format!("create network {network}");
        let _lock = self.lock()?;
        let taken = self.taken()?;
        let overlap = |net: Ipv4Net| {
            let overlaps = |other: &Ipv4Net| net.contains(other) || other.contains(&net);
            let by = taken
                .iter()
                .find(|(other, _)| overlaps(other))
                .map(|(other, who)| format!("{other} of {who}"));
            by.or_else(|| {
                let routed =
                    routes.iter().find(|r| matches!(r, IpNet::V4(r) if r.prefix_len() > 0 && overlaps(r)));
                routed.map(|route| format!("the host's route to {route}"))
            })
        };
        let net = match wish {
            Some(net) => {
                let net = net.trunc();
                if net.prefix_len() > 29 || net.prefix_len() < 16 {
                    let why = format!("{net} has no sensible size: /16 to /29");
                    return Err(Problem::new(Kind::Invalid, title, why));
                }
                if let Some(other) = overlap(net) {
                    let problem = Problem::new(Kind::Conflict, title, format!("{net} overlaps {other}"));
                    return Err(problem.hint("without a range, a free one is found"));
                }
                net
            }
            None => {
                let pool: Ipv4Net = POOL.parse().expect("the pool is a range");
                let mut parts = pool.subnets(PREFIX).expect("the pool is larger than its parts");
                parts.find(|net| overlap(*net).is_none()).ok_or_else(|| {
                    let why = format!("all of {POOL} is taken; see {}", self.folder.display());
                    Problem::new(Kind::Conflict, title, why)
                        .hint("remove a network, or say which range to use")
                })?
            }
        };
        self.write(net, network)?;
        Ok(net)
    }

    /// Takes again the range of a network that is there already.
    ///
    /// # Errors
    /// When another network has some of it by now.
    pub fn keep(&self, network: &str, net: Ipv4Net) -> Result<(), Problem> {
        let _lock = self.lock()?;
        let own = self.line(network);
        for (other, who) in self.taken()? {
            if other == net && who == own {
                return Ok(());
            }
            if other.contains(&net) || net.contains(&other) {
                let problem = Problem::new(
                    Kind::Conflict,
                    format!("keep network {network}"),
                    format!("{who} has {other}"),
                );
                return Err(problem.hint("remove one of the two networks"));
            }
        }
        self.write(net, network)
    }

    /// Gives a range back. One that is not there is fine; one that cannot be given back stays this croftd's.
    pub fn give_back(&self, net: Ipv4Net) {
        let path = self.path(net);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), "a range of addresses is not given back: {e}");
            }
            _ => {}
        }
    }

    /// The ranges of this croftd, with the networks that they were taken for.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn own(&self) -> Result<Vec<(Ipv4Net, String)>, Problem> {
        let mut own = Vec::new();
        for (net, who) in self.taken()? {
            if let Some((network, owner)) = who.split_once(' ')
                && owner == self.owner
            {
                own.push((net, network.to_owned()));
            }
        }
        Ok(own)
    }

    fn lock(&self) -> Result<File, Problem> {
        let path = self.folder.join(".lock");
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = open.and_then(|file| file.lock().map(|()| file));
        lock.map_err(|e| failed(&path, &e))
    }

    fn taken(&self) -> Result<Vec<(Ipv4Net, String)>, Problem> {
        let mut taken = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(|e| failed(&self.folder, &e))?.flatten() {
            let name = entry.file_name().to_string_lossy().replace('_', "/");
            if let Ok(net) = name.parse() {
                // Who it is for is only told; that it is taken is what counts, even if a crash left the file empty.
                taken.push((net, fs::read_to_string(entry.path()).unwrap_or_default().trim_end().to_owned()));
            }
        }
        taken.sort();
        Ok(taken)
    }

    fn write(&self, net: Ipv4Net, network: &str) -> Result<(), Problem> {
        let path = self.path(net);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path);
        let written = made.and_then(|mut file| writeln!(file, "{}", self.line(network)));
        written.map_err(|e| failed(&path, &e))
    }

    fn path(&self, net: Ipv4Net) -> PathBuf {
        self.folder.join(net.to_string().replace('/', "_"))
    }

    fn line(&self, network: &str) -> String {
        format!("{network} {}", self.owner)
    }
}

/// A range of IPv6 for a network: a random one of its own (RFC 4193), which nobody else has for any practical purpose.
pub fn unique_local(routes: &[IpNet]) -> std::io::Result<Ipv6Net> {
    loop {
        let mut random = [0_u8; 16];
        let (global, _) = random.split_at_mut(8);
        let mut rest = global;
        while !rest.is_empty() {
            let got = rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty())?;
            rest = rest.split_at_mut(got).1;
        }
        random[0] = 0xfd;
        let net = Ipv6Net::new_assert(random.into(), 64);
        let routed = |route: &IpNet| matches!(route, IpNet::V6(r) if r.prefix_len() > 7 && (r.contains(&net) || net.contains(r)));
        if !routes.iter().any(routed) {
            return Ok(net);
        }
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Problem {
    Problem::of_file("take a range of addresses", path, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn no_two_networks_of_a_host_overlap() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["/a", "/b"].map(|owner| Subnets::open(folder.path(), Path::new(owner)).unwrap());
        let routes = ["0.0.0.0/0", "10.88.4.128/25"].map(|route| route.parse().unwrap());
        assert_eq!(a.take("x", None, &routes).unwrap(), net("10.88.0.0/22"));
        assert_eq!(b.take("y", None, &routes).unwrap(), net("10.88.8.0/22"), "the second is routed");
        let refused = b.take("z", Some(net("10.88.2.0/24")), &routes).unwrap_err();
        assert!(refused.detail.contains("10.88.0.0/22 of x /a"), "{refused}");
        assert_eq!(a.own().unwrap(), [(net("10.88.0.0/22"), "x".to_owned())]);
        a.give_back(net("10.88.0.0/22"));
        assert_eq!(b.take("z", Some(net("10.88.2.0/24")), &routes).unwrap(), net("10.88.2.0/24"));
        assert!(a.keep("x", net("10.88.0.0/22")).is_err() && b.keep("y", net("10.88.8.0/22")).is_ok());
    }

    #[test]
    fn a_full_pool_is_said_to_be_full() {
        let folder = tempfile::tempdir().unwrap();
        let subnets = Subnets::open(folder.path(), Path::new("/a")).unwrap();
        let routes = [POOL.parse().unwrap()];
        assert!(subnets.take("x", None, &routes).unwrap_err().detail.contains(POOL));
    }
}
