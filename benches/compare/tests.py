"""Ratios and verdicts, on numbers made up here: python3 -B benches/compare/tests.py"""

import io
import pathlib
import runpy
import sys
import unittest
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import figures
import musts
import ratios
import report
from peers import Peer

PEERS = ("wireguard-go", "boringtun", "gotatun")
FIGURES = ("tcp-1", "tcp-8", "tcp-both", "tcp-pinned", "udp-64", "ping-idle", "ping-loaded")
GOOD = {"Gbit/s": 9.0, "packets/s": 9.0, "CPU s/GiB": 1.0, "median ms": 1.0, "mean ms": 1.0, "RSS MiB": 8.0,
        "sent": 1000, "lost": 0}
POOR = {**GOOD, "Gbit/s": 2.0, "packets/s": 2.0, "CPU s/GiB": 4.0, "median ms": 2.0, "mean ms": 2.0}


def results(rounds=4):
    """All that is asked for, and Linkspan ahead in all of it."""
    figure = {"linkspan": [GOOD] * rounds, **{name: [POOR] * rounds for name in PEERS}}
    return {wire: {name: dict(figure) for name in FIGURES} for wire in ("plain", "merged", "split")}


def short(found, **more):
    return [line for holds, line in musts.check(found, "linkspan", **more) if not holds]


class Ratios(unittest.TestCase):
    def test_a_round_that_failed_for_one_of_them_is_left_out(self):
        self.assertEqual(ratios.ratios([2, None, 6, 4], [1, 1, None, 2]), [2, 2])

    def test_the_best_of_several_is_the_best_of_each_round(self):
        self.assertEqual(ratios.best([[1, 5, None], [3, 2, None]], True), [3, 5, None])
        self.assertEqual(ratios.best([[1, 5], [3, None]], False), [1, 5])

    def test_quartiles_of_one_number_are_that_number(self):
        self.assertEqual(ratios.quartiles([7]), (7, 7, 7))


class Verdicts(unittest.TestCase):
    def test_all_holds_where_linkspan_is_ahead_everywhere(self):
        self.assertEqual(short(results()), [])
        self.assertTrue(report.verdicts(results(), "linkspan")[1])

    def test_nothing_measured_is_nothing_reached(self):
        self.assertEqual(len(short({})), len(musts.MUSTS))
        self.assertFalse(report.verdicts({}, "linkspan")[1])

    def test_a_missing_wire_figure_or_peer_falls_short_as_not_measured(self):
        for remove in (lambda r: r.pop("split"), lambda r: r["plain"].pop("tcp-pinned"),
                       lambda r: r["plain"]["tcp-1"].pop("gotatun")):
            found = results()
            remove(found)
            lines = short(found)
            self.assertTrue(lines)
            self.assertTrue(all(line.endswith("not measured") for line in lines), lines)

    def test_rounds_that_failed_are_not_measured(self):
        found = results()
        found["plain"]["tcp-1"]["linkspan"] = [None] * 4
        self.assertIn("plain tcp-1 Gbit/s against wireguard-go: not measured", short(found))
        self.assertIn("plain tcp-1 Gbit/s not behind gotatun: not measured", short(found))

    def test_rounds_that_nobody_shares_are_not_measured(self):
        found = results()
        found["merged"]["tcp-8"]["linkspan"] = [GOOD, None, GOOD, None]
        found["merged"]["tcp-8"]["wireguard-go"] = [None, POOR, None, POOR]
        self.assertIn("merged tcp-8 Gbit/s against wireguard-go: not measured", short(found))

    def test_one_round_that_failed_falls_short_however_good_the_others_are(self):
        found = results()
        found["plain"]["tcp-8"]["linkspan"] = [GOOD, None, GOOD, GOOD]
        found["plain"]["tcp-1"]["gotatun"] = [POOR, None, POOR, POOR]
        self.assertEqual(short(found), ["plain tcp-8: failed in 1 of 4 rounds"])

    def test_only_an_upper_quartile_below_the_must_falls_short(self):
        found = results()
        # Ratios to 2.0 on plain, of which 1.5 is asked: a quarter of the rounds reaches it, then none.
        for rates, holds in (([2.0, 2.0, 2.0, 3.0, 3.0], True), ([2.0, 2.0, 2.0, 2.0, 3.0], False)):
            found["plain"]["tcp-8"] = {"linkspan": [{**GOOD, "Gbit/s": rate} for rate in rates],
                                       **{name: [POOR] * 5 for name in PEERS}}
            lines = [line for line in short(found) if line.startswith("plain tcp-8 Gbit/s against")]
            self.assertEqual(not lines, holds, lines)

    def test_what_should_be_low_is_judged_by_its_lower_quartile(self):
        found = results()
        for costs, holds in (([2.4, 2.4, 4.0, 4.0, 4.0], True), ([2.4, 4.0, 4.0, 4.0, 4.0], False)):
            found["plain"]["tcp-1"]["linkspan"] = [{**GOOD, "CPU s/GiB": cost} for cost in costs]
            found["plain"]["tcp-1"]["wireguard-go"] = [POOR] * 5
            lines = [line for line in short(found) if line.startswith("plain tcp-1 CPU s/GiB against")]
            self.assertEqual(not lines, holds, lines)

    def test_a_figure_without_a_must_may_not_be_behind_any_peer(self):
        found = results()
        found["merged"]["lan-tcp-1"] = {"linkspan": [GOOD] * 4, "boringtun": [POOR] * 4,
                                        "gotatun": [{**POOR, "Gbit/s": 10.0, "mean ms": 0.5}] * 4}
        self.assertEqual([line.partition(":")[0] for line in short(found)],
                         ["merged lan-tcp-1 Gbit/s not behind gotatun", "merged lan-tcp-1 mean ms not behind gotatun"])

    def test_memory_may_grow_with_the_cores(self):
        found = results()
        for wire in found.values():
            wire["tcp-8"]["linkspan"] = [{**GOOD, "RSS MiB": 40.0}] * 4
        self.assertEqual(len(short(found, cores=2)), 3)
        self.assertEqual(short(found, cores=4), [])

    def test_lost_pings_are_counted_over_all_rounds(self):
        found = results()
        found["split"]["ping-loaded"]["linkspan"] = [GOOD, {**GOOD, "lost": 21}, GOOD, GOOD]
        self.assertEqual(short(found), ["split ping-loaded loss: 21 of 4000, must be at most 0.5%"])


