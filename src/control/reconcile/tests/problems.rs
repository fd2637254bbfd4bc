//! What cannot be made as it ought to be is named, with its remedy.

use super::*;

#[test]
fn an_interface_that_is_down_is_a_problem_with_its_remedy() {
    in_namespace(|| async {
        let (tun, config, mut reconciler) = (veth("tun"), config(&["10.20.0.0/16"]), reconciler());
        reconciler.keep(&config, tun, &[]).await.unwrap();
        assert_eq!(reconciler.problems().count(), 0);
        ip("link set tun down");
        reconciler.keep(&config, tun, &[]).await.unwrap();
        assert_eq!(
            reconciler.problems().collect::<Vec<_>>(),
            ["the interface is down, nothing passes: ip link set tun up"]
        );
        ip("link set tun up");
        reconciler.keep(&config, tun, &[]).await.unwrap();
        assert_eq!(reconciler.problems().count(), 0);
        assert_eq!(way("10.20.0.9"), "tun");
    });
}

#[test]
fn a_foreign_route_with_the_same_metric_is_named_with_the_remedy_and_told_once() {
    in_namespace(|| async {
        let tun = veth("tun");
        veth("lan");
        ip("route add 10.20.0.0/16 dev lan metric 50");
        ip("-6 route add fd20::/32 dev lan metric 50");
        let mut reconciler = reconciler();
        let config = config(&["10.20.0.0/16", "fd20::/32"]);
        let outcome = reconciler.running(&config, tun, &[]).await.unwrap();
        assert_eq!(outcome.problems.len(), 2, "{outcome:?}");
        reconciler.keep(&config, tun, &[]).await.unwrap();
        let told: Vec<&str> = reconciler.problems().collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told.iter().all(|line| line.contains("set another `metric`")), "{told:?}");
        ip("route del 10.20.0.0/16 dev lan");
        ip("-6 route del fd20::/32 dev lan");
        reconciler.keep(&config, tun, &[]).await.unwrap();
        assert_eq!(reconciler.problems().count(), 0);
        assert_eq!(way("10.20.0.1"), "tun");
    });
}

#[test]
fn strict_reverse_path_filtering_is_named_where_marks_are_needed() {
    in_namespace(|| async {
        let tun = veth("tun");
        std::fs::write("/proc/sys/net/ipv4/conf/tun/rp_filter", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").unwrap();
        let mut reconciler = reconciler();
        let config = config(&["10.20.0.0/16"]);
        reconciler.keep(&config, tun, &[]).await.unwrap();
        assert_eq!(reconciler.problems().count(), 0);
        reconciler.keep(&config, tun, &["10.20.0.9".parse().unwrap()]).await.unwrap();
        assert!(reconciler.problems().all(|line| line.contains("rp_filter")), "{reconciler:?}");
        assert_eq!(reconciler.problems().count(), 1);
    });
}

#[test]
fn cap_net_admin_alone_is_enough_and_without_it_the_remedy_is_named() {
    use caps::{CapSet, Capability};

    in_namespace(|| async {
        let tun = veth("tun");
        let config = config(&["10.0.0.0/8", "fd20::/32"]);
        let endpoints = ["10.20.0.9".parse().unwrap()];
        let mut before = reconciler();
        let only = [Capability::CAP_NET_ADMIN].into_iter().collect();
        caps::set(None, CapSet::Effective, &only).unwrap();
        caps::set(None, CapSet::Permitted, &only).unwrap();
        before.running(&config, tun, &endpoints).await.unwrap().complete().unwrap();
        before.clear(Some(tun)).await.unwrap().complete().unwrap();
        let mut after = reconciler();
        after.running(&config, tun, &endpoints).await.unwrap().complete().unwrap();
        after.clear(Some(tun)).await.unwrap().complete().unwrap();

        caps::clear(None, CapSet::Effective).unwrap();
        let problem = after.running(&config, tun, &endpoints).await.unwrap().complete().unwrap_err();
        assert!(problem.to_string().contains("CAP_NET_ADMIN is needed"), "{problem}");
    });
}
