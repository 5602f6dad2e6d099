//! What is kept of networks, as JSON files: their definitions and the containers' leases survive a reboot, who is attached does not.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use croft_api::network::{Mode, Publish, Rates};
use croft_api::problem::{Kind, Problem};
use ipnet::{Ipv4Net, Ipv6Net};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::mac::Mac;

/// A network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// Its bridge on the host.
    pub bridge: String,
    /// Its addresses.
    pub ipv4: Ipv4Net,
    /// Its addresses of IPv6, on a host that has it.
    pub ipv6: Option<Ipv6Net>,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// The host's address in it, where it is not the first.
    #[serde(default)]
    pub host4: Option<Ipv4Addr>,
    /// The host's address of IPv6 in it, where it is not the first.
    #[serde(default)]
    pub host6: Option<Ipv6Addr>,
    /// How its containers are connected.
    #[serde(default)]
    pub mode: Mode,
    /// Whether it leads nowhere.
    #[serde(default)]
    pub internal: bool,
    /// Labels for people and programs.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl Definition {
    /// The host's address in it.
    pub fn gateway4(&self) -> Ipv4Addr {
        self.host4.unwrap_or(Ipv4Addr::from_bits(self.ipv4.network().to_bits() + 1))
    }

    /// The host's address of IPv6 in it.
    pub fn gateway6(&self) -> Option<Ipv6Addr> {
        self.ipv6.map(|net| self.host6.unwrap_or(Ipv6Addr::from_bits(net.network().to_bits() + 1)))
    }

    /// How long the range is that an address of it is on a cable with: without a bridge it is there alone.
    pub fn length4(&self) -> u8 {
        match self.mode {
            Mode::Bridge => self.ipv4.prefix_len(),
            Mode::Routed => 32,
        }
    }

    /// The same for IPv6, where the network has `net`.
    pub fn length6(&self, net: Ipv6Net) -> u8 {
        match self.mode {
            Mode::Bridge => net.prefix_len(),
            Mode::Routed => 128,
        }
    }

    /// An endpoint's addresses with the lengths of their ranges.
    pub fn addresses(&self, endpoint: &Endpoint) -> Vec<String> {
        let ipv4 = format!("{}/{}", endpoint.ipv4, self.length4());
        let ipv6 = self.ipv6.zip(endpoint.ipv6).map(|(net, ip)| format!("{ip}/{}", self.length6(net)));
        std::iter::once(ipv4).chain(ipv6).collect()
    }
}

/// What a container has in one network, from its creation to its removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network's name.
    pub network: String,
    /// Its address.
    pub ipv4: Ipv4Addr,
    /// Its address of IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// Its hardware address.
    pub mac: Mac,
    /// Its interface's name in the container.
    #[serde(default)]
    pub interface: String,
    /// Further names by which others find it there.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// How much may go through.
    #[serde(default)]
    pub limits: Rates,
}

/// What a container has in all its networks, and what leads to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Whose.
    pub container: String,
    /// By which names others of its networks find it.
    pub names: Vec<String>,
    /// One for each network; the first is the way out.
    pub endpoints: Vec<Endpoint>,
    /// The ports of the host that lead to it.
    pub publish: Vec<Publish>,
}

impl Lease {
    /// What people call the container.
    pub fn name(&self) -> &str {
        self.names.first().unwrap_or(&self.container)
    }

    /// A name for a further interface in the container.
    pub fn free_interface(&self) -> String {
        let taken = |name: &String| self.endpoints.iter().any(|endpoint| endpoint.interface == *name);
        let names = (0..=self.endpoints.len()).map(|number| format!("eth{number}"));
        names.into_iter().find(|name| !taken(name)).expect("one more name than there are endpoints")
    }
}

/// A container that is wired: everything that the service needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// What it has.
    pub lease: Lease,
    /// The host's end of each of its endpoints' cables.
    pub ports: Vec<String>,
    /// The network of each of its endpoints.
    pub networks: Vec<Definition>,
}

impl Attached {
    /// Which of its endpoints is its way out: the first in a network that leads anywhere.
    pub fn way_out(&self) -> Option<usize> {
        self.networks.iter().position(|of| !of.internal)
    }

    /// The host's ends of its cables where what leaves the container is limited: they have a device beside them.
    pub fn slowed(&self) -> impl Iterator<Item = &String> {
        let endpoints = self.ports.iter().zip(&self.lease.endpoints);
        endpoints.filter(|(_, endpoint)| endpoint.limits.egress.is_some()).map(|(port, _)| port)
    }

    /// Whether an address in a network is its own.
    pub fn has(&self, network: &str, ip: IpAddr) -> bool {
        let of = |e: &&Endpoint| e.network == network && (ip == e.ipv4 || Some(ip) == e.ipv6.map(IpAddr::V6));
        self.lease.endpoints.iter().any(|endpoint| of(&endpoint))
    }
}

/// The form that the files have; a file of another one is not understood.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    value: T,
}

