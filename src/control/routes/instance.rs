//! By what an instance finds its own again, after a crash too, among the routes and rules of others.

use std::collections::BTreeSet;

use super::{Lookup, PROTOCOL, Route, Rule, Target};

const LAST_RESORT: u32 = 0xFFFF_0000;
const TABLES: u32 = (PROTOCOL as u32) << 24;
const MARKS: u32 = 0x4C53_0000;

/// One interface's share of metrics, tables and marks: a 16-bit hash of its name in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instance(u16);

impl Instance {
    /// Of the interface called `name`. The same in every version of Linkspan, so that leftovers are found.
    #[must_use]
    pub fn new(name: &str) -> Self {
        // FNV-1a, 32 bits, folded.
        let hash = name.bytes().fold(0x811C_9DC5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let [a, b, c, d] = hash.to_be_bytes();
        Self(u16::from_be_bytes([a ^ c, b ^ d]))
    }

    /// The metric of routes of last resort: worse than any other.
    #[must_use]
    pub const fn last_resort(self) -> u32 {
        LAST_RESORT | self.0 as u32
    }

    /// The table of networks with prefix length `length` that cover an endpoint.
    #[must_use]
    pub const fn table(self, length: u8) -> u32 {
        TABLES | (self.0 as u32) << 8 | length as u32
    }

    /// The prefix length that `table` is for, if it is one of ours.
    #[must_use]
    pub fn length_of(self, table: u32) -> Option<u8> {
        let [_, _, _, length] = table.to_be_bytes();
        (self.table(length) == table).then_some(length)
    }

    /// The firewall mark where none is configured.
    #[must_use]
    pub const fn mark(self) -> u32 {
        MARKS | self.0 as u32
    }

    /// Whether `route`, which carries our protocol number, belongs to this instance, whose TUN is `device`.
    #[must_use]
    pub fn owns(self, route: &Route, device: Option<u32>) -> bool {
        self.length_of(route.table).is_some()
            || match route.target {
                Target::Unreachable => route.metric == self.last_resort(),
                Target::Device { index, .. } => Some(index) == device,
            }
    }

    /// Those of `rules`, which carry our protocol number, that belong to this instance: lookups in its tables, and
    /// the lookups in main that come just before those. Another instance may have been given the same mark.
    #[must_use]
    pub fn own_rules(self, rules: &BTreeSet<Rule>) -> BTreeSet<Rule> {
        let lookups: BTreeSet<Rule> = rules.iter().filter(|rule| self.is_own_lookup(rule)).copied().collect();
        let partner = |rule: &Rule, other: &Rule| {
            (other.priority, other.family, other.mark) == (rule.priority + 1, rule.family, rule.mark)
        };
        let own = |rule: &&Rule| match rule.lookup {
            Lookup::Table(_) => lookups.contains(rule),
            Lookup::Names(_) => rule.mark == self.mark(),
            Lookup::MainBeyond(_) => rule.mark == self.mark() || lookups.iter().any(|other| partner(rule, other)),
        };
        rules.iter().filter(own).copied().collect()
    }

    fn is_own_lookup(self, rule: &Rule) -> bool {
        matches!(rule.lookup, Lookup::Table(table) if self.length_of(table).is_some())
    }
}
