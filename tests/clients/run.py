#!/usr/bin/env python3
"""Runs the client tests: unmodified Kafka clients and raw protocol tests against a broker.

    tests/clients/run.py [--broker pelton|kafka|HOST:PORT] [--client NAME]… [--mode direct|single|both] [--keep] [-v]
        [--test WORD] [--shards N] [--sabotage wipe]

`--client protocol` is the raw tests. The last line is `N passed, N failed, N skipped`; exit code 1 when anything failed.
"""
import argparse
import concurrent.futures
import pathlib
import shutil
import sys
import threading
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import cases  # noqa: E402
import lib  # noqa: E402
from drivers import CLIENTS, Driver, Skipped, missing  # noqa: E402
from ledger import Ledger  # noqa: E402
from protocol.client import Cluster  # noqa: E402

WORKERS = 3


class Results:
    """Counts, and prints a line per case as it ends."""

    def __init__(self, verbose):
        self.rows, self.lock, self.verbose = [], threading.Lock(), verbose

    def run(self, group, name, function, *args):
        """One case. Returns whether it passed."""
        began = time.monotonic()
        try:
            function(*args)
            state, reason = "ok", ""
        except Skipped as e:
            state, reason = "skip", str(e)
        except Exception as e:
            state, reason = "FAIL", f"{type(e).__name__}: {e}"
            if self.verbose:
                reason += "\n" + traceback.format_exc()
        self.note(group, name, state, reason, time.monotonic() - began)
        return state != "FAIL"

    def note(self, group, name, state, reason="", seconds=0.0):
        with self.lock:
            self.rows.append((group, name, state))
            if state != "ok" or self.verbose:
                print(f"{state:4} {group}: {name} ({seconds:.1f} s) {reason}".rstrip(), flush=True)

    def count(self, state):
        return sum(1 for r in self.rows if r[2] == state)

    def table(self):
        groups = list(dict.fromkeys(r[0] for r in self.rows))
        print(f"\n{'':40} passed failed skipped")
        for g in groups:
            states = [r[2] for r in self.rows if r[0] == g]
            print(f"{g:40} {states.count('ok'):6} {states.count('FAIL'):6} {states.count('skip'):7}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--broker", default="pelton", help="pelton, kafka (the oracle) or HOST:PORT of a running one")
    p.add_argument("--client", action="append", choices=[*CLIENTS, "protocol"], help="only these")
    p.add_argument("--mode", default="both", choices=["direct", "single", "both"], help="Pelton's listener mode")
    p.add_argument("--shards", type=int, default=2, help="Pelton's shards")
    p.add_argument("--test", default="", help="only cases whose name holds this")
    p.add_argument("--keep", action="store_true", help="keep the broker's data and log")
    p.add_argument("--sabotage", choices=["wipe"], help="wipe the data at every restart, to see that the tests notice")
    p.add_argument("-v", "--verbose", action="store_true", help="a line for every case, tracebacks for failures")
    args = p.parse_args()
    modes = ["direct", "single"] if args.mode == "both" else [args.mode]
    if args.broker != "pelton":
        modes = [args.broker.replace(":", "_")]
    results = Results(args.verbose)
    began = time.monotonic()
    for mode in modes:
        run_mode(args, mode, results)
    results.table()
    print(f"client tests against {args.broker}: {time.monotonic() - began:.0f} s")
    print(f"{results.count('ok')} passed, {results.count('FAIL')} failed, {results.count('skip')} skipped")
    sys.exit(1 if results.count("FAIL") or not results.count("ok") else 0)


def run_mode(args, mode, results):
    try:
        broker = lib.make(args.broker, mode, args.shards)
    except lib.BrokerFailed as e:
        results.note(f"broker [{mode}]", "start", "FAIL", str(e))
        return
    run = Run(args, mode, results, broker)
    try:
        if results.run(f"broker [{mode}]", "start", broker.start):
            run.all()
            if broker.owned and broker.alive():
                results.run(f"broker [{mode}]", "clean stop", broker.stop)
            elif not broker.alive():
                results.note(f"broker [{mode}]", "alive at the end", "FAIL", broker.log_tail())
    finally:
        run.close()
        broker.destroy(keep=args.keep or results.count("FAIL") > 0)
        if broker.dir and broker.dir.exists():
            print(f"kept {broker.dir.relative_to(lib.ROOT) if broker.dir.is_relative_to(lib.ROOT) else broker.dir}")


