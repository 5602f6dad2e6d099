//! Health checks: what one is, one run of it, and what follows from that.

use std::time::Duration;

use croft_api::container::{Exec, Health, HealthCheck, HealthState, Probe};
use croft_api::problem::{Kind, Problem};
use croft_shim::protocol::{From, Io, IoKind, Reply, Request, WhenFull};
use serde_json::Value;

use crate::daemon::Shared;
use crate::records::Record;
use crate::{clock, exec, signals};

/// The id of its process among the further ones of a container: one runs at a time, and one that a croftd before left is found by it.
const EXEC: &str = "health";

/// How many runs are kept.
const KEPT: usize = 5;

/// Bytes of output that are kept of each.
const OUTPUT: usize = 4096;

/// How long the end, and the output, of a run that is over may take to come.
const REST: Duration = Duration::from_secs(1);

const USUAL_INTERVAL: u64 = 30_000;
const USUAL_TIMEOUT: u64 = 30_000;
const USUAL_RETRIES: u32 = 3;

/// The check that is in force for a container: what is asked for, over what the image says, over the usual. None: it has none.
///
/// # Errors
/// In words, for one that cannot be.
pub fn in_force(asked: Option<HealthCheck>, image: Option<&Value>) -> Result<Option<HealthCheck>, String> {
    let asked = asked.unwrap_or_default();
    let of_image = image.map(read).transpose()?.filter(|check| !is_none(check)).unwrap_or_default();
    if is_none(&asked) {
        return Ok(None);
    }
    let test = if asked.test.is_empty() { of_image.test.clone() } else { asked.test.clone() };
    if test.is_empty() {
        return match asked == HealthCheck::default() {
            true => Ok(None),
            false => Err("the image has no health check to change: --health-cmd".to_owned()),
        };
    }
    match (test[0].as_str(), test.len()) {
        ("CMD", 2..) | ("CMD-SHELL", 2) => {}
        _ => return Err(format!("health check {test:?}: CMD and a program, or CMD-SHELL and a line")),
    }
    let check = HealthCheck {
        test,
        interval_ms: asked.interval_ms.or(of_image.interval_ms).or(Some(USUAL_INTERVAL)),
        timeout_ms: asked.timeout_ms.or(of_image.timeout_ms).or(Some(USUAL_TIMEOUT)),
        retries: asked.retries.or(of_image.retries).or(Some(USUAL_RETRIES)),
        start_period_ms: asked.start_period_ms.or(of_image.start_period_ms).or(Some(0)),
    };
    if check.interval_ms == Some(0) || check.timeout_ms == Some(0) || check.retries == Some(0) {
        return Err("health check: interval, timeout and retries are more than nothing".to_owned());
    }
    Ok(Some(check))
}

fn is_none(check: &HealthCheck) -> bool {
    check.test.first().is_some_and(|word| word == "NONE")
}

/// An image's `Healthcheck`: times in nanoseconds, 0 for none given.
fn read(image: &Value) -> Result<HealthCheck, String> {
    let ms = |name: &str| image[name].as_u64().filter(|ns| *ns > 0).map(|ns| ns.div_ceil(1_000_000));
    let test = match &image["Test"] {
        Value::Null => Vec::new(),
        list => serde_json::from_value(list.clone()).map_err(|e| format!("the image's health check: {e}"))?,
    };
    let retries = image["Retries"].as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
    Ok(HealthCheck {
        test,
        interval_ms: ms("Interval"),
        timeout_ms: ms("Timeout"),
        retries,
        start_period_ms: ms("StartPeriod"),
    })
}

/// The pause between two runs.
pub fn interval(check: &HealthCheck) -> Duration {
    Duration::from_millis(check.interval_ms.unwrap_or(USUAL_INTERVAL))
}

/// Whether a failure counts yet, `since` the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// It may still be getting ready.
    Start,
    /// It should be.
    Later,
}

/// In which period a container is that was started then.
pub fn period(check: &HealthCheck, started: Option<&str>, now: jiff::Timestamp) -> Period {
    let started = started.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let since = started.map_or(i64::MAX, |started| now.as_millisecond() - started.as_millisecond());
    let period = check.start_period_ms.unwrap_or(0);
    if u64::try_from(since).is_ok_and(|since| since >= period) { Period::Later } else { Period::Start }
}