class Programs(unittest.TestCase):
    def test_the_fair_setting_goes_by_the_name_or_the_program(self):
        with mock.patch("os.access", return_value=True):
            for text in ("boringtun=/opt/bt", "mine=/opt/boringtun-cli", "boringtun-0.7=/opt/boringtun-cli-0.7"):
                self.assertEqual(Peer.parse(text).arguments[:2], ["-t", "1"], text)
            self.assertEqual(Peer.parse("boringtun=/opt/bt:-t 4").arguments, ["-t", "4"])
            self.assertEqual(Peer.parse("wireguard-go=/opt/wg").arguments, [])

    def test_a_path_without_a_program_is_named(self):
        with redirect_stderr(io.StringIO()), self.assertRaisesRegex(Exception, "with the path of a program"):
            Peer.parse("other=/nonexistent/other")


class Soak(unittest.TestCase):
    def setUp(self):
        self.soak = runpy.run_path(str(pathlib.Path(__file__).resolve().parents[1] / "soak/__main__.py"))

    def test_system_calls_are_those_of_the_last_line(self):
        for total in ("100.00    0.102341           7     14137       263 total",
                      "100.00    0.102341           7     14137           total"):
            summary = "% time     seconds  usecs/call     calls    errors syscall\n" \
                      " 60.00    0.061000           6     10000           sendmsg\n" + total
            self.assertEqual(self.soak["total_calls"](summary), 14137)
        with self.assertRaisesRegex(Exception, "counted nothing"):
            self.soak["total_calls"]("")

    def test_a_second_without_a_byte_is_a_failure_but_the_rest_of_one_is_not(self):
        def second(start, size, seconds=1.0):
            return {"start": start, "seconds": seconds, "bytes": size, "bits_per_second": 8.0 * size}

        self.assertTrue(self.report(2, [second(0, 9), second(1, 5), second(2, 0, 0.01)]))
        self.assertFalse(self.report(3, [second(0, 9), second(1, 0), second(2, 5)]))
        self.assertIn("1 at zero: at 1", self.said)
        self.assertFalse(self.report(9, [second(0, 9), second(1, 9)]))

    def test_sessions_that_were_not_renewed_are_a_failure(self):
        rates = [{"start": at, "seconds": 1.0, "bytes": 9, "bits_per_second": 9.0} for at in range(300)]
        self.assertFalse(self.report(300, rates, {100}))
        self.assertTrue(self.report(300, rates, {100, 220}))

    def report(self, seconds, intervals, handshakes=frozenset({100})):
        with redirect_stdout(io.StringIO()) as said:
            holds = self.soak["report"](mock.Mock(daemons=[]), seconds, intervals, [], [], handshakes)
        self.said = said.getvalue()
        return holds


class RoundTrips(unittest.TestCase):
    def test_a_lost_ping_is_among_the_slowest(self):
        times = [float(ms) for ms in range(1, 201)]
        whole = {"median ms": 100.5, "mean ms": 100.5, "p99 ms": 199.0, "sent": 200, "lost": 0}
        self.assertEqual(figures.round_trips(times[::-1], 200), whole)
        self.assertEqual(figures.round_trips(times[:199], 200)["p99 ms"], 199.0)
        self.assertEqual(figures.round_trips(times[:198], 200)["p99 ms"], 1000)
        self.assertEqual(figures.round_trips(times[:198], 200)["median ms"], 99.5)

    def test_pings_of_which_none_is_answered_are_a_failed_round(self):
        with self.assertRaisesRegex(figures.Failed, "none of 200 pings"):
            figures.round_trips([], 200)


if __name__ == "__main__":
    unittest.main()
