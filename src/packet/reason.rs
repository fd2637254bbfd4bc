//! Why a packet was dropped: a closed list, one counter each. Every dropped packet has exactly one.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $key:literal, $sentence:literal;)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
        #[repr(usize)]
        pub enum Reason { $(#[doc = $sentence] $name,)* }

        impl Reason {
            /// All of them, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable name in JSON and metrics.
            #[must_use]
            pub const fn key(self) -> &'static str {
                match self { $(Self::$name => $key,)* }
            }

            /// One sentence for an admin.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }
        }
    };
}

reasons! {
    // Outbound: from the TUN towards the far end.
    OutMalformed = "out_malformed", "the inner packet from this host is not valid IP";
    OutMulticast = "out_multicast", "multicast and broadcast stay on their own link (this host looking for neighbours, mostly)";
    OutNoTunnel = "out_no_tunnel", "no connection has the destination among its networks";
    OutNoEndpoint = "out_no_endpoint", "the far end's address is not known yet";
    OutNoSession = "out_no_session", "no session came up within a second of the packet";
    OutStageFull = "out_stage_full", "too many packets were waiting for a session";
    OutTooBig = "out_too_big", "the packet does not fit the tunnel and may not be fragmented (the sender was told the MTU)";
    OutLoop = "out_loop", "the packet is the tunnel's own outer datagram coming back into it";
    OutStale = "out_stale", "the timers stood still for over 5 s, so sealing was refused";
    OutSendFailed = "out_send_failed", "the kernel refused to send the datagram";
    OutSendBusy = "out_send_busy", "the kernel's send buffer was full";
    // Inbound: from the network.
    InSocketFull = "in_socket_full", "datagrams came faster than this host takes them (merged ones count as one)";
    InMalformed = "in_malformed", "the datagram is not a WireGuard message";
    InUnknownIndex = "in_unknown_index", "the datagram names no session of ours";
    InNoSession = "in_no_session", "the session that the datagram names has ended";
    InReplay = "in_replay", "the datagram was seen before, or is too old for the replay window";
    InForged = "in_forged", "the datagram's authentication tag is wrong";
    InBadMac1 = "in_bad_mac1", "the handshake message was made for another public key";
    InUnderLoad = "in_under_load", "too many handshakes: the sender was asked to prove its address";
    InHandshakeQueueFull = "in_handshake_queue_full", "too many handshakes were waiting";
    InHandshakeRefused = "in_handshake_refused", "the handshake failed: unknown or wrong key, wrong preshared key, or a replay";
    InInnerMalformed = "in_inner_malformed", "the inner packet from the far end is not valid IP";
    InSourceNotAllowed = "in_source_not_allowed", "the inner source address does not belong to the tunnel it came from";
    InEcn = "in_ecn", "congestion was marked on a packet whose sender cannot understand it (RFC 6040)";
    InTunFailed = "in_tun_failed", "the kernel refused the inner packet on the interface";
}

/// One counter a [`Reason`]; written by one worker, read by anybody.
#[derive(Debug)]
pub struct DropCounters([AtomicU64; Reason::ALL.len()]);

impl Default for DropCounters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl DropCounters {
    /// Counts `packets` dropped for `reason`.
    pub fn add(&self, reason: Reason, packets: u64) {
        if let Some(counter) = self.0.get(reason as usize) {
            counter.fetch_add(packets, Ordering::Relaxed);
        }
    }

    /// What was counted for `reason` so far.
    #[must_use]
    pub fn count(&self, reason: Reason) -> u64 {
        self.0.get(reason as usize).map_or(0, |c| c.load(Ordering::Relaxed))
    }
}