/// What is known after one more run.
pub fn after(health: &Health, check: &HealthCheck, probe: Probe, period: Period) -> Health {
    let (state, failing) = match probe.status {
        Some(0) => (HealthState::Healthy, 0),
        _ if period == Period::Start && health.state == HealthState::Starting => (health.state, 0),
        _ => {
            let failing = health.failing.saturating_add(1);
            let is_enough = failing >= check.retries.unwrap_or(USUAL_RETRIES);
            (if is_enough { HealthState::Unhealthy } else { health.state }, failing)
        }
    };
    let before = health.log.len().saturating_sub(KEPT - 1);
    let log = health.log[before..].iter().cloned().chain([probe]).collect();
    Health { state, failing, log }
}

/// Runs the check once.
pub async fn probe(shared: &Shared, record: &Record, check: &HealthCheck) -> Probe {
    let start = clock::now();
    let (status, output) = match run(shared, record, check).await {
        Ok((status, output)) => (status, output),
        Err(problem) => (None, problem.detail),
    };
    let forget = Request::Delete { id: record.id.clone(), exec: Some(EXEC.to_owned()), force: true };
    // There is none when it could not be run.
    let _ = shared.shim.ask(forget).await;
    Probe { start, end: clock::now(), status, output }
}

async fn run(
    shared: &Shared,
    record: &Record,
    check: &HealthCheck,
) -> Result<(Option<i32>, String), Problem> {
    let title = "health check";
    let command = match check.test.split_first() {
        Some((kind, line)) if kind == "CMD-SHELL" => {
            ["/bin/sh", "-c"].map(str::to_owned).into_iter().chain(line.iter().cloned()).collect()
        }
        Some((_, words)) => words.to_vec(),
        None => Vec::new(),
    };
    let asked = Exec { command, ..Exec::default() };
    let io = Io { kind: IoKind::Pipes { stdin: false }, ring: OUTPUT as u32, when_full: WhenFull::Forget };
    let of = |exec: Option<String>| (record.id.clone(), exec);
    match exec::run(shared, record, title, &asked, EXEC, io).await {
        Err(problem) if problem.kind == Kind::Conflict => {
            let (id, exec) = of(Some(EXEC.to_owned()));
            let _ = shared.shim.ask(Request::Delete { id, exec, force: true }).await;
            exec::run(shared, record, title, &asked, EXEC, io).await?;
        }
        other => other?,
    }
    let wait = || {
        let (id, exec) = of(Some(EXEC.to_owned()));
        shared.shim.ask(Request::Wait { id, exec })
    };
    let limit = Duration::from_millis(check.timeout_ms.unwrap_or(USUAL_TIMEOUT));
    let (status, last_words) = match tokio::time::timeout(limit, wait()).await {
        Ok(Ok(Reply::Exited(exit))) => (exit.status, None),
        Ok(Ok(other)) => {
            return Err(Problem::new(Kind::Internal, title, format!("the supervisor answers {other:?}")));
        }
        Ok(Err(failure)) => return Err(crate::supervise::problem(title, &failure)),
        Err(_) => {
            let (id, exec) = of(Some(EXEC.to_owned()));
            let _ = shared.shim.ask(Request::Kill { id, exec, signal: signals::KILL, all: false }).await;
            let _ = tokio::time::timeout(REST, wait()).await;
            (None, Some(format!("it did not end within {limit:?} and was killed")))
        }
    };
    let from = [Some(From::Oldest), Some(From::Oldest)];
    let (stream, _) = exec::attach(shared, title, &record.id, Some(EXEC.to_owned()), from).await?;
    let mut bytes = Vec::new();
    // A child that it left behind may hold its output open.
    let _ = tokio::time::timeout(REST, exec::output(stream, &mut bytes)).await;
    bytes.extend(last_words.iter().flat_map(|words| words.bytes()));
    let from = bytes.len().saturating_sub(OUTPUT);
    Ok((status, String::from_utf8_lossy(&bytes[from..]).into_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shell(line: &str) -> HealthCheck {
        HealthCheck { test: vec!["CMD-SHELL".into(), line.into()], ..HealthCheck::default() }
    }

    #[test]
    fn what_is_asked_goes_over_the_image() {
        let image = json!({"Test": ["CMD", "check"], "Interval": 5_000_000_000_u64, "Retries": 7});
        assert_eq!(in_force(None, None), Ok(None));
        let of_image = in_force(None, Some(&image)).unwrap().unwrap();
        assert_eq!(
            (of_image.test[1].as_str(), of_image.interval_ms, of_image.retries),
            ("check", Some(5000), Some(7))
        );
        assert_eq!((of_image.timeout_ms, of_image.start_period_ms), (Some(USUAL_TIMEOUT), Some(0)));
        let other = HealthCheck { retries: Some(1), ..HealthCheck::default() };
        let other = in_force(Some(other), Some(&image)).unwrap().unwrap();
        assert_eq!((other.test[1].as_str(), other.retries), ("check", Some(1)));
        let own = in_force(Some(shell("true")), Some(&image)).unwrap().unwrap();
        assert_eq!(own.test, ["CMD-SHELL", "true"]);
        let none = HealthCheck { test: vec!["NONE".into()], ..HealthCheck::default() };
        assert_eq!(in_force(Some(none), Some(&image)), Ok(None));
        assert_eq!(in_force(None, Some(&json!({"Test": ["NONE"]}))), Ok(None));
    }

    #[test]
    fn checks_that_cannot_be_are_refused() {
        let with = |change: fn(&mut HealthCheck)| {
            let mut check = shell("true");
            change(&mut check);
            in_force(Some(check), None)
        };
        assert!(with(|c| c.test = vec!["RUN".into(), "x".into()]).is_err());
        assert!(with(|c| c.test = vec!["CMD".into()]).is_err());
        assert!(with(|c| c.interval_ms = Some(0)).is_err());
        assert!(with(|c| c.retries = Some(0)).is_err());
        assert!(with(|c| c.test.clear()).is_ok_and(|check| check.is_none()), "nothing is asked");
        let changed = HealthCheck { retries: Some(1), ..HealthCheck::default() };
        assert!(in_force(Some(changed), None).unwrap_err().contains("--health-cmd"));
    }

    #[test]
    fn failures_count_in_a_row_and_not_at_the_start() {
        let check = HealthCheck { retries: Some(2), ..shell("x") };
        let probe =
            |status| Probe { start: String::new(), end: String::new(), status, output: String::new() };
        let step = |health: &Health, status, period| after(health, &check, probe(status), period);
        let begun = step(&Health::default(), Some(1), Period::Start);
        assert_eq!((begun.state, begun.failing, begun.log.len()), (HealthState::Starting, 0, 1));
        let once = step(&begun, None, Period::Later);
        assert_eq!((once.state, once.failing), (HealthState::Starting, 1));
        let twice = step(&once, Some(1), Period::Later);
        assert_eq!((twice.state, twice.failing), (HealthState::Unhealthy, 2));
        let well = step(&twice, Some(0), Period::Later);
        assert_eq!((well.state, well.failing), (HealthState::Healthy, 0));
        let again = step(&well, Some(1), Period::Start);
        assert_eq!((again.state, again.failing), (HealthState::Healthy, 1), "it was ready before");
        let many = (0..9).fold(well, |health, n| step(&health, Some(n), Period::Later));
        assert_eq!(many.log.iter().map(|p| p.status).collect::<Vec<_>>(), [4, 5, 6, 7, 8].map(Some));
    }

    #[test]
    fn the_start_period_ends() {
        let check = HealthCheck { start_period_ms: Some(2000), ..shell("x") };
        let at = |text: &str| text.parse().unwrap();
        let started = Some("2026-01-01T00:00:00Z");
        assert_eq!(period(&check, started, at("2026-01-01T00:00:01Z")), Period::Start);
        assert_eq!(period(&check, started, at("2026-01-01T00:00:02Z")), Period::Later);
        assert_eq!(period(&check, None, at("2026-01-01T00:00:02Z")), Period::Later);
    }
}