class Run:
    """All tests against one broker in one mode."""

    def __init__(self, args, mode, results, broker):
        self.args, self.mode, self.results, self.broker = args, mode, results, broker
        self.ledger, self.clients = Ledger(), []
        self.cluster = Cluster(broker.bootstrap)
        self.logs = broker.dir or lib.temp_dir("drivers")

    def group(self, name):
        return f"{name} [{self.mode}]"

    def close(self):
        self.cluster.close_all()
        for c in self.clients:
            c.driver.close()

    def wants(self, name):
        return not self.args.client or name in self.args.client

    def all(self):
        if self.wants("protocol"):
            self.protocol()
        self.open_clients()
        if not self.clients:
            return
        self.each(self.client_cases)
        self.each(self.cross_read)
        if not self.broker.owned or not self.broker.alive() or self.args.test:
            return
        lives = [("restart", self.broker.stop, None), ("kill -9", self.broker.kill, None)]
        if self.broker.name == "pelton":
            lives += [(f"{n} shards", self.broker.stop, n) for n in (self.args.shards + 1, max(1, self.args.shards - 1))]
        for i, (what, end, shards) in enumerate(lives):
            if not self.life(what, end, shards):
                for later in lives[i + 1:]:  # a damaged log would only fail everything again, slowly
                    self.results.note(self.group("broker"), later[0], "FAIL", f"not tried: records were wrong after {what}")
                return

    def open_clients(self):
        for name in CLIENTS:
            if not self.wants(name):
                continue
            why = missing(name)
            if why:
                self.results.note(self.group(name), "all", "skip", why)
                continue
            try:
                driver = Driver(name, self.broker.bootstrap, self.logs)
            except Exception as e:
                self.results.note(self.group(name), "driver", "FAIL", str(e))
                continue
            print(f"{name} {driver.version}", flush=True)
            self.clients.append(cases.Client(name, driver, self.cluster, self.ledger, self.broker))

    def each(self, function):
        """All clients at once, a few in parallel: every client has its own topics."""
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            for f in [pool.submit(function, c) for c in self.clients]:
                f.result()

    def client_cases(self, c):
        for case in cases.CASES:
            if self.args.test in case.__name__:
                if not self.broker.alive():
                    self.results.note(self.group(c.name), case.__name__, "FAIL", "the broker is gone")
                    continue
                self.results.run(self.group(c.name), case.__name__, case, c)
                self.revive(c)

    def revive(self, c):
        """A driver that died in one case must not fail the following ones."""
        if c.driver.process.poll() is not None:
            c.driver.close()
            c.driver = Driver(c.name, self.broker.bootstrap, self.logs)

    def cross_read(self, c):
        """Every client reads what every client wrote."""
        for other in self.clients:
            topics = [t for t in self.ledger.topics() if t.startswith(other.name + ".")]
            self.results.run(self.group(c.name), f"reads {other.name}'s records", c.read_all, topics)

    def life(self, what, end, shards=None):
        """End the broker, start it again, and let the clients, still connected, go on. False when the logs are not what was acknowledged."""
        group = self.group("broker")
        for c in self.clients:
            self.revive(c)

        def again():
            time.sleep(0.5)  # let the writers write
            try:
                end()
                if self.args.sabotage == "wipe":
                    shutil.rmtree(self.broker.dir / "data")
                if shards:
                    self.broker.shards = shards
                took = self.broker.start()
                print(f"{self.mode}: {what}: ready again after {took:.1f} s", flush=True)
                time.sleep(0.5)
            finally:
                stop.set()
        stop = threading.Event()
        with concurrent.futures.ThreadPoolExecutor(len(self.clients)) as pool:
            writers = [pool.submit(self.results.run, self.group(c.name), f"writes through {what}", cases.write_through, c, stop)
                       for c in self.clients if c.name in cases.WRITES_THROUGH]
            came_back = self.results.run(group, what, again)
            for w in writers:
                w.result()
        if not came_back:
            for c in self.clients:
                self.results.note(self.group(c.name), f"after {what}", "FAIL", "the broker did not come back")
            return False
        whole = self.results.run(group, f"ends of all logs after {what}", self.ends)
        self.each(lambda c: self.results.run(self.group(c.name), f"after {what}", cases.again, c))
        self.each(lambda c: self.results.run(self.group(c.name), f"all records after {what}", c.read_all, self.ledger.topics()))
        return whole and self.broker.alive()

    def ends(self):
        """No acknowledged record is missing and none is there twice."""
        for topic in self.ledger.topics():
            for p in self.ledger.partitions(topic):
                deadline = time.monotonic() + 10
                while (answer := self.cluster.offset(topic, p, -1))[0] and time.monotonic() < deadline:
                    time.sleep(0.1)  # Kafka answers NOT_LEADER for a moment after its start
                error, _, end = answer
                assert (error, end) == (0, self.ledger.length(topic, p)), \
                    f"{topic}-{p} ends at {end} (error {error}), expected {self.ledger.length(topic, p)}"

    def protocol(self):
        from protocol import suite
        for name, function in suite.tests(self.broker):
            if self.args.test in name:
                self.results.run(self.group("protocol"), name, function)
                if not self.broker.alive():
                    self.results.note(self.group("protocol"), f"{name}: the broker lives", "FAIL", self.broker.log_tail())
                    if not (self.broker.owned and self.results.run(self.group("broker"), "start again", self.broker.start)):
                        return
        self.results.run(self.group("protocol"), "the broker still serves", self.cluster.metadata, None)


if __name__ == "__main__":
    main()
