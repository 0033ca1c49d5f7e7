#!/usr/bin/env python3
"""Runs test suites that others wrote (librdkafka's, kafka-python's, the crate rdkafka's) against a broker, and keeps the table.

    tests/clients/compat.py [--broker pelton|kafka|HOST:PORT] [--suite NAME]… [--list short|full] [--variant classic|consumer]
        [--test WORD]… [--mode direct|single] [--jobs N] [--record] [--table] [-v]

--list short (default) is a few minutes, full is everything. --record keeps the results in suites/results, --table writes COMPAT.md
of them (alone: runs nothing). A test that fails among others is tried again alone. A failure that suites/reasons.toml explains counts
as skipped. The last line is `N passed, N failed, N skipped`; exit code 1 when anything failed.
"""
import argparse
import pathlib
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import lib  # noqa: E402
from suites import kafka_python, librdkafka, rust_rdkafka, table  # noqa: E402
from suites.case import Result, skip_reason  # noqa: E402
from suites.reasons import Reasons  # noqa: E402

SUITES = {s.NAME: s for s in (librdkafka, kafka_python, rust_rdkafka)}
SHORT = lib.HERE / "suites" / "short.txt"
# Kafka alone: an authorizer that lets everyone do what no rule forbids, and the node id that kafka-python's tests name.
KAFKA_ONLY = {"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
              "allow.everyone.if.no.acl.found": "true", "node.id": "0"}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--broker", default="pelton", help="pelton, kafka (the oracle) or HOST:PORT of a running one")
    p.add_argument("--suite", action="append", choices=list(SUITES), help="only these")
    p.add_argument("--list", default="short", choices=["short", "full"], dest="which")
    p.add_argument("--variant", choices=["classic", "consumer"], help="only this group protocol")
    p.add_argument("--test", action="append", default=[], help="only tests whose name holds one of these")
    p.add_argument("--mode", default="direct", choices=["direct", "single"], help="Pelton's listener mode")
    p.add_argument("--jobs", type=int, default=4, help="tests side by side (most of them wait most of the time)")
    p.add_argument("--autocreate", default="true", choices=["true", "false"],
                   help="of a HOST:PORT: its auto.create.topics.enable; tests that want the other are left out")
    p.add_argument("--record", action="store_true", help="keep the results in suites/results")
    p.add_argument("--table", action="store_true", help="write COMPAT.md")
    p.add_argument("--failures", action="store_true", help="only tests that did not pass in the recorded results")
    p.add_argument("-v", "--verbose", action="store_true", help="a line for every test")
    args = p.parse_args()
    if args.table and not args.record:
        table.write()
        return
    run = Run(args)
    run.all()
    if args.record:
        table.record(args.broker, run.rows)
    if args.table:
        table.write()
    sys.exit(run.summary())


