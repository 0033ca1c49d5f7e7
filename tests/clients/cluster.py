#!/usr/bin/env python3
"""Three Pelton processes as one cluster, and unmodified clients at work while its nodes are killed, stopped and started.

    tests/clients/cluster.py [--client NAME]… [--mode direct|single] [--shards N] [--keep] [--sabotage wipe] [-v]

Every partition has three replicas, min.insync.replicas is 2. Idempotent producers write and members of groups read through
every life; then each record that was acknowledged must be there once, at the offset that was acknowledged, for every client.
The last line is `N passed, N failed, N skipped`; exit code 1 when anything failed.
"""
import argparse
import concurrent.futures
import pathlib
import shutil
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import cases  # noqa: E402
import lib  # noqa: E402
from drivers import Driver, Refused, missing  # noqa: E402
from ledger import Ledger, sample  # noqa: E402
from protocol import apis, batch  # noqa: E402
from protocol.client import LATEST, Cluster, produce  # noqa: E402
from protocol.wire import Closed, Connection, Timeout  # noqa: E402
from run import Results  # noqa: E402

NODES = 3
CLIENTS_HERE = ("kcat", "java", "confluent-kafka")
SETTINGS = {**lib.SETTINGS, "default.replication.factor": NODES, "min.insync.replicas": 2, "offsets.topic.num.partitions": 6,
            "pelton.journal.bytes": 16 << 20}
SETTLE_S = 40
PROBE = "probe"
# What a connection to a node that goes away ends with.
GONE = (OSError, Closed, Timeout)


class Node(lib.Pelton):
    """One of the processes."""

    def __init__(self, node_id, mode, shards, peers):
        super().__init__(mode, shards, settings=SETTINGS, node_id=node_id)
        self.peers = peers

    def command(self):
        return [*super().command(), "--cluster", self.peers]


class Nodes:
    """All of them, and what `cases.Client` wants of a broker."""

    name = "pelton"

    def __init__(self, mode, shards):
        first = lib.free_ports(NODES * 8)
        peers = ",".join(f"{i + 1}@127.0.0.1:{first + 8 * i}" for i in range(NODES))
        self.all = [Node(i + 1, mode, shards, peers) for i in range(NODES)]
        self.bootstrap = ",".join(n.bootstrap for n in self.all)
        self.dir = lib.temp_dir("cluster")

    def together(self, what):
        """One needs others to get ready, and to hand over to."""
        with concurrent.futures.ThreadPoolExecutor(NODES) as pool:
            for f in [pool.submit(what, n) for n in self.all]:
                f.result()

    def start(self):
        self.together(lambda n: n.start())

    def stop(self):
        self.together(lambda n: n.stop())

    def destroy(self, keep):
        for n in self.all:
            n.destroy(keep)
        if not keep:
            shutil.rmtree(self.dir, ignore_errors=True)


