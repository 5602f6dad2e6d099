//! The runtime's own program, which a container's process can reach while the runtime makes another process there.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use croft_harness::{Bundle, Host, process};
use serde_json::json;

use super::{Talk, end, join_pid_namespace, succeeded, with_copy_of_runtime};

const LIMIT: Duration = Duration::from_secs(20);

/// CVE-2019-5736 (runc): a container whose program was `#!/proc/self/exe` had runc run itself inside, and another process there
/// opened runc's file through /proc/PID/exe and overwrote it, on the host, once it was not running any more.
///
/// The attacker is root with CAP_SYS_ADMIN, and tries to make the read-only mount writable that the runtime runs from.
pub fn cve_2019_5736(host: &Host) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("croft-copy-").tempdir()?;
    let host = with_copy_of_runtime(host, folder.path())?;
    let before = fs::read(&host.runtime)?;
    let mut attacker = Bundle::new(&host, &["/probe", "--attack-runtime"])?;
    attacker.add_probe()?;
    for set in ["bounding", "effective", "permitted"] {
        let set = attacker.config["process"]["capabilities"][set].as_array_mut().context("a set")?;
        set.push(json!("CAP_SYS_ADMIN"));
    }
    let mut talk = Talk::with(&mut attacker)?;
    attacker.started()?;
    let mut victim = Bundle::new(&host, &["/evil", "run", "--bundle", "/b", "x"])?;
    prepare(&victim, &host.runtime)?;
    join_pid_namespace(&mut victim, &attacker)?;
    victim.create()?.success()?;
    talk.tell("gate")?;
    hear(&mut talk, "gate")?;
    victim.start()?.success()?;
    talk.tell("evil")?;
    let held = hear(&mut talk, "evil")?;
    ensure!(
        held.starts_with("held"),
        "the runtime did not run as its own interpreter: {:?}",
        victim.output()?
    );
    end(victim)?;
    through_exec(&attacker)?;
    talk.tell("again")?;
    hear(&mut talk, "done")?;
    ensure!(fs::read(&host.runtime)? == before, succeeded("the runtime's file is changed"));
    Ok(())
}

/// The same by way of `exec`, as in the first exploit.
fn through_exec(attacker: &Bundle) -> Result<()> {
    let evil = attacker.rootfs().join("evil");
    fs::write(&evil, "#!/proc/self/exe --version\n")?;
    fs::set_permissions(&evil, fs::Permissions::from_mode(0o755))?;
    // Whether it can run is not the question; what the attacker sees of it is.
    attacker.exec(&["/evil"]).map(drop)
}

/// What the attacker says at a stage, after having told of anything that worked.
fn hear(talk: &mut Talk, stage: &str) -> Result<String> {
    loop {
        let line = talk.hear("", LIMIT)?;
        if line.starts_with("overwritten") || line.starts_with("changed") {
            return Err(succeeded(format_args!("the runtime's program: {line}")));
        }
        if line.ends_with(stage) {
            return Ok(line);
        }
    }
}

/// Puts the script into the root folder, a configuration that is waited for as long as nobody writes it (a fifo), and the
/// libraries that the runtime needs when it is not a static program.
fn prepare(victim: &Bundle, runtime: &Path) -> Result<()> {
    let root = victim.rootfs();
    let evil = root.join("evil");
    fs::write(&evil, "#!/proc/self/exe --root\n")?;
    fs::set_permissions(&evil, fs::Permissions::from_mode(0o755))?;
    fs::create_dir(root.join("b"))?;
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let fifo = root.join("b/config.json");
    rustix::fs::mknodat(rustix::fs::CWD, fifo, rustix::fs::FileType::Fifo, mode, 0)?;
    let out = process::run(Command::new("ldd").arg(runtime), LIMIT)?;
    let words = out.stdout.split_whitespace().filter(|word| word.starts_with('/'));
    for library in words.map(|word| Path::new(word.trim_end_matches(':'))).filter(|path| *path != runtime) {
        let inside = root.join(library.strip_prefix("/")?);
        fs::create_dir_all(inside.parent().context("a library is in a folder")?)?;
        fs::copy(library, inside).with_context(|| format!("copy {}", library.display()))?;
    }
    Ok(())
}
