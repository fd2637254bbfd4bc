use super::*;
use crate::control::status::tests::example;

#[test]
fn every_tunnel_has_its_labels_and_a_counter_its_suffix() {
    let page = page(&example());
    let labels = r#"{interface="ls0",connection="vpc",tunnel="a"}"#;
    for line in [
        format!("linkspan_tunnel_up{labels} 1"),
        format!("linkspan_tunnel_sent_bytes_total{labels} 84"),
        format!("linkspan_tunnel_handshakes_total{labels} 1"),
        format!("linkspan_tunnel_handshake_age_seconds{labels} 3"),
        format!("tunnel_state{labels} 1"),
        format!("tunnel_data_out_bytes_total{labels} 84"),
        r#"linkspan_thread_busy_seconds_total{interface="ls0",thread="outbound-0"} 1.5"#.to_owned(),
        r#"linkspan_build_info{interface="ls0",version="0.1.0"} 1"#.to_owned(),
    ] {
        assert!(page.lines().any(|found| found == line), "no {line} in\n{page}");
    }
}

#[test]
fn what_never_was_has_no_age() {
    let page = page(&example());
    assert!(!page.contains("linkspan_tunnel_receive_age_seconds{"), "{page}");
}

#[test]
fn each_reason_is_there_from_the_start() {
    let page = page(&example());
    for reason in Reason::ALL {
        let packets = if reason.key() == "in_replay" { 2 } else { 0 };
        let line = format!(r#"linkspan_dropped_packets_total{{interface="ls0",reason="{}"}} {packets}"#, reason.key());
        assert!(page.lines().any(|found| found == line), "no {line} in\n{page}");
    }
}

#[test]
fn a_name_cannot_break_out_of_its_label() {
    let mut status = example();
    status.connections[0].name = "a\"} 1\\".to_owned();
    let page = page(&status);
    assert!(page.contains(r#"linkspan_tunnel_up{interface="ls0",connection="a\"} 1\\",tunnel="a"} 1"#), "{page}");
}
