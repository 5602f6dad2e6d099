//! Hardware addresses.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A hardware address of Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The one that goes with an address, so that neighbours who remember the address remember the right one: locally administered.
    pub fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Mac([0x0a, 0x63, a, b, c, d])
    }

    /// Its address of IPv6 on the cable itself (RFC 4291, appendix A).
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let half = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        Ipv6Addr::new(0xfe80, 0, 0, 0, half(a ^ 2, b), half(c, 0xff), half(0xfe, d), half(e, f))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no hardware address such as 0a:63:0a:58:00:02");
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let is_octet = |part: &&str| part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit());
            let part = parts.next().filter(is_octet).ok_or_else(wrong)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        if octets[0] & 1 == 1 || octets == [0; 6] {
            return Err(format!("{text} is an address of many, and no container's own"));
        }
        Ok(Mac(octets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_was_written() {
        let mac = Mac::of(Ipv4Addr::new(10, 88, 0, 2));
        assert_eq!(mac.to_string(), "0a:63:0a:58:00:02");
        assert_eq!(mac.to_string().parse(), Ok(mac));
        assert_eq!(mac.link_local().to_string(), "fe80::863:aff:fe58:2");
        for wrong in [
            "",
            "0a:63",
            "0a:63:0a:58:00:02:03",
            "01:63:0a:58:00:02",
            "zz:63:0a:58:00:02",
            "+a:63:0a:58:00:02",
        ] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }
}
