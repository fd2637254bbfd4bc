"""What Linkspan must reach, and whether it does.

A figure falls short only when even the better quartile of its round-by-round ratios is worse than the must. What was
not measured falls short, too: nobody knows.
"""

import dataclasses
import os

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
    """A bound on our own number for two cores, whatever the others have, and how much a further core adds."""

    figure: str
    metric: str
    most: float
    more: float = 0.0


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

# In no figure may Linkspan be behind any peer in these: throughput, cost, latency.
NEVER_BEHIND = ("Gbit/s", "packets/s", "CPU s/GiB", "median ms", "mean ms", "p99 ms")

LIMITS = [Limit("tcp-8", "RSS MiB", 32.0, 4.0)]
LOSS_MOST = 0.005
NOT_MEASURED = "not measured"


def check(results, subject, cores=os.cpu_count()):
    """A line for each bound, and whether it holds."""
    judged = [_must(results, subject, must) for must in MUSTS]
    for wire, figures in results.items():
        judged += [_limit(wire, figures, subject, limit, cores) for limit in LIMITS]
        judged.append(_loss(wire, figures, subject))
        judged += _failures(wire, figures, subject)
        judged += _never_behind(wire, figures, subject)
    return judged


def _must(results, subject, must):
    peers = results.get(must.wire, {}).get(must.figure, {})
    others = [rounds for name, rounds in peers.items() if name != subject and name.startswith(must.against)]
    theirs = ratios.best([ratios.column(rounds, must.metric) for rounds in others], higher_is_better(must.metric))
    ours = ratios.column(peers.get(subject, []), must.metric)
    against = must.against or "the best of them"
    return _compared(f"{must.wire} {must.figure} {must.metric} against {against}", must.metric, ours, theirs, must.ratio)


def _failures(wire, figures, subject):
    """Ratios leave out a round that failed, so that it is judged by itself."""
    for figure, peers in figures.items():
        rounds = peers.get(subject, [])
        if failed := sum(1 for each in rounds if not each):
            yield False, f"{wire} {figure}: failed in {failed} of {len(rounds)} rounds"


def _never_behind(wire, figures, subject):
    for figure, peers in figures.items():
        for metric in _metrics(peers):
            ours = ratios.column(peers.get(subject, []), metric)
            for name in (name for name in peers if name != subject):
                what = f"{wire} {figure} {metric} not behind {name}"
                yield _compared(what, metric, ours, ratios.column(peers[name], metric), 1.0)


def _metrics(peers):
    """Those that anybody has; throughput stands for a figure in which everything failed."""
    known = {metric for rounds in peers.values() for each in rounds if each for metric in each}
    return [metric for metric in NEVER_BEHIND if metric in known] or NEVER_BEHIND[:1]


def _compared(what, metric, ours, theirs, ratio):
    found = ratios.ratios(ours, theirs)
    if not found:
        return False, f"{what}: {NOT_MEASURED}"
    low, middle, high = ratios.quartiles(found)
    higher = higher_is_better(metric)
    holds = high >= ratio if higher else low <= ratio
    bound = f"{'at least' if higher else 'at most'} {ratio:.2f}"
    return holds, f"{what}: {middle:.2f} ({low:.2f} to {high:.2f}), must be {bound}"


def _limit(wire, figures, subject, limit, cores):
    most = limit.most + limit.more * max(0, cores - 2)
    numbers = [n for n in ratios.column(figures.get(limit.figure, {}).get(subject, []), limit.metric) if n is not None]
    if not numbers:
        return False, f"{wire} {limit.figure} {limit.metric}: {NOT_MEASURED}"
    middle = ratios.quartiles(numbers)[1]
    return middle <= most, f"{wire} {limit.figure} {limit.metric}: {middle:.1f}, must be at most {most:.1f}"


def _loss(wire, figures, subject):
    rounds = [each for each in figures.get("ping-loaded", {}).get(subject, []) if each]
    sent, lost = sum(each["sent"] for each in rounds), sum(each["lost"] for each in rounds)
    if not sent:
        return False, f"{wire} ping-loaded loss: {NOT_MEASURED}"
    share = lost / sent
    return share <= LOSS_MOST, f"{wire} ping-loaded loss: {lost} of {sent}, must be at most {LOSS_MOST:.1%}"
