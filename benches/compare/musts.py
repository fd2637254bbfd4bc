"""What Linkspan must reach, and whether it does.

A figure falls short only when even the better quartile of its round-by-round ratios is worse than the must.
"""

import dataclasses

import ratios

LOWER_IS_BETTER = ("CPU s/GiB", "CPU us/packet", "median ms", "mean ms", "p99 ms", "RSS MiB", "peak RSS MiB", "lost",
                   "late %")


def higher_is_better(metric):
    return metric not in LOWER_IS_BETTER


@dataclasses.dataclass(frozen=True)
class Must:
    """A bound on the ratio of ours to a peer's; `against` begins the names of the peers, "" is the best of all."""

    wire: str
    figure: str
    metric: str
    against: str
    ratio: float


@dataclasses.dataclass(frozen=True)
class Limit:
    """A bound on our own number, whatever the others have."""

    figure: str
    metric: str
    most: float


def _tcp(wire, ratio):
    return [Must(wire, figure, "Gbit/s", "wireguard-go", ratio) for figure in ("tcp-1", "tcp-8", "tcp-both")]


MUSTS = [
    *_tcp("plain", 1.5),
    *_tcp("merged", 1.6),
    *_tcp("split", 1.1),
    Must("plain", "tcp-1", "Gbit/s", "gotatun", 4.5),
    Must("plain", "tcp-1", "Gbit/s", "boringtun", 4.5),
    Must("plain", "tcp-pinned", "Gbit/s", "wireguard-go", 1.4),
    Must("plain", "udp-64", "packets/s", "", 2.0),
    Must("plain", "tcp-1", "CPU s/GiB", "wireguard-go", 0.6),
    Must("plain", "ping-idle", "median ms", "", 1.0),
    Must("plain", "ping-loaded", "mean ms", "", 1.0),
]

LIMITS = [Limit("tcp-8", "RSS MiB", 32.0)]
LOSS_MOST = 0.005


def check(results, subject):
    """A line for each bound that these results can judge, and whether it holds."""
    judged = [_must(results, subject, must) for must in MUSTS]
    judged += [_limit(wire, figures, subject, limit) for wire, figures in results.items() for limit in LIMITS]
    judged += [_loss(wire, figures, subject) for wire, figures in results.items()]
    return [each for each in judged if each]


def _must(results, subject, must):
    peers = results.get(must.wire, {}).get(must.figure, {})
    others = [rounds for name, rounds in peers.items() if name != subject and name.startswith(must.against)]
    higher = higher_is_better(must.metric)
    if subject not in peers or not others:
        return None
    theirs = ratios.best([ratios.column(rounds, must.metric) for rounds in others], higher)
    found = ratios.ratios(ratios.column(peers[subject], must.metric), theirs)
    if not found:
        return None
    low, middle, high = ratios.quartiles(found)
    holds = high >= must.ratio if higher else low <= must.ratio
    against = must.against or "the best of them"
    bound = f"{'at least' if higher else 'at most'} {must.ratio:.2f}"
    return holds, f"{must.wire} {must.figure} {must.metric} against {against}: " \
                  f"{middle:.2f} ({low:.2f} to {high:.2f}), must be {bound}"


def _limit(wire, figures, subject, limit):
    numbers = [n for n in ratios.column(figures.get(limit.figure, {}).get(subject, []), limit.metric) if n is not None]
    if not numbers:
        return None
    middle = ratios.quartiles(numbers)[1]
    return middle <= limit.most, f"{wire} {limit.figure} {limit.metric}: {middle:.1f}, must be at most {limit.most:.1f}"


def _loss(wire, figures, subject):
    rounds = [each for each in figures.get("ping-loaded", {}).get(subject, []) if each]
    sent, lost = sum(each["sent"] for each in rounds), sum(each["lost"] for each in rounds)
    if not sent:
        return None
    share = lost / sent
    return share <= LOSS_MOST, f"{wire} ping-loaded loss: {lost} of {sent}, must be at most {LOSS_MOST:.1%}"
