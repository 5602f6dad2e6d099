//! Who may ask for what. All of it is here.

use croft_api::problem::{Kind, Problem};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A process of this host, as the kernel says (SO_PEERCRED, unix(7)).
    Process {
        /// Its user.
        uid: u32,
        /// Its groups.
        groups: Vec<u32>,
    },
    /// Another host, by its key.
    Host {
        /// Which.
        name: String,
        /// Whether it is trusted at this moment.
        trusted: bool,
    },
}

/// Who administers this croftd beside root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Administrators {
    /// croftd's own user.
    pub uid: u32,
    /// The group whose members are, where there is one.
    pub group: Option<u32>,
}

/// Lets administrators do everything and others nothing.
///
/// # Errors
/// [`Kind::Forbidden`].
pub fn check(caller: &Caller, administrators: Administrators) -> Result<(), Problem> {
    let refused = |detail| Err(Problem::new(Kind::Forbidden, "ask croftd", detail));
    match caller {
        Caller::Host { trusted: true, .. } => Ok(()),
        Caller::Host { name, trusted: false } => refused(format!("the key of {name} is revoked")),
        Caller::Process { uid, groups } => {
            let is_member = administrators.group.is_some_and(|group| groups.contains(&group));
            if *uid == 0 || *uid == administrators.uid || is_member {
                return Ok(());
            }
            refused(format!("uid {uid} is neither root nor in the group of croftd (--group)"))
                .map_err(|problem| problem.hint("have an administrator run: adduser USER croft"))
        }
    }
}

/// The number of the group `name` in the text of /etc/group.
pub fn group(name: &str, text: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn administrators_may_and_others_may_not() {
        let administrators = Administrators { uid: 0, group: group("croft", "root:x:0:\ncroft:x:77:me\n") };
        let may = |uid, groups: &[u32]| {
            check(&Caller::Process { uid, groups: groups.to_vec() }, administrators).is_ok()
        };
        assert!(may(0, &[]) && may(1000, &[1000, 77]));
        assert!(!may(1000, &[1000]) && group("croft", "crofter:x:1:").is_none());
        let host = |trusted| check(&Caller::Host { name: "east".into(), trusted }, administrators);
        assert!(host(true).is_ok() && host(false).is_err());
    }
}
