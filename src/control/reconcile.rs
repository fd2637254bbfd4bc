//! Makes the desired state true and keeps it true: puts back what others delete, sweeps what a crash left.
//!
//! Touches only what carries our protocol number and belongs to this instance. Adds before it deletes, so that no
//! packet meets a moment without a route.

mod plan;
mod reverse_path;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use tracing::{info, warn};

use super::netlink::{Error, Netlink};
use super::routes::{Desired, Facts, Instance, Route, Rule};
use crate::config::Config;

pub use plan::Step;
use plan::{Present, plan};

/// Keeps one interface's addresses, routes and rules.
#[derive(Debug)]
pub struct Reconciler {
    netlink: Netlink,
    instance: Instance,
    added: BTreeSet<Added>,
    problems: BTreeSet<String>,
    seeking: bool,
}

/// What this process itself put there. What it found and kept is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Added {
    Route(Route),
    Rule(Rule),
}

impl Added {
    /// What `step` adds, if it adds something that has to be taken back.
    const fn by(step: &Step) -> Option<Self> {
        match *step {
            Step::AddRoute(route) | Step::ReplaceRoute(route) => Some(Self::Route(route)),
            Step::AddRule(rule) => Some(Self::Rule(rule)),
            // An address goes with the interface; what is deleted twice does no harm.
            Step::AddAddress(_) | Step::DeleteRoute(_) | Step::DeleteRule(_) => None,
        }
    }
}

/// What could not be done, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// What was tried.
    pub step: Step,
    /// What the kernel said.
    pub error: Error,
}

/// What one pass did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Steps that were made, in order; empty when all was as it ought to be.
    pub done: Vec<Step>,
    /// Steps that failed; they are tried again at the next pass.
    pub problems: Vec<Problem>,
}

impl Reconciler {
    /// For the interface called `name` in the configuration.
    #[must_use]
    pub fn new(netlink: Netlink, name: &str) -> Self {
        let instance = Instance::new(name);
        Self { netlink, instance, added: BTreeSet::new(), problems: BTreeSet::new(), seeking: true }
    }

    /// Before the TUN is there: only the routes of last resort. Takes nothing away: what a crash left may close more,
    /// as long as the endpoints' names are not resolved, and goes in [`Reconciler::running`].
    ///
    /// # Errors
    /// When the kernel does not even answer.
    pub async fn before_device(&mut self, config: &Config, endpoints: &[IpAddr]) -> Result<Outcome, Error> {
        let facts = Facts { device: None, endpoints, host: &[], seeking: self.seeking };
        let mut steps = plan(&Desired::new(config, &facts), &self.present(None).await?);
        steps.retain(|step| !matches!(step, Step::DeleteRoute(_) | Step::DeleteRule(_)));
        Ok(self.take(steps, None).await)
    }

    /// With the TUN `index`: everything. Where an endpoint lies inside a network, the sockets must already carry
    /// [`mark`](super::routes::mark).
    ///
    /// # Errors
    /// [`Error::NoDevice`] when the TUN is gone, or when the kernel does not even answer.
    pub async fn running(&mut self, config: &Config, index: u32, endpoints: &[IpAddr]) -> Result<Outcome, Error> {
        let desired = self.desired(config, index, endpoints).await?;
        self.apply(&desired, Some(index)).await
    }

    async fn desired(&self, config: &Config, index: u32, endpoints: &[IpAddr]) -> Result<Desired, Error> {
        let device = self.netlink.link(index).await?.ok_or(Error::NoDevice)?.device;
        let host = self.netlink.host_addresses().await?;
        let facts = Facts { device: Some(device), endpoints, host: &host, seeking: self.seeking };
        Ok(Desired::new(config, &facts))
    }

    /// Adds what `config`, which is to be in force, needs beside what is there, and takes nothing away.
    ///
    /// # Errors
    /// As [`Reconciler::running`].
    pub async fn extend(&mut self, config: &Config, index: u32, endpoints: &[IpAddr]) -> Result<Outcome, Error> {
        let desired = self.desired(config, index, endpoints).await?;
        let mut steps = plan(&desired, &self.present(Some(index)).await?);
        steps.retain(|step| !matches!(step, Step::DeleteRoute(_) | Step::DeleteRule(_)));
        Ok(self.take(steps, Some(index)).await)
    }