class Run:
    """All chosen cases against one kind of broker."""

    def __init__(self, args):
        self.args, self.rows, self.lock = args, [], threading.Lock()
        self.reasons = Reasons(args.broker if args.broker == "kafka" else "pelton")
        self.logs = lib.CACHE / "log" / "compat" / args.broker.replace(":", "_")
        self.logs.mkdir(parents=True, exist_ok=True)

    def all(self):
        began = time.monotonic()
        chosen = []
        for name, suite in SUITES.items():
            if self.args.suite and name not in self.args.suite:
                continue
            why = skip_reason(name)
            if why:
                self.note(None, name, Result("skip", why))
                continue
            try:
                chosen += [c for c in suite.cases() if self.wants(c)]
            except (OSError, subprocess.SubprocessError) as e:
                self.note(None, name, Result("fail", str(e)))
        if self.args.which == "short":
            wanted = short_list()
            chosen = [c for c in chosen if c.key in wanted]
        for settings in dict.fromkeys((c.suite, c.variant, c.settings) for c in chosen):
            self.with_broker(settings[2], [c for c in chosen if (c.suite, c.variant, c.settings) == settings])
        print(f"suites against {self.args.broker}: {time.monotonic() - began:.0f} s")

    def wants(self, case):
        recorded = table.read(self.args.broker) if self.args.failures else {}
        return (not self.args.variant or case.variant == self.args.variant) \
            and (not self.args.test or any(t in case.name for t in self.args.test)) \
            and not (self.args.failures and recorded.get(case.key, {"state": ""})["state"] == "pass")

    def with_broker(self, settings, cases):
        """These cases on a fresh broker: side by side, then those that failed alone, then what still fails on another."""
        name = f"{cases[0].suite} [{cases[0].variant}]"
        later, ready, again = [], [], []
        for c in cases:
            why = self.reasons.not_run(c)
            if not why and self.args.broker not in ("pelton", "kafka") and dict(settings).get("auto.create.topics.enable",
                                                                                           "true") != self.args.autocreate:
                why = f"needs a broker with {', '.join('='.join(s) for s in settings)}"
            later.append((c, why)) if why else ready.append(c)
        for c, why in later:
            self.note(c, c.name, Result("skip", why))
        if not ready:
            return
        try:
            broker = self.broker(dict(settings))
            broker.start()
        except lib.BrokerFailed as e:
            self.note(None, f"{name} broker", Result("fail", str(e)))
            return
        try:
            print(f"{name}: {len(ready)} tests", flush=True)
            for case in self.side_by_side(ready, broker):
                result = self.execute(case, broker)
                if result.state == "fail":
                    again.append(case)
                else:
                    self.note(case, case.name, result, "alone")
            if not broker.alive():
                self.note(None, f"{name}: the broker lives", Result("fail", broker.log_tail()))
            elif broker.owned:
                broker.stop()
        except lib.BrokerFailed as e:
            self.note(None, f"{name} broker", Result("fail", str(e)))
        finally:
            broker.destroy()
        for case in again:
            self.alone(case, settings)

    def broker(self, settings):
        if self.args.broker == "pelton":
            return lib.Pelton(self.args.mode, settings=settings, node_id=0)
        if self.args.broker == "kafka":
            return lib.Kafka("kafka", settings=settings | KAFKA_ONLY)
        return lib.Remote(self.args.broker)

    def side_by_side(self, cases, broker):
        """Runs them; returns those that failed."""
        places, again, threads = Places(self.args.jobs), [], []

        def one(case):
            try:
                result = self.execute(case, broker)
                if result.state == "fail" and not self.reasons.why(case):
                    again.append(case)
                else:
                    self.note(case, case.name, result)
            finally:
                places.leave(case.weight)

        # Long ones first, so that none of them is left running alone at the end.
        for case in sorted(cases, key=lambda c: -c.limit_s):
            places.enter(case.weight)
            thread = threading.Thread(target=one, args=(case,))
            thread.start()
            threads.append(thread)
        for t in threads:
            t.join()
        return again

    def alone(self, case, settings):
        """The last try, on a fresh broker: a pattern of topics would meet those of the time before."""
        try:
            broker = self.broker(dict(settings))
            try:
                broker.start()
                result = self.execute(case, broker)
            finally:
                broker.destroy()
        except lib.BrokerFailed as e:
            result = Result("fail", str(e))
        self.note(case, case.name, result, "alone, fresh broker")

    def execute(self, case, broker):
        began = time.monotonic()
        if not broker.alive():
            return Result("fail", "the broker is gone")
        result = SUITES[case.suite].execute(case, broker.bootstrap, str(self.logs))
        result.seconds = time.monotonic() - began
        file = "".join(ch if ch.isalnum() or ch in "._-" else "_" for ch in f"{case.suite}.{case.variant}.{case.name}")
        (self.logs / f"{file}.log").write_text(f"{result.state}: {result.note}\n\n{result.output}")
        return result

    def note(self, case, name, result, how=""):
        """Counts it, and prints it unless it passed."""
        known = self.reasons.why(case) if case and result.state == "fail" else None
        stale = self.reasons.why(case) if case and result.state == "pass" else None
        with self.lock:
            self.rows.append((case, result, known))
            label = {"pass": "ok", "fail": "known" if known else "FAIL", "skip": "skip"}[result.state]
            if label != "ok" or self.args.verbose or stale:
                where = f"{case.suite} [{case.variant}] " if case else ""
                print(f"{label:5} {where}{name} ({result.seconds:.1f} s) {how} {known or ''} {result.note[:300]}"
                      f"{' (passes now: drop it from reasons.toml)' if stale else ''}".rstrip(), flush=True)

    def summary(self):
        passed = sum(r.state == "pass" for _, r, _ in self.rows)
        failed = sum(r.state == "fail" and not known for _, r, known in self.rows)
        print(f"{passed} passed, {failed} failed, {len(self.rows) - passed - failed} skipped")
        return 1 if failed or not self.rows else 0


class Places:
    """So many places; a case waits until there are as many free as it takes."""

    def __init__(self, count):
        self.free, self.count, self.changed = count, count, threading.Condition()

    def enter(self, weight):
        with self.changed:
            self.changed.wait_for(lambda: self.free >= min(weight, self.count))
            self.free -= min(weight, self.count)

    def leave(self, weight):
        with self.changed:
            self.free += min(weight, self.count)
            self.changed.notify_all()


def short_list():
    lines = [line.split("#")[0].split() for line in SHORT.read_text().splitlines()]
    return {tuple(words) for words in lines if words}


if __name__ == "__main__":
    main()
