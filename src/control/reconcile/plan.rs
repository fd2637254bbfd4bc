//! From what is there to what ought to be, in an order that never leaves a gap. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;

use crate::control::routes::{Desired, Route, Rule, Target};

/// What belongs to this instance now.
#[derive(Debug, Default)]
pub(super) struct Present {
    /// Addresses of the TUN.
    pub(super) addresses: BTreeSet<IpNet>,
    /// Routes of this instance.
    pub(super) routes: BTreeSet<Route>,
    /// Rules of this instance.
    pub(super) rules: BTreeSet<Rule>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Give the TUN an address.
    AddAddress(IpNet),
    /// Add a route.
    AddRoute(Route),
    /// Put a route in the place of ours with the same table, prefix and metric.
    ReplaceRoute(Route),
    /// Add a rule.
    AddRule(Rule),
    /// Take a rule away.
    DeleteRule(Rule),
    /// Take a route away.
    DeleteRoute(Route),
}

/// Addresses first, for they are the sources of routes; then routes, those of last resort before the others; then
/// rules, which lead to them; then, the other way round, what is no longer wanted. Addresses that others gave the
/// TUN stay.
pub(super) fn plan(desired: &Desired, present: &Present) -> Vec<Step> {
    let occupied: BTreeMap<_, _> = present.routes.iter().map(|route| (key(route), route)).collect();
    let wanted: BTreeSet<_> = desired.routes.iter().map(key).collect();
    let mut routes: Vec<&Route> = desired.routes.difference(&present.routes).collect();
    routes.sort_by_key(|route| route.target != Target::Unreachable);
    let put = |route: &Route| {
        if occupied.contains_key(&key(route)) { Step::ReplaceRoute(*route) } else { Step::AddRoute(*route) }
    };
    let surplus = present.routes.iter().filter(|route| !wanted.contains(&key(route)));

    let addresses = desired.addresses.difference(&present.addresses).copied().map(Step::AddAddress);
    let add_rules = desired.rules.difference(&present.rules).copied().map(Step::AddRule);
    // By descending priority: the lookup in a table of ours before the rule that lets main speak first.
    let mut delete_rules: Vec<Rule> = present.rules.difference(&desired.rules).copied().collect();
    delete_rules.reverse();
    let mut steps: Vec<Step> = addresses.collect();
    steps.extend(routes.into_iter().map(put));
    steps.extend(add_rules);
    steps.extend(delete_rules.into_iter().map(Step::DeleteRule));
    steps.extend(surplus.copied().map(Step::DeleteRoute));
    steps
}

/// By what the kernel tells routes apart.
const fn key(route: &Route) -> (u32, IpNet, u32) {
    (route.table, route.prefix, route.metric)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddAddress(address) => write!(f, "add address {address}"),
            Self::AddRoute(route) => write!(f, "add {route}"),
            Self::ReplaceRoute(route) => write!(f, "replace {route}"),
            Self::AddRule(rule) => write!(f, "add {rule}"),
            Self::DeleteRule(rule) => write!(f, "delete {rule}"),
            Self::DeleteRoute(route) => write!(f, "delete {route}"),
        }
    }
}
