//! Cuts what arrives into requests: each ends with an empty line.

use std::io;
use std::ops::Range;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use zeroize::Zeroizing;

/// All IPv4 and IPv6 networks that `wg` can name for a peer are a quarter of this.
const MOST: usize = 16 << 20;
const FIRST: usize = 16 << 10;
const END: &[u8] = b"\n\n";

/// What was read of one connection and not yet answered. Wiped on drop and whenever it grows: it may hold keys.
pub(super) struct Requests {
    bytes: Zeroizing<Vec<u8>>,
    /// What is read and unused.
    used: Range<usize>,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self { bytes: Zeroizing::new(vec![0; FIRST]), used: 0..0 }
    }

    /// The next request, without the empty line; none when the other side has nothing more.
    ///
    /// # Errors
    /// When reading fails, or a request does not end.
    pub(super) async fn next(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<&[u8]>> {
        let mut searched = 0;
        loop {
            let unused = self.bytes.get(self.used.clone()).unwrap_or_default();
            let found = unused.get(searched..).unwrap_or_default().windows(END.len()).position(|end| end == END);
            if let Some(at) = found {
                let request = self.used.start..self.used.start + searched + at + 1;
                self.used.start = request.end + 1;
                return Ok(self.bytes.get(request));
            }
            searched = unused.len().saturating_sub(1);
            self.make_room()?;
            let read = from.read(self.bytes.get_mut(self.used.end..).unwrap_or_default()).await?;
            if read == 0 {
                return Ok(None);
            }
            self.used.end += read;
        }
    }

    fn make_room(&mut self) -> io::Result<()> {
        self.bytes.copy_within(self.used.clone(), 0);
        self.used = 0..self.used.len();
        if self.used.end == self.bytes.len() {
            if self.bytes.len() >= MOST {
                return Err(io::Error::other("a request of more than 16 MiB"));
            }
            let mut larger = Zeroizing::new(vec![0; 2 * self.bytes.len()]);
            larger.iter_mut().zip(&*self.bytes).for_each(|(to, from)| *to = *from);
            self.bytes = larger;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(mut bytes: &[u8]) -> Vec<String> {
        let (mut requests, mut found) = (Requests::new(), Vec::new());
        while let Some(request) = requests.next(&mut bytes).await.unwrap() {
            found.push(String::from_utf8(request.to_vec()).unwrap());
        }
        found
    }

    #[tokio::test]
    async fn requests_end_with_an_empty_line() {
        assert_eq!(all(b"get=1\n\nset=1\nfwmark=1\n\nget=").await, ["get=1\n", "set=1\nfwmark=1\n"]);
        assert_eq!(all(b"\n\n").await, ["\n"]);
        assert!(all(b"").await.is_empty());
    }

    #[tokio::test]
    async fn a_large_request_arrives_whole_and_an_endless_one_is_refused() {
        let large = format!("set=1\n{}\n", "allowed_ip=10.0.0.0/8\n".repeat(200_000));
        assert_eq!(all(format!("{large}get=1\n\n").as_bytes()).await, [&large[..large.len() - 1], "get=1\n"]);
        let endless = vec![b'x'; MOST + 1];
        assert!(Requests::new().next(&mut &endless[..]).await.is_err());
    }
}
