//! Session keyrings: keyctl(2).

use crate::{Error, Result};
use rustix::io::Errno;
use std::ffi::CStr;

/// The number of a key or keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(i32);

const KEYCTL_GET_KEYRING_ID: libc::c_int = 0;
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
const KEYCTL_SETPERM: libc::c_int = 5;
const KEYCTL_DESCRIBE: libc::c_int = 6;
const KEY_SPEC_SESSION_KEYRING: libc::c_int = -3;

/// Search permission of those with the keyring's uid (`KEY_USR_SEARCH` of keyctl_setperm(3)).
pub const USER_SEARCH: u32 = 0x0008_0000;
/// Search permission of all others (`KEY_OTH_SEARCH`): within another user namespace the owner counts as one.
pub const OTHER_SEARCH: u32 = 0x0000_0008;

/// Makes a keyring called `name`, or joins it if it is there and allows so, as the session keyring of this process: what the caller
/// kept in its own is out of reach from then on. ENOSYS: the kernel has no keys; EDQUOT: the user has too many.
pub fn join_session(name: &CStr) -> Result<Key> {
    // SAFETY: JOIN_SESSION_KEYRING reads a string that ends with a zero byte, as every CStr does.
    let returned = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    match Error::check("keyctl JOIN_SESSION_KEYRING", returned)? {
        // It was the session keyring already.
        0 => session(),
        number => Ok(Key(number as i32)),
    }
}

/// The session keyring of this process.
pub fn session() -> Result<Key> {
    // SAFETY: GET_KEYRING_ID takes a number, here one that stands for the session keyring, and a flag: make none.
    let returned =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0) };
    Ok(Key(Error::check("keyctl GET_KEYRING_ID", returned)? as i32))
}

/// The permissions of a key: four bytes, for possessor, user, group and others (keyrings(7)).
pub fn permissions(key: Key) -> Result<u32> {
    let text = described(key)?;
    let permissions = text.split(';').nth(3).and_then(|hex| u32::from_str_radix(hex, 16).ok());
    permissions.ok_or(Error::new("keyctl DESCRIBE", Errno::BADMSG))
}

/// The name of a key.
pub fn name(key: Key) -> Result<String> {
    let text = described(key)?;
    let name = text.splitn(5, ';').nth(4);
    Ok(name.ok_or(Error::new("keyctl DESCRIBE", Errno::BADMSG))?.to_owned())
}

/// type;uid;gid;permissions;name
fn described(key: Key) -> Result<String> {
    let mut text = vec![0u8; 4096];
    // SAFETY: DESCRIBE writes at most the given number of bytes, which the vector has.
    let returned =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, key.0, text.as_mut_ptr(), text.len()) };
    Error::check("keyctl DESCRIBE", returned)?;
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Sets the permissions of a key.
pub fn set_permissions(key: Key, permissions: u32) -> Result<()> {
    // SAFETY: SETPERM takes two numbers.
    let returned = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, key.0, permissions) };
    Error::check("keyctl SETPERM", returned)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_child, skipped};

    #[test]
    fn a_session_keyring_is_joined_by_its_name() {
        in_child(|| {
            let key = match join_session(c"_ses.croft-test") {
                Err(error) if error.errno() == Errno::NOSYS => {
                    return skipped("keyring: join", "the kernel has no keys");
                }
                key => key.unwrap(),
            };
            assert_eq!(session().unwrap(), key);
            assert_eq!(name(key).unwrap(), "_ses.croft-test");
            let before = permissions(key).unwrap();
            assert_eq!(before & USER_SEARCH, 0);
            set_permissions(key, before | USER_SEARCH).unwrap();
            assert_eq!(permissions(key).unwrap(), before | USER_SEARCH);
            // Searchable, so a second joining by the name finds the same one.
            assert_eq!(join_session(c"_ses.croft-test").unwrap(), key);
            assert_ne!(join_session(c"_ses.croft-test-other").unwrap(), key);
            assert_eq!(join_session(c"_ses.croft-test").unwrap(), key);
        });
    }
}
