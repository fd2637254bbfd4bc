"""The table on the terminal."""

import musts
import ratios

# Metrics that explain others; in the JSON only.
ASIDE = ("sent", "offered/s", "load Gbit/s", "peak RSS MiB")


def table(results, subject):
    """For each wire and metric a line: each peer's median and quartiles, and how ours compares."""
    lines = []
    for wire, figures in results.items():
        names = list(dict.fromkeys(name for peers in figures.values() for name in peers))
        others = [name for name in names if name != subject]
        rows = [[f"{wire} wire", *names, *(f"vs {name}" for name in others)]]
        for figure, peers in figures.items():
            rows += [_row(figure, metric, peers, names, others, subject) for metric in _metrics(peers)]
        lines += [*_aligned(rows), ""]
    return "\n".join(lines)


def _metrics(peers):
    every = dict.fromkeys(metric for rounds in peers.values() for each in rounds if each for metric in each)
    return [metric for metric in every if metric not in ASIDE]


def _row(figure, metric, peers, names, others, subject):
    columns = {name: ratios.column(peers.get(name, []), metric) for name in names}
    ours = columns.get(subject, [])
    cells = [_spread(columns[name]) for name in names]
    return [f"{figure} {metric}", *cells, *(_ratio(ours, columns[name]) for name in others)]


def _spread(numbers):
    known = [number for number in numbers if number is not None]
    if not known:
        return "-"
    low, middle, high = ratios.quartiles(known)
    return f"{_short(middle)} ({_short(low)}-{_short(high)})"


def _ratio(ours, theirs):
    found = ratios.ratios(ours, theirs)
    if not found:
        return "-"
    low, middle, high = ratios.quartiles(found)
    return f"{middle:.2f}x ({low:.2f}-{high:.2f})"


def _short(number):
    if number >= 10_000:
        return f"{number / 1000:.0f}k"
    return f"{number:.3g}" if number < 1000 else f"{number:.0f}"


def _aligned(rows):
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def verdicts(results, subject):
    """The lines of the check, and whether all holds."""
    judged = musts.check(results, subject)
    lines = [f"{'ok   ' if holds else 'SHORT'}  {line}" for holds, line in judged]
    return "\n".join(lines), bool(judged) and all(holds for holds, _ in judged)
