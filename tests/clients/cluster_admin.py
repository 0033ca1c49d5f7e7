#!/usr/bin/env python3
"""Three Pelton processes as one cluster, and what its operator does: a node joins, is emptied, goes and is replaced; replicas move
between nodes, throttled, and between the shards of a node; consumers read from the replica in their rack.

    tests/clients/cluster_admin.py [--keep] [-v]

By the raw client, at real processes that share a secret. After each step every record is still there. The last line is
`N passed, N failed, N skipped`; exit code 1 when anything failed.
"""
import argparse
import pathlib
import shutil
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import lib  # noqa: E402
from cluster import GONE, AnyNode, Nodes, finish  # noqa: E402
from protocol import apis, batch  # noqa: E402
from protocol.client import EARLIEST, LATEST, Cluster, fetch_request, produce  # noqa: E402
from protocol.wire import Connection  # noqa: E402
from run import Results  # noqa: E402

SHARDS = 2
SETTINGS = {**lib.SETTINGS, "default.replication.factor": 3, "min.insync.replicas": 2, "offsets.topic.num.partitions": 6,
            "pelton.journal.bytes": 16 << 20, "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector"}
SET, DELETE = 0, 1
BROKER, TOPIC = 4, 2
# A refused node goes on trying; it must have said why by then, seconds.
REFUSED_S = 30


class Node(lib.Pelton):
    """One process; `address`: it is no founder and joins."""

    def __init__(self, node_id, founders, secret, address=None, mode="single"):
        super().__init__(mode, SHARDS, settings={**SETTINGS, "broker.rack": f"rack-{node_id}"}, node_id=node_id)
        self.founders, self.secret, self.address = founders, secret, address

    def command(self):
        out = [*super().command(), "--cluster", self.founders, "--cluster-secret-file", str(self.secret)]
        return out + (["--node-address", self.address] if self.address else [])


class Founders(Nodes):
    """Three nodes of two shards each that share a secret."""

    def __init__(self):
        first = lib.free_ports(8 * 5)
        self.dir = lib.temp_dir("cluster-admin")
        self.secret = self.dir / "secret"
        self.secret.write_text("a secret of the operator's that nobody guesses\n")
        self.peers = ",".join(f"{i + 1}@127.0.0.1:{first + 8 * i}" for i in range(3))
        self.next_port = first + 8 * 3
        self.all = [Node(i + 1, self.peers, self.secret) for i in range(3)]
        self.bootstrap = ",".join(n.bootstrap for n in self.all)

    def joining(self, node_id, secret=None, mode="single"):
        """One more."""
        return Node(node_id, self.peers, secret or self.secret, f"127.0.0.1:{self.next_port}", mode)


