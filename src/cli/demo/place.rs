//! A machine of the demo: a thread that lives in a network namespace of its own.
//!
//! The namespace has no name, so nothing is left of it when the thread ends, however the process ends.
//! Sockets opened and processes started by the thread's jobs belong to its namespace.

use std::fs::File;
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use nix::sched::{CloneFlags, unshare};

type Job = Box<dyn FnOnce() + Send>;

/// One machine.
pub(super) struct Place {
    name: &'static str,
    jobs: Option<Sender<Job>>,
    namespace: File,
    thread: Option<JoinHandle<()>>,
}

/// What a job that was started will give.
pub(super) struct Pending<T>(Receiver<T>, &'static str);

impl Place {
    /// A new machine without any link.
    ///
    /// # Errors
    /// The kernel gives no namespace: that needs CAP_SYS_ADMIN.
    pub(super) fn new(name: &'static str) -> anyhow::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (report, reported) = mpsc::channel();
        let live = move || {
            let _ = report.send(enter_new_namespace());
            queue.into_iter().for_each(|job| job());
        };
        let thread =
            thread::Builder::new().name(name.replace(' ', "-")).spawn(live).context("cannot start a thread")?;
        let namespace = reported
            .recv()
            .context("the thread ended")?
            .context("cannot make a network namespace: that needs CAP_SYS_ADMIN (in a container: --privileged)")?;
        Ok(Self { name, jobs: Some(jobs), namespace, thread: Some(thread) })
    }

    /// The namespace, for netlink; valid as long as `self`.
    pub(super) fn namespace(&self) -> RawFd {
        self.namespace.as_raw_fd()
    }

    /// Starts `job` in this machine, after those started before.
    pub(super) fn start<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Pending<T> {
        let (result, pending) = mpsc::channel();
        if let Some(jobs) = &self.jobs {
            // A job that cannot be sent, or whose result nobody wants, ends as an error in `Pending::wait`.
            let _ = jobs.send(Box::new(move || {
                let _ = result.send(job());
            }));
        }
        Pending(pending, self.name)
    }

    /// Does `job` in this machine.
    pub(super) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        self.start(job).wait()?.with_context(|| format!("on {}", self.name))
    }
}

impl<T> Pending<T> {
    /// The job's result.
    ///
    /// # Errors
    /// The machine is gone.
    pub(super) fn wait(self) -> anyhow::Result<T> {
        self.0.recv().with_context(|| format!("{} is gone", self.1))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn enter_new_namespace() -> anyhow::Result<File> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    Ok(File::open("/proc/thread-self/ns/net")?)
}