class AnyNode(Cluster):
    """The raw client, at the first node that answers."""

    def __init__(self, nodes):
        super().__init__(nodes.all[0].bootstrap)
        self.nodes = nodes

    def call(self, api, version, values, **more):
        for node in self.nodes.all:
            if not node.alive():
                continue
            try:
                with Connection("127.0.0.1", node.port) as c:
                    return c.call(api, version, values, **more)
            except GONE as e:
                error = e
        raise error

    def offset(self, topic, partition, timestamp, version=7):
        """Asks again while the leader goes away."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            try:
                return super().offset(topic, partition, timestamp, version)
            except GONE:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def wait(self, why, true):
        deadline = time.monotonic() + SETTLE_S
        while not true():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {SETTLE_S} s: {why}: {self.metadata(None)}")
            time.sleep(0.1)

    def wait_whole(self):
        """All replicas of all partitions are in sync and have a leader."""
        def whole():
            parts = [p for t in self.metadata(None)["topics"] for p in t["partitions"]]
            return parts and all(p["leader_id"] >= 0 and len(p["isr"]) == len(p["replicas"]) == NODES for p in parts)
        self.wait("every replica in sync", whole)


class Test:
    def __init__(self, args, results):
        self.args, self.results = args, results
        self.nodes = Nodes(args.mode, args.shards)
        self.cluster, self.ledger, self.clients, self.readers = AnyNode(self.nodes), Ledger(), [], []

    def run(self):
        try:
            if self.case("start", self.nodes.start):
                self.all()
        finally:
            for driver in [c.driver for c in self.clients] + [r.driver for r in self.readers]:
                driver.close()
            self.cluster.close_all()
            self.nodes.destroy(self.args.keep or self.results.count("FAIL") > 0)

    def case(self, name, function, *args):
        return self.results.run(f"cluster [{self.args.mode}]", name, function, *args)

    def all(self):
        self.case("every node names all of them", self.brokers)
        for name in CLIENTS_HERE:
            if self.args.client and name not in self.args.client:
                continue
            why = missing(name)
            if why:
                self.results.note("cluster", name, "skip", why)
                continue
            driver = Driver(name, self.nodes.bootstrap, self.nodes.dir)
            self.clients.append(cases.Client(name, driver, self.cluster, self.ledger, self.nodes))
        self.case("replicas on three nodes", self.replicas)
        self.case("clients write and read", self.each, self.first)
        self.readers = [Reader(c) for c in self.clients if c.name in cases.WRITES_THROUGH]
        for name, life in (("kill -9 of a leader", self.kill_leader), ("kill -9 of the coordinator", self.kill_coordinator),
                           ("one after the other stops and starts", self.roll)):
            self.through(name, life)
        self.case("all stop", self.nodes.stop)
        if self.case("all start again", self.nodes.start):
            self.case("every replica is in sync again", self.cluster.wait_whole)
            self.case("every record after all stopped", self.each, lambda c: c.read_all(self.ledger.topics()))
            self.case("clients go on", self.each, lambda c: c.send(c.topic("plain"), sample(9, 3, c.caps, "on")))

    def each(self, function):
        with concurrent.futures.ThreadPoolExecutor(len(self.clients)) as pool:
            for f in [pool.submit(function, c) for c in self.clients]:
                f.result()

    def brokers(self):
        want = NODES * (self.args.shards if self.args.mode == "direct" else 1)
        seen = set()
        for node in self.nodes.all:
            one = Cluster(node.bootstrap)
            self.cluster.wait(f"node {node.node_id} names {want} brokers", lambda: len(one.metadata(None)["brokers"]) == want)
            got = one.call(apis.DESCRIBE_CLUSTER, 0, {"include_authorized_operations": False})
            assert len(got["brokers"]) == want, got
            seen.add((got["cluster_id"], tuple(sorted(b["id"] for b in got["brokers"]))))
        assert len(seen) == 1, f"nodes of one cluster tell different things: {seen}"

    def replicas(self):
        self.cluster.create(PROBE, 6)
        for part in self.cluster.metadata([PROBE])["topics"][0]["partitions"]:
            nodes = {r // 256 for r in part["replicas"]}
            assert len(part["replicas"]) == len(nodes) == NODES, part
        got = self.cluster.create("too-many", 1, check=False, replication_factor=NODES + 1)
        assert got["error_code"] == 38, f"INVALID_REPLICATION_FACTOR expected: {got}"
        self.cluster.wait_whole()

    def first(self, c):
        c.create(c.topic("plain"), 3)
        c.send(c.topic("plain"), sample(30, 3, c.caps, "first"), idempotent=True)
        if c.name in cases.WRITES_THROUGH:
            c.create(c.topic("through"), 3)
            c.send(c.topic("through"), sample(9, 3, c.caps, "through"), idempotent=True)
        c.read_all([c.topic("plain")])

    def through(self, name, life):
        """Clients write and read while `life` happens."""
        stop = threading.Event()

        def lived():
            try:
                time.sleep(0.5)  # let the writers write
                life()
                self.cluster.wait_whole()
            finally:
                stop.set()
        with concurrent.futures.ThreadPoolExecutor(2 * len(self.clients) + 1) as pool:
            work = [pool.submit(self.case, f"{c.name} writes through {name}", self.write, c, stop) for c in self.clients]
            work += [pool.submit(self.case, f"{r.name} reads through {name}", r.read, stop) for r in self.readers]
            self.case(name, lived)
            for w in work:
                w.result()
        self.case(f"every record after {name}", self.each, lambda c: c.read_all(self.ledger.topics()))
        for r in self.readers:
            self.case(f"{r.name}: commits after {name}", r.commit)

    @staticmethod
    def write(c, stop):
        if c.name in cases.WRITES_THROUGH:
            return cases.write_through(c, stop)
        return Short(c).write(stop)

    def kill_leader(self):
        part = self.cluster.metadata([PROBE])["topics"][0]["partitions"][0]
        self.kill(part["leader_id"] // 256, part["index"])

    def kill_coordinator(self):
        topic = self.cluster.metadata(["__consumer_offsets"])["topics"][0]
        leaders = [p["leader_id"] // 256 for p in topic["partitions"]]
        self.kill(max(set(leaders), key=leaders.count))

    def kill(self, node_id, partition=None):
        """kill -9; how long until a partition it led acknowledges again; and start it again."""
        parts = self.cluster.metadata([PROBE])["topics"][0]["partitions"]
        led = [p["index"] for p in parts if p["leader_id"] // 256 == node_id]
        node = self.nodes.all[node_id - 1]
        node.kill()
        began = time.monotonic()
        if led:
            self.acknowledged(partition if partition is not None else led[0])
            print(f"node {node_id} killed: acknowledged again after {time.monotonic() - began:.2f} s", flush=True)
        time.sleep(1)
        if self.args.sabotage == "wipe":
            shutil.rmtree(node.dir / "data")
        took = node.start()
        print(f"node {node_id} ready again after {took:.2f} s", flush=True)

    def acknowledged(self, partition):
        """Waits until the partition's leader, as any node names it, acknowledges a record."""
        data, deadline = batch.build([batch.Record(b"probe")]), time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            try:
                host, port = self.cluster.address(PROBE, partition, wait_s=0)
                with Connection(host, port, 2.0) as c:
                    if produce(c, PROBE, partition, data)["error_code"] == 0:
                        return
            except Exception:  # the dead leader, or none: asked again
                pass
            time.sleep(0.01)
        raise AssertionError(f"no record acknowledged within {SETTLE_S} s")

    def roll(self):
        for node in self.nodes.all:
            node.stop()
            node.start()
            self.cluster.wait_whole()


