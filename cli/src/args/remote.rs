//! `remote`.

use std::path::PathBuf;

use clap::Subcommand;

/// `remote`.
#[derive(Debug, Subcommand)]
pub enum RemoteCommand {
    /// Make this host's key, unless it has one, and print its fingerprint
    Make,
    /// Print this host's certificate, for other hosts to trust
    Show,
    /// Trust a host: it may do everything here, and can be asked with --remote
    Trust {
        /// Where its croftd listens, if it is to be asked from here
        #[arg(short, long, value_name = "HOST:PORT", value_parser = address)]
        address: Option<String>,
        /// What it is called here
        #[arg(value_name = "HOST")]
        name: String,
        /// What `croft remote show` prints there; - is the standard input
        #[arg(value_name = "FILE")]
        certificate: PathBuf,
    },
    /// List the hosts that are trusted
    #[command(visible_alias = "ls")]
    List,
    /// Trust hosts no more, and cut their connections
    Revoke {
        /// Their names
        #[arg(required = true, value_name = "HOST", add = crate::complete::hosts())]
        names: Vec<String>,
    },
}

fn address(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').ok_or("it is HOST:PORT")?;
    if host.is_empty() || (host.contains(':') && !(host.starts_with('[') && host.ends_with(']'))) {
        return Err("it is HOST:PORT, and IPv6 is [ADDRESS]:PORT".into());
    }
    match port.parse::<u16>() {
        Ok(0) | Err(_) => Err(format!("{port} is no port")),
        Ok(_) => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn addresses_have_a_host_and_a_port() {
        let fits = ["192.0.2.1:8443", "east.example:8443", "[2001:db8::1]:8443"];
        assert!(fits.iter().all(|text| super::address(text).is_ok()));
        for text in ["east", "east:", ":8443", "2001:db8::1:8443", "east:0", "east:70000"] {
            assert!(super::address(text).is_err(), "{text}");
        }
    }
}
