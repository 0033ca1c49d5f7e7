"""A thin client over wire.py: finds the leader of a partition, produces, fetches, lists offsets. For tests; retries only the
finding of a leader, and raises on everything that the caller did not ask about."""
import struct
import time

from . import apis, batch
from .wire import Connection

LATEST, EARLIEST, MAX_TIMESTAMP, EARLIEST_LOCAL, LATEST_TIERED = -1, -2, -3, -4, -5


class Cluster:
    def __init__(self, bootstrap):
        host, _, port = bootstrap.rpartition(":")
        self.host, self.port = host, int(port)
        self.open = []

    def connect(self, timeout_s=10.0):
        """A new connection to the bootstrap address; closed by close_all."""
        return self._track(Connection(self.host, self.port, timeout_s))

    def _track(self, connection):
        self.open.append(connection)
        return connection

    def close_all(self):
        for c in self.open:
            c.close()
        self.open = []

    def call(self, api, version, values, **more):
        with Connection(self.host, self.port) as c:
            return c.call(api, version, values, **more)

    def metadata(self, topics, version=8, auto_create=False):
        names = None if topics is None else [{"topic_id": bytes(16), "name": t} for t in topics]
        return self.call(apis.METADATA, version, {
            "topics": names, "allow_auto_topic_creation": auto_create, "include_cluster_authorized_operations": False,
            "include_topic_authorized_operations": False})

    def address(self, topic, partition, wait_s=10.0):
        """(host, port) of the partition's leader, as the metadata says."""
        deadline = time.monotonic() + wait_s
        while True:
            got = self.metadata([topic])
            for p in got["topics"][0]["partitions"] or []:
                if p["index"] == partition and p["leader_id"] >= 0:
                    node = next(b for b in got["brokers"] if b["node_id"] == p["leader_id"])
                    return node["host"], node["port"]
            if time.monotonic() > deadline:
                raise RuntimeError(f"no leader for {topic}-{partition}: {got['topics']}")
            time.sleep(0.1)

    def leader(self, topic, partition=0, timeout_s=10.0):
        """A new connection to the leader. Begins with ApiVersions, as every client does: a broker may take no large frame
        before it has seen a valid request."""
        c = self._track(Connection(*self.address(topic, partition), timeout_s))
        c.call(apis.API_VERSIONS, 0, {})
        return c

    def create(self, name, partitions=1, configs=None, check=True, version=5, validate_only=False, replication_factor=-1):
        got = self.call(apis.CREATE_TOPICS, version, {
            "topics": [{"name": name, "num_partitions": partitions, "replication_factor": replication_factor, "assignments": [],
                        "configs": [{"name": k, "value": v} for k, v in (configs or {}).items()]}],
            "timeout_ms": 10000, "validate_only": validate_only})["topics"][0]
        if check and got["error_code"]:
            raise RuntimeError(f"create {name}: {got}")
        return got

    def offset(self, topic, partition, timestamp, version=7):
        """(error, timestamp, offset) of ListOffsets."""
        c = self.leader(topic, partition)
        got = c.call(apis.LIST_OFFSETS, version, list_offsets(topic, partition, timestamp))["topics"][0]["partitions"][0]
        c.close()
        return got["error_code"], got["timestamp"], got["offset"]

    def fetch_batches(self, topic, partition):
        """Every batch of a partition from its first offset to its end."""
        c, at, out = self.leader(topic, partition), None, []
        got = c.call(apis.LIST_OFFSETS, 2, list_offsets(topic, partition, EARLIEST))["topics"][0]["partitions"][0]
        at = got["offset"]
        while True:
            part = fetch_one(c, topic, partition, at, max_wait_ms=0, partition_max_bytes=1 << 22)
            if part["error_code"]:
                raise RuntimeError(f"fetch {topic}-{partition}: {part['error_code']}")
            if at >= part["high_watermark"]:
                c.close()
                return out
            found = batch.parse(part["records"])
            if not found:
                raise RuntimeError(f"fetch {topic}-{partition} at {at} gives nothing below {part['high_watermark']}")
            out += found
            at = found[-1].last_offset + 1


def list_offsets(topic, partition, timestamp, epoch=-1, isolation=0):
    return {"replica_id": -1, "isolation_level": isolation, "timeout_ms": 5000, "topics": [
        {"name": topic, "partitions": [{"index": partition, "current_leader_epoch": epoch, "timestamp": timestamp}]}]}


def produce_request(topic, partition, data, acks=-1, timeout_ms=5000):
    return {"transactional_id": None, "acks": acks, "timeout_ms": timeout_ms,
            "topics": [{"name": topic, "topic_id": bytes(16), "partitions": [{"index": partition, "records": data}]}]}


def produce(connection, topic, partition, data, acks=-1, version=8):
    """The partition's answer."""
    return connection.call(apis.PRODUCE, version, produce_request(topic, partition, data, acks))["topics"][0]["partitions"][0]


def fetch_request(parts, max_wait_ms=0, min_bytes=1, max_bytes=1 << 26, session_id=0, session_epoch=-1, forgotten=()):
    """`parts`: (topic, partition, offset, partition_max_bytes)…"""
    by_topic = {}
    for topic, partition, offset, limit in parts:
        by_topic.setdefault(topic, []).append({
            "index": partition, "current_leader_epoch": -1, "fetch_offset": offset, "last_fetched_epoch": -1,
            "log_start_offset": -1, "partition_max_bytes": limit})
    return {"replica_id": -1, "max_wait_ms": max_wait_ms, "min_bytes": min_bytes, "max_bytes": max_bytes, "isolation_level": 0,
            "session_id": session_id, "session_epoch": session_epoch,
            "topics": [{"name": t, "topic_id": bytes(16), "partitions": p} for t, p in by_topic.items()],
            "forgotten": [{"name": t, "topic_id": bytes(16), "partitions": p} for t, p in forgotten], "rack_id": ""}


def fetch_one(connection, topic, partition, offset, version=11, partition_max_bytes=1 << 20, **more):
    got = connection.call(apis.FETCH, version, fetch_request([(topic, partition, offset, partition_max_bytes)], **more))
    return got["topics"][0]["partitions"][0]


def raw_frame(key, version, correlation, client_id=b"raw", body=b""):
    """A frame built without any schema."""
    name = struct.pack(">h", -1) if client_id is None else struct.pack(">h", len(client_id)) + client_id
    payload = struct.pack(">hhi", key, version, correlation) + name + body
    return struct.pack(">i", len(payload)) + payload
