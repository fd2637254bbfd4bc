//! A terminal as a page that is written over: the alternate screen, which leaves what was there before as it was.

use terminal_size::{Height, Width, terminal_size};

use crate::cli::out;

/// DEC private modes (xterm's ctlseqs): 1049 the alternate screen, 25 the cursor.
const OPEN: &str = "\x1b[?1049h\x1b[?25l";
const CLOSE: &str = "\x1b[?25h\x1b[?1049l";
/// To the top left; to the end of the line erased; to the end of the screen erased.
const HOME: &str = "\x1b[H";
const ERASE_LINE: &str = "\x1b[K\r\n";
const ERASE_BELOW: &str = "\x1b[J";

/// The page. Cursor and old screen come back when it is dropped.
pub(super) struct Screen(());

impl Screen {
    pub(super) fn open() -> anyhow::Result<Self> {
        // First, so that they come back after a failure, too.
        let screen = Self(());
        out::bytes(OPEN.as_bytes())?;
        Ok(screen)
    }

    /// Shows as much of `text` as fits.
    pub(super) fn show(&self, text: &str) -> anyhow::Result<()> {
        let (Width(width), Height(height)) = terminal_size().unwrap_or((Width(80), Height(24)));
        out::bytes(page(text, width.into(), height.into()).as_bytes())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = out::bytes(CLOSE.as_bytes());
    }
}

/// Lines that are longer or more than fit would move all others.
fn page(text: &str, width: usize, height: usize) -> String {
    let fitting: Vec<String> = text.lines().take(height).map(|line| line.chars().take(width).collect()).collect();
    [HOME, &fitting.join(ERASE_LINE), "\x1b[K", ERASE_BELOW].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_cut_and_what_was_there_is_erased() {
        assert_eq!(page("ab\ncde\nf\n", 2, 2), "\x1b[Hab\x1b[K\r\ncd\x1b[K\x1b[J");
        assert_eq!(page("▁▂▃\n", 2, 9), "\x1b[H▁▂\x1b[K\x1b[J");
    }
}
