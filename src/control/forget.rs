//! Takes away what a daemon left for its next start, when there will be none: routes, the routes of last resort, rules.
//!
//! A daemon that is told to stop cannot know whether it is to be started again at once, and what it left must not be
//! taken away then. The service manager knows: it has a job.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use super::netlink::Netlink;
use super::reconcile::{Problem, Reconciler, Step};

/// Takes away all that belongs to the interface `name`, whoever put it there. Gives what was done.
///
/// # Errors
/// When a daemon runs, or the kernel refuses; each with the remedy.
pub fn forget(name: &str, socket: &Path) -> anyhow::Result<Vec<Step>> {
    if std::os::unix::net::UnixStream::connect(socket).is_ok() {
        bail!("a daemon answers at {}: stop it first, that cleans up, too", socket.display());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(clear(name))
}

async fn clear(name: &str) -> anyhow::Result<Vec<Step>> {
    let netlink = Netlink::open()?;
    let index = netlink.link_named(name).await?.map(|link| link.device.index);
    let outcome = Reconciler::new(netlink, name).clear(index).await?;
    match outcome.complete() {
        Ok(steps) => Ok(steps),
        Err(Problem { step, error }) => bail!("{step}: {error} (is this root, or has it CAP_NET_ADMIN?)"),
    }
}

/// Whether the service `unit`, which has just stopped with `result` ($SERVICE_RESULT, systemd.exec(5)), is to start
/// again: after a failure, which must leave the far networks closed; or because the manager has a job that says so.
///
/// # Errors
/// When the manager does not say.
pub fn starts_again(unit: &str, result: Option<&str>) -> anyhow::Result<bool> {
    if result.is_some_and(|result| result != "success") {
        return Ok(true);
    }
    let asked = Command::new("systemctl").args(["list-jobs", "--no-legend", "--plain", "--full", "--", unit]).output();
    let answer = asked.context("cannot ask systemctl whether the service starts again")?;
    if !answer.status.success() {
        let said = String::from_utf8_lossy(&answer.stderr);
        bail!("systemctl does not say whether {unit} starts again: {}", said.trim());
    }
    Ok(has_start_job(&String::from_utf8_lossy(&answer.stdout), unit))
}

/// Lines of `systemctl list-jobs`: number, unit, type, state.
fn has_start_job(jobs: &str, unit: &str) -> bool {
    let fields = jobs.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let starts = |kind: &str| kind.contains("start");
    fields.into_iter().any(|job| matches!(job[..], [_, of, kind, ..] if of == unit && starts(kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_of_this_unit_that_starts_it_is_found() {
        let unit = "linkspan@wan0.service";
        let has = |jobs: &str| has_start_job(jobs, unit);
        assert!(has("123 linkspan@wan0.service restart running\n"));
        assert!(has(" 5 other.service stop running\n 6 linkspan@wan0.service start waiting\n"));
        assert!(!has("123 linkspan@wan0.service stop running\n"));
        assert!(!has("123 linkspan@wan1.service restart running\n"));
        assert!(!has(""));
    }

    #[test]
    fn after_a_failure_nothing_is_asked_and_all_stays_closed() {
        assert!(starts_again("x", Some("watchdog")).unwrap());
        assert!(starts_again("x", Some("exit-code")).unwrap());
    }
}
