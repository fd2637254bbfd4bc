//! A section of the file: gives out its values by key and notes what is wrong with them.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Wrong;
use super::report::Report;
use super::schema::{self, Keys};
use super::value;

/// One table of the file, whose keys have been checked against the schema.
pub(super) struct Section<'t> {
    table: HashMap<&'t str, &'t Spanned<DeValue<'t>>>,
    /// Its header.
    pub(super) span: Range<usize>,
    keys: &'static Keys,
    /// The keys which those that do not belong there were probably meant to be.
    meant: HashSet<&'static str>,
}

impl<'t> Section<'t> {
    /// Notes the keys that do not belong there.
    pub(super) fn open(
        report: &mut Report<'_>,
        table: &'t DeTable<'t>,
        span: Range<usize>,
        keys: &'static Keys,
    ) -> Self {
        let mut meant = HashSet::new();
        for (key, _) in table {
            if let Err((wrong, nearest)) = schema::check(keys, key.get_ref()) {
                report.shape(key.span(), key.get_ref(), &wrong);
                meant.extend(nearest);
            }
        }
        let table = table.iter().map(|(key, value)| (key.get_ref().as_ref(), value)).collect();
        Self { table, span, keys, meant }
    }

    /// The value of `key` as `read` understands it; none if it is absent or wrong.
    pub(super) fn value<T>(
        &self,
        report: &mut Report<'_>,
        key: &str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<Spanned<T>> {
        let found = self.table.get(key)?;
        match read(found.get_ref()) {
            Ok(value) => Some(Spanned::new(found.span(), value)),
            Err(wrong) => {
                report.value(found.span(), key, &wrong);
                None
            }
        }
    }

    /// The same for a text.
    pub(super) fn text<T>(
        &self,
        report: &mut Report<'_>,
        key: &str,
        read: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<Spanned<T>> {
        self.value(report, key, |found| value::text(found, read))
    }

    /// The right ones of a list of texts.
    pub(super) fn list<T>(
        &self,
        report: &mut Report<'_>,
        key: &str,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Vec<Spanned<T>> {
        let Some(found) = self.table.get(key) else { return Vec::new() };
        let Some(list) = found.get_ref().as_array() else {
            report.value(found.span(), key, &value::not_a_list(found.get_ref()));
            return Vec::new();
        };
        let mut good = Vec::new();
        for item in list {
            match value::text(item.get_ref(), &read) {
                Ok(value) => good.push(Spanned::new(item.span(), value)),
                Err(wrong) => report.value(item.span(), key, &wrong),
            }
        }
        good
    }

    /// Notes that `key`, which every such section needs, is not there.
    pub(super) fn need(&self, report: &mut Report<'_>, key: &str, example: &str) {
        if !self.has(key) && !self.meant.contains(key) {
            let wrong = Wrong::new(format!("missing from this {}", self.keys.title), format!("add {key} = {example}"));
            report.shape(self.span.clone(), key, &wrong);
        }
    }

    /// Whether `key` is there, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Notes that the list `key` is empty.
    pub(super) fn not_empty(&self, report: &mut Report<'_>, key: &str, remedy: &str) {
        if let Some(found) = self.table.get(key).filter(|_| self.lacks(key)) {
            report.value(found.span(), key, &Wrong::new("an empty list", remedy));
        }
    }

    /// Whether `key` is absent, and not just misspelt, or an empty list.
    pub(super) fn lacks(&self, key: &str) -> bool {
        match self.table.get(key) {
            Some(found) => found.get_ref().as_array().is_some_and(|list| list.is_empty()),
            None => !self.meant.contains(key),
        }
    }

    /// The section `key` of which there is at most one.
    pub(super) fn single(&self, report: &mut Report<'_>, key: &str, keys: &'static Keys) -> Option<Self> {
        let found = self.table.get(key)?;
        if let Some(table) = found.get_ref().as_table() {
            return Some(Self::open(report, table, found.span(), keys));
        }
        let sections = self.many(report, key, keys);
        if !sections.is_empty() || self.lacks(key) {
            let remedy = format!("write {}, as there is only one", keys.title);
            report.shape(found.span(), key, &Wrong::new("a list of sections", remedy));
        }
        sections.into_iter().next()
    }

    /// The sections `key` of which there may be many.
    pub(super) fn many(&self, report: &mut Report<'_>, key: &str, keys: &'static Keys) -> Vec<Self> {
        let Some(found) = self.table.get(key) else { return Vec::new() };
        if let Some(table) = found.get_ref().as_table() {
            let remedy = format!("write {}, as there may be several", keys.title);
            report.shape(found.span(), key, &Wrong::new("in single brackets", remedy));
            return vec![Self::open(report, table, found.span(), keys)];
        }
        let alone = std::slice::from_ref(*found);
        let list = found.get_ref().as_array().map_or(alone, |list| list.as_ref());
        let mut sections = Vec::new();
        for item in list {
            match item.get_ref().as_table() {
                Some(table) => sections.push(Self::open(report, table, item.span(), keys)),
                None => report.shape(item.span(), key, &not_a_section(item.get_ref(), keys)),
            }
        }
        sections
    }
}

fn not_a_section(value: &DeValue<'_>, keys: &Keys) -> Wrong {
    Wrong::new(format!("{} where a section belongs", value::kind(value)), format!("begin it with {}", keys.title))
}
