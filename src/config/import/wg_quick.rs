//! Lines to sections, as wg-quick(8) and wg(8) read them: words in any case, `#` begins a comment.

use super::Remark;

/// One `Key = value`.
#[derive(Clone, Copy)]
pub(super) struct Entry<'t> {
    pub(super) line: usize,
    pub(super) key: &'t str,
    pub(super) value: &'t str,
}

impl Entry<'_> {
    pub(super) fn is(&self, key: &str) -> bool {
        self.key.eq_ignore_ascii_case(key)
    }

    /// The parts of a list with commas; empty ones are none.
    pub(super) fn list(&self) -> impl Iterator<Item = &str> {
        self.value.split(',').map(str::trim).filter(|part| !part.is_empty())
    }
}

/// A `[Peer]`.
pub(super) struct Section<'t> {
    pub(super) line: usize,
    /// The comments right before it and at its head, which often hold the peer's name.
    pub(super) comments: Vec<&'t str>,
    pub(super) entries: Vec<Entry<'t>>,
}

pub(super) struct File<'t> {
    pub(super) interface: Vec<Entry<'t>>,
    pub(super) peers: Vec<Section<'t>>,
}

enum Place {
    Nowhere,
    Interface,
    Peer,
}

/// The sections of `text`. What is no line of such a file is an error.
pub(super) fn read(text: &str) -> Result<File<'_>, Vec<Remark>> {
    let mut file = File { interface: Vec::new(), peers: Vec::new() };
    let (mut place, mut comments, mut wrong) = (Place::Nowhere, Vec::new(), Vec::new());
    let mut has_interface = false;
    for (line, whole) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let (code, comment) = split_comment(whole);
        if code.is_empty() {
            note_comment(&mut comments, &mut file, &place, comment);
            continue;
        }
        if code.eq_ignore_ascii_case("[interface]") {
            (place, has_interface) = (Place::Interface, true);
        } else if code.eq_ignore_ascii_case("[peer]") {
            place = Place::Peer;
            let comments = comments.drain(..).chain(comment).collect();
            file.peers.push(Section { line, comments, entries: Vec::new() });
        } else {
            match entry(line, code) {
                Some(entry) => add(&mut file, &place, entry, &mut wrong),
                None => wrong.push(Remark::at(line, "neither a section nor KEY = VALUE", "correct or remove the line")),
            }
        }
        comments.clear();
    }
    if !has_interface {
        let instead = "name a file of wg-quick, as /etc/wireguard/wg0.conf";
        wrong.push(Remark::on_the_whole("there is no [Interface]", instead));
    }
    if wrong.is_empty() { Ok(file) } else { Err(wrong) }
}

fn split_comment(line: &str) -> (&str, Option<&str>) {
    match line.split_once('#') {
        Some((code, comment)) => (code.trim(), Some(comment.trim_matches(['#', ' ', '\t']))),
        None => (line.trim(), None),
    }
}

/// Comments count for the section that follows; at the head of a section for that one.
fn note_comment<'t>(comments: &mut Vec<&'t str>, file: &mut File<'t>, place: &Place, comment: Option<&'t str>) {
    let Some(comment) = comment else { return };
    match (place, file.peers.last_mut()) {
        (Place::Peer, Some(peer)) if peer.entries.is_empty() => peer.comments.push(comment),
        _ => comments.push(comment),
    }
}

fn entry(line: usize, code: &str) -> Option<Entry<'_>> {
    let (key, value) = code.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let is_word = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    is_word.then_some(Entry { line, key, value })
}

fn add<'t>(file: &mut File<'t>, place: &Place, entry: Entry<'t>, wrong: &mut Vec<Remark>) {
    match (place, file.peers.last_mut()) {
        (Place::Interface, _) => file.interface.push(entry),
        (Place::Peer, Some(peer)) => peer.entries.push(entry),
        _ => wrong.push(Remark::at(entry.line, "stands before any section", "put it below [Interface] or [Peer]")),
    }
}
