//! Another network, a wrong file, a look at the metrics: day by day.

use crate::harness::{A, seconds};
use crate::machine::Machine;
use crate::sites::{linked, networks, networks_reach_each_other};

const FILE: &str = "/etc/linkspan/wan0.toml";

fn reload_fails(machine: &Machine<'_>) {
    let reloaded = machine.output(&["systemctl", "reload", "linkspan@wan0"]);
    assert!(!reloaded.status.success(), "{reloaded:?}");
}

#[test]
fn a_network_is_added_by_a_reload_and_a_wrong_file_changes_nothing() {
    let Some(net) = networks() else { return };
    let machines = linked(&net);
    let a = &machines[A];
    let before = a.daemon();
    a.run(&format!(r#"sed -i 's|^networks = .*|networks = ["10.20.0.0/16", "10.21.0.0/16"]|' {FILE}"#));
    let difference = a.output(&["linkspan", "check", "--diff", "wan0"]);
    assert!(difference.status.success() && difference.stdout.contains("10.21.0.0/16"), "{difference:?}");
    a.run("! ip route get 10.21.0.1 | grep -q 'dev wan0'");
    a.run("systemctl reload linkspan@wan0; ip route get 10.21.0.1 | grep -q 'dev wan0'");
    a.run(&format!("sed -i 's|10.21.0.0/16|10.21.0.0/99|' {FILE}"));
    reload_fails(a);
    a.journal_tells("10.21.0.0/99");
    a.run("ip route get 10.21.0.1 | grep -q 'dev wan0'");
    networks_reach_each_other(&net);
    assert_eq!(a.daemon(), before);
}

#[test]
fn metrics_are_there_for_whoever_is_on_the_machine() {
    let Some(net) = networks() else { return };
    let machines = linked(&net);
    let a = &machines[A];
    a.run(&format!(
        "sed -i '1i [interface]\\nmetrics = \"127.0.0.1:9586\"\\n' {FILE}; systemctl restart linkspan@wan0"
    ));
    a.wait_up(seconds(30));
    let ask = "exec 3<>/dev/tcp/127.0.0.1/9586; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
    let page = a.output(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c", ask]).stdout;
    for line in ["linkspan_tunnel_up{", "tunnel_state{", "tunnel_data_in_bytes_total{", "tunnel_data_out_bytes_total{"]
    {
        assert!(page.contains(&format!("\n{line}")), "no {line} in {page}");
    }
}