class Short:
    """A client that is one process per command. It may end with its only connection, and nobody knows then what of its last
    records was written; what it said is written must be there, and nothing twice."""

    def __init__(self, c):
        self.c, self.topic = c, c.topic(f"short-{time.monotonic_ns()}")

    def write(self, stop):
        self.c.create(self.topic, 1)
        acknowledged, unknown, calls = [], [], 0
        while not stop.is_set() or not acknowledged:
            values = [cases.b64(f"{calls}/{i}".encode()) for i in range(6)]
            calls += 1
            try:
                self.c.driver.call("produce", topic=self.topic, idempotent=True,
                                   records=[{"p": 0, "ts": None, "k": None, "v": v, "h": []} for v in values])
                acknowledged += values
            except Refused as e:
                assert "brokers are down" in str(e), e
                unknown += values
        end = self.c.cluster.offset(self.topic, 0, LATEST)[2]
        got = [r["v"] for r in self.c.driver.call("consume", topic=self.topic, p=0, at="earliest", count=end, timeout_ms=20_000)["records"]]
        assert [v for v in got if v not in set(unknown)] == acknowledged, f"{len(got)} records, {len(acknowledged)} acknowledged"
        assert len(got) == len(set(got)) and set(got) <= set(acknowledged + unknown), "records that were never sent, or twice"


class Reader:
    """A member of a group, alone in it, that reads what its client writes. It may be given records again, and must miss none."""

    def __init__(self, c):
        self.c, self.name, self.topic, self.seen = c, c.name, c.topic("through"), set()
        self.driver = Driver(c.name, c.broker.bootstrap, c.broker.dir)
        self.driver.call("join", member="reader", group=self.topic, topics=[self.topic], protocol="classic", session_ms=6000)

    def wanted(self):
        return {(p, o) for p in range(3) for o in range(self.c.ledger.length(self.topic, p))}

    def take(self):
        records = self.driver.call("take", member="reader", count=0, timeout_ms=300)["records"]
        for p in range(3):
            mine = [o for _, q, o in records if q == p]
            jumps = [(a, b) for a, b in zip(mine, mine[1:]) if b > a + 1]
            assert not jumps, f"{self.topic}-{p}: read from {jumps[0][0]} to {jumps[0][1]} without what lies between"
        self.seen |= {(p, o) for _, p, o in records}

    def read(self, stop):
        while not stop.is_set():
            self.take()
        self.catch_up()

    def catch_up(self):
        deadline = time.monotonic() + SETTLE_S
        while not self.seen >= self.wanted() and time.monotonic() < deadline:
            self.take()
        assert self.seen >= self.wanted(), f"never given: {sorted(self.wanted() - self.seen)[:10]}"

    def commit(self):
        self.catch_up()
        want, deadline = {p: self.c.ledger.length(self.topic, p) for p in range(3)}, time.monotonic() + SETTLE_S
        while True:  # a client that has just joined again may not know its position in every partition yet
            offsets = {p: o for _, p, o in self.driver.call("commit", member="reader")["offsets"]}
            if offsets == want:
                return
            assert time.monotonic() < deadline, f"committed {offsets}, expected {want}"
            self.take()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--client", action="append", choices=CLIENTS_HERE, help="only these")
    p.add_argument("--mode", default="direct", choices=["direct", "single"])
    p.add_argument("--shards", type=int, default=1, help="of each node")
    p.add_argument("--keep", action="store_true", help="keep data and logs")
    p.add_argument("--sabotage", choices=["wipe"], help="wipe a killed node's data, to see that the tests notice")
    p.add_argument("-v", "--verbose", action="store_true")
    args = p.parse_args()
    finish(Results(args.verbose), lambda results: Test(args, results), "three nodes")


def finish(results, test, what):
    """Runs the test that is made of `results`, prints what came of it, and ends with it."""
    began = time.monotonic()
    test(results).run()
    results.table()
    print(f"{what}: {time.monotonic() - began:.0f} s")
    print(f"{results.count('ok')} passed, {results.count('FAIL')} failed, {results.count('skip')} skipped")
    sys.exit(1 if results.count("FAIL") or not results.count("ok") else 0)


if __name__ == "__main__":
    main()