    /// Takes the addresses of the interface that `config` does not name: it was left by another process, for which they
    /// were right. The kernel's own stay.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn take_strange_addresses(&self, config: &Config, index: u32) -> Result<(), Error> {
        let own = super::routes::addresses(config);
        for address in self.netlink.addresses(index).await?.difference(&own) {
            if !super::netlink::is_link_local(&address.addr()) {
                self.netlink.delete_address(index, *address).await?;
            }
        }
        Ok(())
    }

    /// Takes the addresses of `old` that `new` does not name.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn take_addresses(&self, index: u32, old: &Config, new: &Config) -> Result<(), Error> {
        for address in super::routes::addresses(old).difference(&super::routes::addresses(new)) {
            self.netlink.delete_address(index, *address).await?;
            info!("delete address {address}");
        }
        Ok(())
    }

    /// Keeps what [`Reconciler::running`] wants: to be called whenever an endpoint or the kernel's state has changed.
    /// Tells each change, and each problem once.
    ///
    /// # Errors
    /// As [`Reconciler::running`].
    pub async fn keep(&mut self, config: &Config, index: u32, endpoints: &[IpAddr]) -> Result<(), Error> {
        let outcome = self.running(config, index, endpoints).await?;
        let marked = super::routes::marks(config, endpoints);
        let strict = if marked { reverse_path::problem(Path::new(reverse_path::SETTINGS)) } else { None };
        let link = self.netlink.link(index).await?.filter(|link| !link.device.up);
        let down = link.map(|link| format!("the interface is down, nothing passes: ip link set {} up", link.name));
        let host = self.netlink.host_addresses().await?;
        let sources = super::routes::absent_sources(config, &host);
        self.tell(&outcome, strict.into_iter().chain(down).chain(sources));
        // Only a start is rolled back.
        self.added.clear();
        Ok(())
    }

    /// Whether a far end with a name is yet to be found, as at the start. For the next pass; true if that is news.
    pub const fn seek(&mut self, seeking: bool) -> bool {
        let before = std::mem::replace(&mut self.seeking, seeking);
        before != seeking
    }

    /// At a clean stop: takes away all that belongs to this instance, whoever put it there.
    ///
    /// # Errors
    /// When the kernel does not even answer.
    pub async fn clear(&mut self, index: Option<u32>) -> Result<Outcome, Error> {
        self.apply(&Desired::default(), index).await
    }

    /// After a failed start: takes away what this process added, and leaves what it found.
    pub async fn roll_back(&mut self) -> Outcome {
        // Rules sort after routes: they go first, the lookups in our tables before those in main.
        let added = std::mem::take(&mut self.added);
        let steps = added.into_iter().rev().map(|added| match added {
            Added::Route(route) => Step::DeleteRoute(route),
            Added::Rule(rule) => Step::DeleteRule(rule),
        });
        self.take(steps.collect(), None).await
    }

    /// What could not be done when last [kept](Reconciler::keep), for the status; one line each.
    pub fn problems(&self) -> impl Iterator<Item = &str> {
        self.problems.iter().map(String::as_str)
    }

    async fn apply(&mut self, desired: &Desired, index: Option<u32>) -> Result<Outcome, Error> {
        let present = self.present(index).await?;
        Ok(self.take(plan(desired, &present), index).await)
    }

    async fn present(&self, index: Option<u32>) -> Result<Present, Error> {
        let addresses = match index {
            Some(index) => self.netlink.addresses(index).await?,
            None => BTreeSet::new(),
        };
        let mut routes = self.netlink.routes().await?;
        routes.retain(|route| self.instance.owns(route, index));
        let rules = self.instance.own_rules(&self.netlink.rules().await?);
        Ok(Present { addresses, routes, rules })
    }

    async fn take(&mut self, steps: Vec<Step>, index: Option<u32>) -> Outcome {
        let mut outcome = Outcome::default();
        for step in steps {
            // Before it is done: a stop may end the waiting, and then it has to be taken back.
            self.added.extend(Added::by(&step));
            let (result, stays) = match self.step(&step, index).await {
                // Another instance with the same configured mark has it, too: it is not ours to take back.
                Err(Error::Exists) if matches!(step, Step::AddRule(_)) => (Ok(()), false),
                result => (result.clone(), result.is_ok()),
            };
            if !stays {
                Added::by(&step).map(|added| self.added.remove(&added));
            }
            match result {
                Ok(()) => outcome.done.push(step),
                Err(error) => outcome.problems.push(Problem { step, error }),
            }
        }
        outcome
    }

    async fn step(&self, step: &Step, index: Option<u32>) -> Result<(), Error> {
        match step {
            Step::AddAddress(address) => fine_if_there(match index {
                Some(index) => self.netlink.add_address(index, *address).await,
                None => Err(Error::NoDevice),
            }),
            Step::AddRoute(route) => match self.netlink.add_route(route).await {
                Err(Error::Exists) if self.netlink.routes().await?.contains(route) => Ok(()),
                result => result,
            },
            Step::ReplaceRoute(route) => self.netlink.replace_route(route).await,
            Step::DeleteRoute(route) => fine_if_gone(self.netlink.delete_route(route).await),
            Step::AddRule(rule) => self.netlink.add_rule(rule).await,
            Step::DeleteRule(rule) => fine_if_gone(self.netlink.delete_rule(rule).await),
        }
    }

    fn tell(&mut self, outcome: &Outcome, more: impl Iterator<Item = String>) {
        for step in &outcome.done {
            info!("{step}");
        }
        let problems: BTreeSet<String> = outcome.problems.iter().map(ToString::to_string).chain(more).collect();
        for problem in problems.difference(&self.problems) {
            warn!("{problem}");
        }
        if problems.is_empty() && !self.problems.is_empty() {
            info!("interface, addresses, routes and rules are all as they ought to be again");
        }
        self.problems = problems;
    }
}

impl Outcome {
    /// Nothing, if all that was wanted is there now.
    ///
    /// # Errors
    /// The first problem otherwise.
    pub fn complete(self) -> Result<Vec<Step>, Problem> {
        match self.problems.into_iter().next() {
            None => Ok(self.done),
            Some(problem) => Err(problem),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.step, &self.error) {
            (Step::AddRoute(route), Error::Exists) => write!(
                f,
                "{route}: another program has a route with this prefix and metric: set another `metric` for the \
                 connection, or delete that route (see it with: ip route show {} table {})",
                route.prefix, route.table
            ),
            (step, error) => write!(f, "{step}: {error}"),
        }
    }
}

fn fine_if_there(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Exists) => Ok(()),
        other => other,
    }
}

fn fine_if_gone(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Missing | Error::NoDevice) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
