//! Explicit congestion notification through the tunnel, in the normal mode of RFC 6040.

use super::bytes::{put_u16, u16_at};
use super::{Reason, checksum, ip};

/// Not ECN-capable.
pub const NOT_ECT: u8 = 0b00;
/// ECN-capable, codepoint 1.
pub const ECT_1: u8 = 0b01;
/// ECN-capable, codepoint 0.
pub const ECT_0: u8 = 0b10;
/// Congestion experienced.
pub const CE: u8 = 0b11;

/// The ECN field, 0-3, of an inner packet; the outer one takes the same (RFC 6040, section 4.1). 0 if not IP.
#[must_use]
pub const fn of(packet: &[u8]) -> u8 {
    match packet {
        [first, second, ..] if *first >> 4 == 4 => *second & 3,
        [first, second, ..] if *first >> 4 == 6 => *second >> 4 & 3,
        _ => NOT_ECT,
    }
}

/// Moves what the outer header says (`outer`, the lower two bits of its traffic class) to the inner packet, by the
/// table of RFC 6040, section 4.2.
///
/// # Errors
///
/// [`Reason::InEcn`]: congestion was marked on a packet that is not ECN-capable, so it must be dropped.
/// [`Reason::InInnerMalformed`]: it is not IP.
pub fn decapsulate(outer: u8, inner: &mut [u8]) -> Result<(), Reason> {
    let marked = match (of(inner), outer & 3) {
        (NOT_ECT, CE) => return Err(Reason::InEcn),
        (NOT_ECT | CE, _) => return Ok(()),
        (_, CE) => CE,
        (ECT_0, ECT_1) => ECT_1,
        _ => return Ok(()),
    };
    mark(inner, marked).ok_or(Reason::InInnerMalformed)
}

fn mark(packet: &mut [u8], ecn: u8) -> Option<()> {
    if packet.first()? >> 4 == 6 {
        let second = packet.get_mut(1)?;
        *second = *second & !0x30 | ecn << 4;
        return Some(());
    }
    let header = packet.get_mut(..ip::V4_LEN)?;
    let old = u16_at(header, 0)?;
    let new = old & !3 | u16::from(ecn);
    put_u16(header, 0, new)?;
    let updated = checksum::replace(u16_at(header, 10)?, old, new);
    put_u16(header, 10, updated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::testing::{Recipe, check_checksums};

    fn packet(v4: bool, ecn: u8) -> Vec<u8> {
        Recipe { v4, traffic_class: 0xb8 | ecn, ..Recipe::tcp() }.packet()
    }

    #[test]
    fn the_table_of_rfc_6040_holds_in_full() {
        const DROP: u8 = 0xff;
        let table = [
            (NOT_ECT, [(NOT_ECT, NOT_ECT), (ECT_0, NOT_ECT), (ECT_1, NOT_ECT), (CE, DROP)]),
            (ECT_0, [(NOT_ECT, ECT_0), (ECT_0, ECT_0), (ECT_1, ECT_1), (CE, CE)]),
            (ECT_1, [(NOT_ECT, ECT_1), (ECT_0, ECT_1), (ECT_1, ECT_1), (CE, CE)]),
            (CE, [(NOT_ECT, CE), (ECT_0, CE), (ECT_1, CE), (CE, CE)]),
        ];
        for v4 in [true, false] {
            for (inner, row) in table {
                for (outer, expected) in row {
                    let mut bytes = packet(v4, inner);
                    assert_eq!(of(&bytes), inner);
                    let result = decapsulate(0xb8 | outer, &mut bytes);
                    if expected == DROP {
                        assert_eq!(result, Err(Reason::InEcn));
                        continue;
                    }
                    assert_eq!(result, Ok(()));
                    assert_eq!(bytes, packet(v4, expected), "v4 {v4}, inner {inner}, outer {outer}");
                    check_checksums(&bytes);
                }
            }
        }
    }

    #[test]
    fn what_is_too_short_is_malformed() {
        assert_eq!(decapsulate(CE, &mut [0x45, 2]), Err(Reason::InInnerMalformed));
        assert_eq!(of(&[0x45]), NOT_ECT);
        assert_eq!(of(&[]), NOT_ECT);
    }
}
