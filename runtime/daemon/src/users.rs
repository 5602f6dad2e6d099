//! Who a process is, by the `passwd` and `group` files of its own root (passwd(5), group(5)).

use std::path::Path;

use croft_engine::rootfs_file;

use crate::spec::User;

/// The user that `asked` means in the root at `rootfs`: `USER[:GROUP]`, names or numbers; root for nothing.
///
/// # Errors
/// In words, for a name that the root does not know.
pub fn find(rootfs: &Path, asked: &str) -> Result<User, String> {
    let read = |path: &str| rootfs_file::read(rootfs, Path::new(path), LONGEST).unwrap_or_default();
    resolve(asked, &read("etc/passwd"), &read("etc/group"))
}

/// Whether this user and these groups mean the same in every root.
pub fn are_numbers(user: &str, groups: &[String]) -> bool {
    let is_number = |word: &str| word.is_empty() || word.parse::<u32>().is_ok();
    user.split(':').all(is_number) && groups.iter().all(|group| is_number(group))
}

/// The groups that `asked` mean in the root at `rootfs`, names or numbers.
///
/// # Errors
/// In words, for a name that the root does not know.
pub fn groups(rootfs: &Path, asked: &[String]) -> Result<Vec<u32>, String> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let text = rootfs_file::read(rootfs, Path::new("etc/group"), LONGEST).unwrap_or_default();
    asked.iter().map(|name| group_number(name, &text)).collect()
}

/// Bytes of a passwd or group file that are looked at: it is the container's, and may be anything.
const LONGEST: usize = 4 << 20;

fn resolve(asked: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (user, group_asked) = match asked.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (asked, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number: Option<u32> = user.parse().ok();
    let line = passwd.lines().map(fields).find(|line| match number {
        Some(number) => line.get(2).and_then(|uid| uid.parse().ok()) == Some(number),
        None => line.first() == Some(&user),
    });
    let uid = match (&line, number) {
        (_, Some(number)) => number,
        (Some(line), None) => {
            number_at(line, 2).ok_or_else(|| format!("user {user}: its line in /etc/passwd has no number"))?
        }
        (None, None) => return Err(format!("user {user}: is not in the image's /etc/passwd")),
    };
    let own_group = line.as_ref().and_then(|line| number_at(line, 3)).unwrap_or(0);
    let gid = match group_asked {
        None => own_group,
        Some(asked) => group_number(asked, group)?,
    };
    let name = line.as_ref().and_then(|line| line.first().copied());
    let additional = match (name, group_asked) {
        // As with Docker: who names a group gets that group.
        (Some(name), None) => member_of(group, name, gid),
        _ => Vec::new(),
    };
    Ok(User { uid, gid, additional })
}

fn group_number(asked: &str, group: &str) -> Result<u32, String> {
    if let Ok(number) = asked.parse() {
        return Ok(number);
    }
    let line = group.lines().map(fields).find(|line| line.first() == Some(&asked));
    line.and_then(|line| number_at(&line, 2))
        .ok_or_else(|| format!("group {asked}: is not in the image's /etc/group"))
}

fn fields(line: &str) -> Vec<&str> {
    line.split(':').collect()
}

fn number_at(line: &[&str], at: usize) -> Option<u32> {
    line.get(at)?.parse().ok()
}

fn member_of(group: &str, name: &str, but: u32) -> Vec<u32> {
    let of = |line: Vec<&str>| {
        let is_member = line.get(3).is_some_and(|members| members.split(',').any(|member| member == name));
        number_at(&line, 2).filter(|gid| is_member && *gid != but)
    };
    group.lines().map(fields).filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nwww:x:33:\naudio:x:29:www,root\nstaff:x:50:\n";

    #[test]
    fn names_and_numbers_are_found() {
        let found = |asked: &str| resolve(asked, PASSWD, GROUP);
        let user = |uid, gid, additional: &[u32]| Ok(User { uid, gid, additional: additional.to_vec() });
        assert_eq!(found(""), user(0, 0, &[29]));
        assert_eq!(found("www"), user(33, 33, &[29]));
        assert_eq!(found("33"), user(33, 33, &[29]));
        assert_eq!(found("www:staff"), user(33, 50, &[]));
        assert_eq!(found("1234:5"), user(1234, 5, &[]));
        assert_eq!(found("1234"), user(1234, 0, &[]));
        assert!(found("nobody").is_err() && found("www:none").is_err());
    }
}
