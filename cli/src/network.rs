//! From options of networks to what croftd is asked for.

use croft_api::container::{DEFAULT_NETWORK, NetworkMode};
use croft_api::network::{Join, Rates};

use crate::args::NetworkArgs;
use crate::config::options as config;

/// Bits per second, given as a number with `bit`, `kbit`, `mbit`, `gbit` or `tbit` behind it, in steps of 1000.
///
/// # Errors
/// In words.
pub fn rate(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no rate: 100mbit, 1gbit");
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix("bit").unwrap_or(&lower);
    let (number, factor) = match lower.chars().last() {
        Some(unit) if "kmgt".contains(unit) && text.len() > lower.len() => {
            let power = "kmgt".find(unit).unwrap_or_default() + 1;
            (&lower[..lower.len() - 1], 1000_f64.powi(i32::try_from(power).unwrap_or_default()))
        }
        _ => (lower, 1.0),
    };
    let rate = number.parse::<f64>().map_err(|_| wrong())? * factor;
    if rate.is_finite() && (1.0..1e15).contains(&rate) { Ok(rate as u64) } else { Err(wrong()) }
}

/// A network with wishes: `NAME`, or `name=NAME,ip=ADDRESS,...`.
///
/// # Errors
/// In words.
pub fn join(text: &str) -> Result<Join, String> {
    if !text.contains('=') {
        return Ok(Join::any(text));
    }
    let mut join = Join::default();
    for part in text.split(',') {
        let (name, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is not OPTION=VALUE"))?;
        let wrong = |what: &str| format!("{value:?} is no {what}");
        match name {
            "name" => value.clone_into(&mut join.network),
            "ip" => join.ipv4 = Some(value.parse().map_err(|_| wrong("address of IPv4"))?),
            "ip6" => join.ipv6 = Some(value.parse().map_err(|_| wrong("address of IPv6"))?),
            "mac-address" => join.mac = Some(value.to_owned()),
            "alias" => join.aliases.push(value.to_owned()),
            _ => return Err(format!("{name:?} is none of name, ip, ip6, mac-address, alias")),
        }
    }
    if join.network.is_empty() { Err("name=NETWORK is missing".to_owned()) } else { Ok(join) }
}

/// Whether this is no network.
fn is_special(name: &str) -> bool {
    matches!(name, "none" | "host") || name.starts_with("container:")
}

/// How a container that is asked for so is on networks.
///
/// # Errors
/// In words, for what makes no sense.
pub fn mode(args: &NetworkArgs) -> Result<NetworkMode, String> {
    let mut joins = args.network.clone();
    let special = joins.iter().map(|join| join.network.clone()).find(|name| is_special(name));
    if let Some(special) = special {
        let plain = Join::any(&special);
        let wishes = &args.wishes;
        let wishes_nothing = wishes.ip.is_none()
            && wishes.ip6.is_none()
            && wishes.mac_address.is_none()
            && Rates::from(wishes.limits) == plain.limits
            && args.network_alias.is_empty();
        if joins != [plain] || !wishes_nothing {
            return Err(format!("--network {special}: goes with no other network, address, name or limit"));
        }
        return Ok(match special.as_str() {
            "none" => NetworkMode::None,
            "host" => NetworkMode::Host,
            other => NetworkMode::Container(config::other("--network", other)?),
        });
    }
    for join in &mut joins {
        // The words of Docker's users for the network that is there without being made.
        if matches!(join.network.as_str(), "default" | "bridge") {
            DEFAULT_NETWORK.clone_into(&mut join.network);
        }
        join.aliases.extend(args.network_alias.iter().cloned());
        join.limits = args.wishes.limits.into();
    }
    if let Some(first) = joins.first_mut() {
        args.wishes.wish(first);
    }
    Ok(NetworkMode::Networks(joins))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    #[test]
    fn rates_are_in_bits() {
        assert_eq!(rate("100mbit"), Ok(100_000_000));
        assert_eq!(rate("1.5Gbit"), Ok(1_500_000_000));
        assert_eq!(rate("64000"), Ok(64_000));
        assert_eq!(rate("8000bit"), Ok(8_000));
        assert!(["", "0", "-1", "10m", "10mb", "10mbps", "infbit"].iter().all(|text| rate(text).is_err()));
    }

    fn asked(args: &[&str]) -> Result<NetworkMode, String> {
        let cli = Cli::parse_from([&["croft", "run"], args, &["box"]].concat());
        let Command::Run(run) = cli.command else { panic!("it is run") };
        mode(&run.create.network)
    }

    #[test]
    fn networks_are_joined_in_their_order() {
        assert_eq!(asked(&[]), Ok(NetworkMode::default()));
        assert_eq!(asked(&["--net", "bridge"]), Ok(NetworkMode::default()));
        let args = ["--network", "a", "--network", "name=b,ip=10.2.0.2,alias=y", "--ip", "10.1.0.9"];
        let args = [&args[..], &["--network-alias", "x", "--limit-egress", "1mbit"]].concat();
        let Ok(NetworkMode::Networks(joins)) = asked(&args) else { panic!("it is on networks") };
        assert_eq!(joins.iter().map(|j| j.network.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(joins.iter().map(|j| j.ipv4.unwrap().octets()[3]).collect::<Vec<_>>(), [9, 2]);
        assert_eq!((joins[0].aliases.concat(), joins[1].aliases.concat()), ("x".into(), "yx".into()));
        assert!(joins.iter().all(|j| j.limits.egress == Some(1_000_000) && j.limits.ingress.is_none()));
    }

    #[test]
    fn no_network_goes_with_nothing_else() {
        assert_eq!(asked(&["--network", "none"]), Ok(NetworkMode::None));
        assert_eq!(asked(&["--network", "container:x"]), Ok(NetworkMode::Container("x".into())));
        assert!(asked(&["--network", "container:x", "--ip", "10.0.0.2"]).is_err());
        assert!(asked(&["--network", "none", "--network", "a"]).is_err());
        assert!(asked(&["--network", "host", "--ip", "10.0.0.2"]).is_err());
        assert!(
            ["ip=1.2.3.4", "name=a,ip=x", "name=a,x=y", "name=a,b"].iter().all(|text| join(text).is_err())
        );
    }
}
