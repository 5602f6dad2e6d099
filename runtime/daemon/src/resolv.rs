//! What a user changes in a container's /etc/hosts and /etc/resolv.conf. Pure.

use std::fmt::Write;

use croft_api::container::Config;

/// `hosts` with the names that are added.
pub fn hosts(mut hosts: String, config: &Config) -> String {
    for host in &config.hosts {
        let _ = writeln!(hosts, "{}\t{}", host.address, host.name);
    }
    hosts
}

/// `resolv` with the servers and domains that are asked for in the place of its own.
pub fn resolv_conf(resolv: &str, config: &Config) -> String {
    let replaced = |line: &str| match line.split_whitespace().next() {
        Some("nameserver") => !config.dns.is_empty(),
        Some("search" | "domain") => !config.dns_search.is_empty(),
        _ => false,
    };
    let mut made = String::new();
    for line in resolv.lines().filter(|line| !replaced(line)) {
        let _ = writeln!(made, "{line}");
    }
    for server in &config.dns {
        let _ = writeln!(made, "nameserver {server}");
    }
    // As with Docker, a dot is none at all.
    let domains: Vec<&str> =
        config.dns_search.iter().map(String::as_str).filter(|name| *name != ".").collect();
    if !domains.is_empty() {
        let _ = writeln!(made, "search {}", domains.join(" "));
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_takes_the_place_of_the_same_and_leaves_the_rest() {
        let own = "nameserver 10.0.0.1\nsearch a.example\noptions ndots:0\n";
        assert_eq!(resolv_conf(own, &Config::default()), own);
        let config = Config { dns: vec!["192.0.2.1".parse().unwrap()], ..Config::default() };
        assert_eq!(resolv_conf(own, &config), "search a.example\noptions ndots:0\nnameserver 192.0.2.1\n");
        let config = Config { dns_search: vec!["b.example".into(), "c.example".into()], ..Config::default() };
        let made = resolv_conf(own, &config);
        assert_eq!(made, "nameserver 10.0.0.1\noptions ndots:0\nsearch b.example c.example\n");
        let config = Config { dns_search: vec![".".into()], ..Config::default() };
        assert_eq!(resolv_conf(own, &config), "nameserver 10.0.0.1\noptions ndots:0\n");
    }
}