class Test:
    def __init__(self, args, results):
        self.args, self.results, self.nodes = args, results, Founders()
        self.cluster, self.written = AnyNode(self.nodes), {}

    def run(self):
        try:
            if self.case("start", self.nodes.start):
                self.all()
        finally:
            self.cluster.close_all()
            self.nodes.destroy(self.args.keep or self.results.count("FAIL") > 0)

    def case(self, name, function):
        return self.results.run("cluster, administered", name, function)

    def all(self):
        for name, function in (
                ("topics on three nodes", self.first),
                ("a node without the secret stays outside", self.stranger),
                ("a node that clients reach in another way stays outside", self.other_mode),
                ("a fourth node joins", self.join),
                ("its data directory belongs to it", self.other_directory),
                ("a replica moves to it", self.move),
                ("as slowly as the throttle says", self.throttled),
                ("a replica moves to another shard of its node", self.relocate),
                ("leadership goes home", self.elect),
                ("consumers read in their rack", self.rack),
                ("it becomes a voter and is one no more", self.voters),
                ("it is emptied, goes and is forgotten", self.leave),
                ("another one takes its place", self.replace),
                ("all stop and start", self.restart)):
            self.case(name, function)
            self.case(f"every record: {name}", self.read_all)

    # What is written, and read back

    def write(self, topic, partition, count, size=100):
        for i in range(count):
            value = f"{topic}/{partition}/{len(self.written.get((topic, partition), []))}/".encode().ljust(size, b".")
            self.acknowledged(topic, partition, value)
            self.written.setdefault((topic, partition), []).append(value)

    def acknowledged(self, topic, partition, value):
        """Until the leader, as any node names it, has taken it; an answer that is lost is an error, so nothing is there twice."""
        deadline = time.monotonic() + 40
        while True:
            try:
                c = self.cluster.leader(topic, partition)
            except GONE:
                c = None
            code = produce(c, topic, partition, batch.build([batch.Record(value, timestamp=int(time.time() * 1000))]))["error_code"] if c else 6
            if code == 0:
                return
            assert code in (6, 7, 19, 20) and time.monotonic() < deadline, f"{topic}-{partition}: error {code}"
            time.sleep(0.05)

    def read_all(self):
        for (topic, partition), values in self.written.items():
            self.cluster.wait(f"{topic}-{partition} ends at {len(values)}", lambda: self.cluster.offset(topic, partition, LATEST)[2] == len(values))
            got = [r.value for b in self.fetched(topic, partition) for r in batch.records(b)]
            assert got == values, f"{topic}-{partition}: {len(got)} records, not the {len(values)} that were written"

    def fetched(self, topic, partition):
        deadline = time.monotonic() + 40
        while True:
            try:
                return self.cluster.fetch_batches(topic, partition)
            except (RuntimeError, *GONE):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    # What the operator sees and does

    def partition(self, topic, index=0):
        return next(p for p in self.cluster.metadata([topic])["topics"][0]["partitions"] if p["index"] == index)

    def brokers(self):
        return sorted(b["node_id"] for b in self.cluster.metadata(None)["brokers"])

    def reassign(self, topic, index, replicas):
        got = self.cluster.call(apis.ALTER_PARTITION_REASSIGNMENTS, 0, {
            "timeout_ms": 10000, "topics": [{"name": topic, "partitions": [{"index": index, "replicas": replicas}]}]})
        assert (got["error_code"], got["topics"][0]["partitions"][0]["error_code"]) == (0, 0), got

    def reassigning(self):
        return self.cluster.call(apis.LIST_PARTITION_REASSIGNMENTS, 0, {"timeout_ms": 10000, "topics": None})["topics"]

    def reassigned(self, topic, index, replicas):
        def done():
            p = self.partition(topic, index)
            return p["replicas"] == replicas and sorted(p["isr"]) == sorted(replicas) and p["leader_id"] in replicas
        self.cluster.wait(f"{topic}-{index} on {replicas}", done)
        assert self.reassigning() == []

    def configure(self, *changes):
        resources = {}
        for kind, name, key, value in changes:
            config = {"name": key, "operation": DELETE if value is None else SET, "value": value}
            resources.setdefault((kind, str(name)), []).append(config)
        got = self.cluster.call(apis.INCREMENTAL_ALTER_CONFIGS, 1, {"validate_only": False, "resources": [
            {"type": kind, "name": name, "configs": configs} for (kind, name), configs in resources.items()]})
        assert all(r["error_code"] == 0 for r in got["responses"]), got

    # The cases

    def first(self):
        self.cluster.wait("three brokers", lambda: self.brokers() == [256, 512, 768])
        for topic in ("kept", "moved"):
            self.cluster.create(topic, 2)
            for partition in range(2):
                self.write(topic, partition, 20)

    def stranger(self):
        secret = self.nodes.dir / "wrong"
        secret.write_text("another secret, which is long enough too\n")
        self.kept_out(self.nodes.joining(4, secret), b"secret")

    def other_mode(self):
        self.kept_out(self.nodes.joining(4, mode="direct"), b"with --mode direct")

    def kept_out(self, node, why):
        try:
            self.refused(node, why)
        finally:
            node.destroy()
        assert self.brokers() == [256, 512, 768]

    def refused(self, node, why):
        """It does not get ready, and says why."""
        node._log, node._from = open(node.log_path, "ab"), node.log_path.stat().st_size
        node.process = subprocess.Popen(node.command(), stdin=subprocess.DEVNULL, stdout=node._log, stderr=node._log, cwd=node.dir)
        deadline = time.monotonic() + REFUSED_S
        while why not in node.log_since_start():
            assert not node.is_ready(), "it is let in"
            assert time.monotonic() < deadline, f"nothing about {why}:\n{node.log_tail()}"
            time.sleep(0.1)
        time.sleep(1)
        assert not node.is_ready(), "it is let in"

    def join(self):
        node = self.nodes.joining(4)
        self.nodes.all.append(node)
        node.start()
        self.cluster.wait("four brokers", lambda: self.brokers() == [256, 512, 768, 1024])
        assert len(Cluster(node.bootstrap).metadata(None)["brokers"]) == 4

    def other_directory(self):
        node = self.nodes.all[3]
        node.stop()
        data, kept = node.dir / "data", node.dir / "kept"
        data.rename(kept)
        self.refused(node, b"not the one it is registered with")
        node.kill()
        shutil.rmtree(data)
        kept.rename(data)
        node.start()
        self.cluster.wait("four brokers", lambda: self.brokers() == [256, 512, 768, 1024])

    def move(self):
        self.reassign("moved", 0, [1024, 256, 512])
        self.reassigned("moved", 0, [1024, 256, 512])
        self.write("moved", 0, 20)

    def throttled(self):
        """2 MB at 500 KB/s: at least 2 s, as one second's worth may go at once and the last piece whole."""
        self.cluster.create("slow", 1, replication_factor=2)
        before = self.partition("slow")["replicas"]
        self.write("slow", 0, 20, 100_000)
        rate, limits = "500000", [(BROKER, b, f"{side}.replication.throttled.rate") for b in self.brokers() for side in ("leader", "follower")]
        self.configure(*((kind, b, key, rate) for kind, b, key in limits))
        lists = [(TOPIC, "slow", f"{side}.replication.throttled.replicas") for side in ("leader", "follower")]
        self.configure(*((kind, name, key, "*") for kind, name, key in lists))
        new = next(b for b in self.brokers() if b not in before)
        began = time.monotonic()
        self.reassign("slow", 0, [before[0], new])
        self.reassigned("slow", 0, [before[0], new])
        took = time.monotonic() - began
        assert took >= 2, f"2 MB at 500 KB/s in {took:.2f} s"
        self.configure(*((kind, name, key, None) for kind, name, key in limits + lists))

    def relocate(self):
        node = self.nodes.all[0]

        def where():
            with Connection("127.0.0.1", node.port) as c:
                got = c.call(apis.DESCRIBE_LOG_DIRS, 4, {"topics": [{"name": "kept", "partitions": [0]}]})
            here = {(p["is_future"], d["log_dir"]) for d in got["results"] for t in d["topics"] for p in t["partitions"]}
            return dict(here), [d["log_dir"] for d in got["results"]]
        held, all_dirs = where()
        to = next(d for d in all_dirs if d != held[False])
        replicas = self.partition("kept")["replicas"]
        with Connection("127.0.0.1", node.port) as c:
            got = c.call(apis.ALTER_REPLICA_LOG_DIRS, 2, {"dirs": [{"path": to, "topics": [{"name": "kept", "partitions": [0]}]}]})
        assert got["results"][0]["partitions"] == [{"index": 0, "error_code": 0}], got
        self.cluster.wait(f"kept-0 of node 1 in {to}", lambda: where()[0] == {False: to})
        self.write("kept", 0, 20)
        assert self.partition("kept")["replicas"] == replicas, "for clients it is where it was"

    def elect(self):
        home = self.partition("moved")["replicas"][0]
        got = self.cluster.call(apis.ELECT_LEADERS, 2, {"type": 0, "topics": [{"name": "moved", "partitions": [0]}], "timeout_ms": 10000})
        code = got["results"][0]["partitions"][0]["error_code"]
        assert (got["error_code"], code) in ((0, 0), (0, 84)), got
        self.cluster.wait(f"moved-0 led by {home}", lambda: self.partition("moved")["leader_id"] == home)

    def rack(self):
        p = self.partition("kept", 1)
        other = next(r for r in p["replicas"] if r != p["leader_id"])
        end = self.cluster.offset("kept", 1, LATEST)[2]
        request = {**fetch_request([("kept", 1, 0, 1 << 20)]), "rack_id": f"rack-{other // 256}"}

        def named():
            got = self.cluster.leader("kept", 1).call(apis.FETCH, 11, request)["topics"][0]["partitions"][0]
            return got["preferred_read_replica"] == other
        self.cluster.wait(f"the leader names {other}", named)
        follower = next(n for n in self.nodes.all if n.node_id == other // 256)

        def read():
            with Connection("127.0.0.1", follower.port) as c:
                got = c.call(apis.FETCH, 11, request)["topics"][0]["partitions"][0]
            assert got["error_code"] == 0, got
            return got["high_watermark"] >= end and sum(len(batch.records(b)) for b in batch.parse(got["records"])) == end
        self.cluster.wait("the follower gives all records", read)

    def quorum(self):
        got = self.cluster.call(apis.DESCRIBE_QUORUM, 2, {"topics": [{"name": "__cluster_metadata", "partitions": [{"index": 0}]}]})
        found = got["topics"][0]["partitions"][0]
        assert (got["error_code"], found["error_code"]) == (0, 0), got
        directories = {r["id"]: r["directory_id"] for r in found["voters"] + found["observers"]}
        return sorted(v["id"] for v in found["voters"]), sorted(o["id"] for o in found["observers"]), directories

    def voters(self):
        voters, observers, directories = self.quorum()
        assert (len(voters), len(observers)) == (3, 1), (voters, observers)
        joined = observers[0]
        cluster_id = self.cluster.call(apis.DESCRIBE_CLUSTER, 0, {"include_authorized_operations": False})["cluster_id"]
        host, _, port = self.nodes.all[3].address.rpartition(":")
        got = self.cluster.call(apis.ADD_RAFT_VOTER, 0, {
            "cluster_id": cluster_id, "timeout_ms": 10000, "voter_id": joined, "directory_id": directories[joined],
            "listeners": [{"name": "CONTROLLER", "host": host, "port": int(port)}]})
        assert got["error_code"] == 0, got
        self.cluster.wait("four voters", lambda: len(self.quorum()[0]) == 4)
        got = self.cluster.call(apis.REMOVE_RAFT_VOTER, 0, {
            "cluster_id": cluster_id, "voter_id": joined, "directory_id": directories[joined]})
        assert got["error_code"] == 0, got
        self.cluster.wait("three voters", lambda: self.quorum()[0] == voters)

    def leave(self):
        node = self.nodes.all[3]
        for topic in self.cluster.metadata(None)["topics"]:
            for p in topic["partitions"]:
                if 1024 in p["replicas"]:
                    free = next(b for b in (256, 512, 768) if b not in p["replicas"])
                    to = [free if r == 1024 else r for r in p["replicas"]]
                    self.reassign(topic["name"], p["index"], to)
                    self.reassigned(topic["name"], p["index"], to)
        node.stop()
        self.nodes.all.remove(node)
        node.destroy()

        def forgotten():
            return self.cluster.call(apis.UNREGISTER_BROKER, 0, {"broker_id": 1024})["error_code"] in (0, 102)
        self.cluster.wait("node 4 unregistered", forgotten)
        self.cluster.wait("three brokers", lambda: self.brokers() == [256, 512, 768])

    def replace(self):
        self.nodes.next_port += 8
        node = self.nodes.joining(4)
        self.nodes.all.append(node)
        node.start()
        self.cluster.wait("four brokers", lambda: self.brokers() == [256, 512, 768, 1024])
        self.reassign("kept", 1, [1024, 512, 768])
        self.reassigned("kept", 1, [1024, 512, 768])
        self.write("kept", 1, 20)

    def restart(self):
        self.nodes.stop()
        self.nodes.start()
        self.cluster.wait("four brokers", lambda: self.brokers() == [256, 512, 768, 1024])
        assert self.cluster.offset("kept", 1, EARLIEST)[2] == 0
        self.write("kept", 1, 20)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--keep", action="store_true", help="keep data and logs")
    p.add_argument("-v", "--verbose", action="store_true")
    args = p.parse_args()
    finish(Results(args.verbose), lambda results: Test(args, results), "cluster, administered")


if __name__ == "__main__":
    main()