/// Whether a file must be there after a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It must: it is on the disk when it is said to be saved.
    Durable,
    /// A reboot voids it.
    Boot,
}

/// A folder of records, each in a file of its own.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    life: Life,
}

impl Folder {
    /// Opens the folder, and makes it when it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(path: PathBuf, life: Life) -> Result<Self, Problem> {
        fs::create_dir_all(&path).map_err(|e| failed(&path, &e))?;
        Ok(Folder { path, life })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.json"))
    }

    /// Saves a record in one piece: whoever reads sees all of the old one or all of the new one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Problem> {
        self.put(name, value, self.life)
    }

    /// As [`Folder::save`], but without waiting for the disk: a power cut may damage the record or take it back.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_at_leisure<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Problem> {
        self.put(name, value, Life::Boot)
    }

    fn put<T: Serialize>(&self, name: &str, value: &T, life: Life) -> Result<(), Problem> {
        let path = self.file(name);
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.path)?;
            file.write_all(&serde_json::to_vec(&Versioned { version: VERSION, value })?)?;
            if life == Life::Durable {
                file.as_file().sync_data()?;
            }
            file.persist(&path).map_err(|e| e.error)?;
            self.sync(life)
        };
        write().map_err(|e| failed(&path, &e))
    }

    /// Removes a record. One that is not there is fine.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), Problem> {
        let path = self.file(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| self.sync(self.life)).map_err(|e| failed(&path, &e)),
        }
    }

    fn sync(&self, life: Life) -> std::io::Result<()> {
        match life {
            Life::Durable => File::open(&self.path)?.sync_all(),
            Life::Boot => Ok(()),
        }
    }

    /// The record called `name`, if there is one.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Problem> {
        let path = self.file(name);
        match fs::read(&path) {
            Ok(bytes) => parse(&path, &bytes).map(Some),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(&path, &e)),
        }
    }

    /// All records, by name.
    ///
    /// # Errors
    /// When one cannot be read or understood.
    pub fn all<T: DeserializeOwned>(&self) -> Result<Vec<(String, T)>, Problem> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(|e| failed(&self.path, &e))?.flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            if let Some(name) = file.strip_suffix(".json").filter(|name| !name.starts_with('.'))
                && let Some(value) = self.read(name)?
            {
                all.push((name.to_owned(), value));
            }
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(all)
    }

    /// Removes what a crash left of records that were being written.
    pub fn sweep(&self) {
        self.remove_files(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".new-"))
        });
    }

    /// Removes records that a power cut has cut off, of those that were saved by [`Folder::save_at_leisure`].
    pub fn sweep_cut_off(&self) {
        let is_text = |bytes: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
        self.remove_files(|path| {
            let is_record = path.extension().is_some_and(|extension| extension == "json");
            // One that cannot be read may be as it should.
            let is_cut_off = is_record && fs::read(path).is_ok_and(|bytes| !is_text(&bytes));
            if is_cut_off {
                tracing::warn!(path = %path.display(), "a record that is cut off is removed");
            }
            is_cut_off
        });
    }

    fn remove_files(&self, which: impl Fn(&Path) -> bool) {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| which(path)) {
            let _ = fs::remove_file(path);
        }
    }
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, Problem> {
    let unclear = |why: String| {
        let problem = Problem::new(Kind::Internal, format!("read {}", path.display()), why);
        problem.hint("a newer croftd may have written it; move it away to do without it")
    };
    let record: Versioned<T> = serde_json::from_slice(bytes).map_err(|e| unclear(e.to_string()))?;
    match record.version {
        VERSION => Ok(record.value),
        other => Err(unclear(format!("it has version {other}, and {VERSION} is understood"))),
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Problem {
    Problem::of_file("keep what croftd knows of a network", path, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_and_a_newer_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let records = Folder::open(folder.path().join("x"), Life::Durable).unwrap();
        let lease = Lease { container: "c".into(), names: vec![], endpoints: vec![], publish: vec![] };
        records.save("c", &lease).unwrap();
        assert_eq!(records.all::<Lease>().unwrap(), [("c".to_owned(), lease)]);
        let path = folder.path().join("x/c.json");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\"version\":1", "\"version\":2")).unwrap();
        assert!(records.read::<Lease>("c").unwrap_err().detail.contains("version 2"));
        // What is cut off goes, and what is only not understood stays.
        for cut in ["d", "e"] {
            fs::write(
                folder.path().join(format!("x/{cut}.json")),
                &text[..text.len() / 2 * usize::from(cut == "d")],
            )
            .unwrap();
        }
        records.sweep_cut_off();
        assert!(
            [("c", true), ("d", false), ("e", false)].iter().all(|(name, is_there)| folder
                .path()
                .join(format!("x/{name}.json"))
                .exists()
                == *is_there)
        );
        records.remove("c").unwrap();
        assert_eq!(records.read::<Lease>("c").unwrap(), None);
    }
}
