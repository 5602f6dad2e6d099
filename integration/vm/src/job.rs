//! What one boot is told: shares, modules and the command, as the first lines of the guest's init script.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Result, bail, ensure};

use crate::{Access, Init, Vm};

/// What every boot runs once it has these lines.
const INIT: &str = include_str!("guest/init.sh");

/// A script up to this size fits into a socket's buffer, so that sending it never waits for the guest.
const SCRIPT_MAX: usize = 128 * 1024;

/// The guest's init script for this command.
pub(crate) fn script(vm: &Vm, command: &[OsString]) -> Result<Vec<u8>> {
    ensure!(!command.is_empty(), "run in a virtual machine: the command is empty");
    let mut script = Vec::new();
    let init = match vm.init {
        Init::Shell => "shell",
        Init::Systemd => "systemd",
    };
    writeln!(script, "init={init}\nmodules='{}'", vm.modules.join(" "))?;
    mount_shares(&mut script, vm)?;
    script.extend(b"job() {\ncd ");
    quote(&mut script, vm.folder.as_os_str());
    script.extend(b" || exit 125\n");
    for (name, value) in &vm.environment {
        ensure!(
            is_variable(name),
            "pass an environment variable: {name:?} is not a name that a shell can export"
        );
        write!(script, "export {name}=")?;
        quote(&mut script, value);
        script.push(b'\n');
    }
    script.extend(b"exec");
    for word in command {
        script.push(b' ');
        quote(&mut script, word);
    }
    script.extend(b"\n}\n");
    script.extend(INIT.as_bytes());
    if script.len() > SCRIPT_MAX {
        bail!("run in a virtual machine: command and environment are longer than {SCRIPT_MAX} bytes");
    }
    Ok(script)
}

fn mount_shares(script: &mut Vec<u8>, vm: &Vm) -> Result<()> {
    let mut flush = Vec::new();
    script.extend(b"mount_shares() {\n");
    for share in &vm.shares {
        let options = match share.access {
            Access::ReadOnly => "ro",
            Access::ReadWrite => "rw",
        };
        mount(script, format!("-t virtiofs -o {options} {}", share.name).as_bytes(), &share.at);
        if share.access == Access::ReadWrite {
            flush.extend(b"try $B sync -f ");
            quote(&mut flush, share.at.as_os_str());
            flush.push(b'\n');
        }
    }
    for (from, to) in &vm.binds {
        let mut source = b"--bind ".to_vec();
        quote(&mut source, from.as_os_str());
        mount(script, &source, to);
    }
    script.extend(b":\n}\nflush_shares() {\n");
    script.extend(flush);
    script.extend(b":\n}\n");
    Ok(())
}

fn mount(script: &mut Vec<u8>, what: &[u8], target: &Path) {
    for command in [b"try $B mkdir -p ".as_slice(), &[b"try $B mount ".as_slice(), what, b" "].concat()] {
        script.extend(command);
        quote(script, target.as_os_str());
        script.push(b'\n');
    }
}

/// Appends a word as a shell reads it back unchanged.
fn quote(script: &mut Vec<u8>, word: &OsStr) {
    script.push(b'\'');
    for byte in word.as_bytes() {
        match byte {
            b'\'' => script.extend(br"'\''"),
            _ => script.push(*byte),
        }
    }
    script.push(b'\'');
}

fn is_variable(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let mut bytes = name.bytes();
    bytes.next().is_some_and(letter) && bytes.all(|byte| letter(byte) || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Runs the job's function here, with the host's shell.
    fn run_here(vm: &Vm, command: &[&[u8]]) -> std::process::Output {
        let command: Vec<OsString> = command.iter().map(|word| OsStr::from_bytes(word).to_owned()).collect();
        let script = script(vm, &command).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), script).unwrap();
        Command::new("sh").arg(file.path()).arg("job").output().unwrap()
    }

    #[test]
    fn words_reach_the_command_unchanged() {
        let words: [&[u8]; 6] = [b"a b", b"it's", b"$HOME`id`\\", b"", b"line\nline", b"\xff\xfe"];
        let vm = Vm { folder: "/".into(), ..Vm::new() };
        let output = run_here(&vm, &[&[b"printf".as_slice(), b"%s|"], words.as_slice()].concat());
        assert_eq!(output.stdout, [words.join(b"|".as_slice()), b"|".to_vec()].concat());
    }

    #[test]
    fn the_environment_and_the_folder_are_set() {
        let environment = vec![("CROFT_A".into(), "x'y".into())];
        let vm = Vm { folder: "/usr".into(), environment, ..Vm::new() };
        let output = run_here(&vm, &[b"sh", b"-c", b"echo $PWD $CROFT_A"]);
        assert_eq!(output.stdout, b"/usr x'y\n");
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        let refused = |vm: &Vm, command: &[OsString]| script(vm, command).unwrap_err().to_string();
        assert!(refused(&Vm::new(), &[]).contains("empty"));
        assert!(refused(&Vm::new(), &["x".repeat(SCRIPT_MAX).into()]).contains("longer than"));
        let vm = Vm { environment: vec![("A-B".into(), "".into())], ..Vm::new() };
        assert!(refused(&vm, &["true".into()]).contains("A-B"));
    }
}
