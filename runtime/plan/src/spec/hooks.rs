//! Hooks; see runtime-spec config.md, POSIX-platform Hooks.

use std::path::PathBuf;
use std::time::Duration;

use super::SpecError;

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookPoint {
    /// After the namespaces and mounts are made, before the root is switched; in the runtime's namespaces. Deprecated.
    Prestart,
    /// As [`HookPoint::Prestart`].
    CreateRuntime,
    /// After those, in the container's namespaces, before the root is switched.
    CreateContainer,
    /// In the container, before its program runs.
    StartContainer,
    /// After the program has been started; in the runtime's namespaces.
    Poststart,
    /// After the container was deleted; in the runtime's namespaces.
    Poststop,
}

/// One program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The program, an absolute path.
    pub path: PathBuf,
    /// Its whole argv; empty means the path alone.
    pub args: Vec<String>,
    /// Its environment, `NAME=value`.
    pub env: Vec<String>,
    /// How long it may take.
    pub timeout: Option<Duration>,
}

/// All hooks, by point.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    by_point: std::collections::BTreeMap<HookPoint, Vec<Hook>>,
}

impl Hooks {
    /// The hooks of one point, in order.
    pub fn at(&self, point: HookPoint) -> &[Hook] {
        self.by_point.get(&point).map_or(&[], Vec::as_slice)
    }

    pub(super) fn resolve(raw: Option<&oci_spec::runtime::Hooks>) -> Result<Self, SpecError> {
        let mut hooks = Hooks::default();
        let Some(raw) = raw else { return Ok(hooks) };
        #[allow(deprecated, reason = "prestart is deprecated in the spec and still in use")]
        let points = [
            (HookPoint::Prestart, raw.prestart()),
            (HookPoint::CreateRuntime, raw.create_runtime()),
            (HookPoint::CreateContainer, raw.create_container()),
            (HookPoint::StartContainer, raw.start_container()),
            (HookPoint::Poststart, raw.poststart()),
            (HookPoint::Poststop, raw.poststop()),
        ];
        for (point, list) in points {
            let list: Vec<Hook> = list.iter().flatten().map(Hook::resolve).collect::<Result<_, _>>()?;
            if !list.is_empty() {
                hooks.by_point.insert(point, list);
            }
        }
        Ok(hooks)
    }
}

impl Hook {
    fn resolve(raw: &oci_spec::runtime::Hook) -> Result<Self, SpecError> {
        if !raw.path().is_absolute() {
            return Err(SpecError::invalid("hooks.path", raw.path().display(), "must be absolute"));
        }
        let timeout = match raw.timeout() {
            None => None,
            Some(seconds @ 1..) => Some(Duration::from_secs(seconds as u64)),
            Some(seconds) => {
                return Err(SpecError::invalid("hooks.timeout", seconds, "must be greater than zero"));
            }
        };
        Ok(Hook {
            path: raw.path().clone(),
            args: raw.args().clone().unwrap_or_default(),
            env: raw.env().clone().unwrap_or_default(),
            timeout,
        })
    }
}
