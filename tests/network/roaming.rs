//! A peer that moves in the middle of a transfer.

use std::time::Duration;

use crate::harness::net::PORT;
use crate::harness::paced::Paced;
use crate::harness::*;

/// What a move may cost.
const OUTAGE: Duration = seconds(1);
/// What on a machine that is busy with something else: none waits for a timer of 5 s.
const BUSY: Duration = Duration::from_millis(4500);

/// ```text
///   A ---- internet ---- B    B's uplink changes its address again and again, while both LANs send
/// ```
#[test]
fn a_move_interrupts_a_transfer_for_less_than_a_second() {
    let Some(net) = Net::two_sites() else { return };
    let (a, _b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    let (here, far) = (net.site(A), net.site(B));
    let there = Paced::start(&here.lan, &far.lan, far.lan4(), 2, 1000);
    let back = Paced::start(&far.lan, &here.lan, here.lan4(), 2, 1000);
    let moves = if long() { 20 } else { 3 };
    let mut gaps = [Vec::new(), Vec::new()];
    let mut old = "198.18.2.1".to_owned();
    for number in 0..moves {
        let new = format!("198.18.2.{}", 100 + number);
        far.gateway.ip(&format!(
            "address add {new}/24 dev wan\n\
             address del {old}/24 dev wan\n\
             address replace {new}/24 dev wan\n\
             route replace default via 198.18.2.254\n"
        ));
        a.wait("the new address", |status| status.endpoint(0) == format!("{new}:{PORT}"));
        let before = (there.received(), back.received());
        eventually(seconds(10), "both directions", || {
            (there.received() > before.0 + 100 && back.received() > before.1 + 100).then_some(())
        });
        std::thread::sleep(Duration::from_millis(if long() { 2800 } else { 300 }));
        gaps.iter_mut().zip([&there, &back]).for_each(|(gaps, stream)| gaps.push(stream.take_gap()));
        old = new;
    }
    eprintln!("there and back nothing arrived for {gaps:?}");
    for gaps in &gaps {
        let most = if long() { OUTAGE } else { BUSY };
        assert!(gaps.iter().min() < Some(&OUTAGE) && gaps.iter().max() < Some(&most), "{gaps:?}");
    }
}
