//! The four messages of WireGuard as they stand on the wire (paper, section 5.4; sizes in bytes).

use super::id::SessionIndex;

/// Size of a handshake initiation.
pub const INITIATION: usize = 148;
/// Size of a handshake response.
pub const RESPONSE: usize = 92;
/// Size of a cookie reply.
pub const COOKIE: usize = 64;
/// Size of a transport datagram with nothing inside, and so what sealing adds.
pub const TRANSPORT: usize = 32;

/// What a datagram is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Type 1.
    Initiation,
    /// Type 2.
    Response,
    /// Type 3.
    Cookie,
    /// Type 4: transport data, or a keepalive.
    Transport,
}

/// What `datagram` is, by its type, its reserved zeros and its size; none = not WireGuard.
#[must_use]
pub fn kind(datagram: &[u8]) -> Option<Kind> {
    match (word(datagram, 0)?, datagram.len()) {
        (1, INITIATION) => Some(Kind::Initiation),
        (2, RESPONSE) => Some(Kind::Response),
        (3, COOKIE) => Some(Kind::Cookie),
        (4, TRANSPORT..) => Some(Kind::Transport),
        _ => None,
    }
}

/// Which of our sessions `datagram` is for; an initiation names none.
#[must_use]
pub fn receiver_index(datagram: &[u8]) -> Option<SessionIndex> {
    let offset = match kind(datagram)? {
        Kind::Initiation => return None,
        Kind::Response => 8,
        Kind::Cookie | Kind::Transport => 4,
    };
    word(datagram, offset).map(SessionIndex::from)
}

/// The sender's index in a handshake message.
pub(super) fn sender_index(message: &[u8]) -> Option<u32> {
    word(message, 4)
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let four = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, len: usize) -> Vec<u8> {
        let mut message: Vec<u8> = (0..=250).cycle().take(len).collect();
        for (byte, value) in message.iter_mut().zip([kind, 0, 0, 0]) {
            *byte = value;
        }
        message
    }

    #[test]
    fn only_the_exact_sizes_are_messages() {
        for len in 0..300 {
            assert_eq!(kind(&message(1, len)), (len == 148).then_some(Kind::Initiation));
            assert_eq!(kind(&message(2, len)), (len == 92).then_some(Kind::Response));
            assert_eq!(kind(&message(3, len)), (len == 64).then_some(Kind::Cookie));
            assert_eq!(kind(&message(4, len)), (len >= 32).then_some(Kind::Transport));
            assert_eq!(kind(&message(5, len)), None);
        }
    }

    #[test]
    fn reserved_bytes_must_be_zero() {
        let mut datagram = message(4, 64);
        datagram[2] = 1;
        assert_eq!(kind(&datagram), None);
        assert_eq!(receiver_index(&datagram), None);
    }

    #[test]
    fn the_receiver_stands_where_the_paper_says() {
        assert_eq!(receiver_index(&message(1, 148)), None);
        assert_eq!(receiver_index(&message(2, 92)), Some(u32::from_le_bytes([8, 9, 10, 11]).into()));
        assert_eq!(receiver_index(&message(3, 64)), Some(u32::from_le_bytes([4, 5, 6, 7]).into()));
        assert_eq!(receiver_index(&message(4, 32)), Some(u32::from_le_bytes([4, 5, 6, 7]).into()));
    }
}
