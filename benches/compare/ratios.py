"""Medians, quartiles, and ratios round by round."""

import statistics


def quartiles(numbers):
    """Lower quartile, median, upper quartile."""
    if len(numbers) == 1:
        return (numbers[0],) * 3
    return tuple(statistics.quantiles(numbers, n=4, method="inclusive"))


def column(rounds, metric):
    """One metric of a peer, round after round; None where the round failed."""
    return [each.get(metric) if each else None for each in rounds]


def ratios(ours, theirs):
    """Ours over theirs for each round that has both."""
    return [our / their for our, their in zip(ours, theirs) if our is not None and their]  # 0 has no ratio


def best(columns, higher_is_better):
    """The best of several peers, round by round."""
    pick = max if higher_is_better else min
    rounds = ([value for value in row if value is not None] for row in zip(*columns))
    return [pick(row) if row else None for row in rounds]
