"""Bad input: the broker closes that connection or answers an error, and serves everybody else."""
import struct
import time

from . import apis, batch
from .client import LATEST, fetch_request, list_offsets, produce, produce_request, raw_frame
from .suite import equal, test
from .wire import Closed, encode


def still_serves(env):
    assert env.cluster.metadata(None)["brokers"], "no brokers in the metadata"


def must_close(env, data, what, wait_s=5.0):
    c = env.connect()
    try:
        c.raw(data)
        closed = c.closes(wait_s)
    except Closed:
        closed = True
    assert closed, f"{what}: the connection is not closed"
    still_serves(env)


@test
def unknown_api_key_closes(env):
    must_close(env, raw_frame(4711, 0, 1), "api key 4711")


@test
def negative_api_key_closes(env):
    must_close(env, raw_frame(-1, 0, 1), "api key -1")


@test
def unsupported_version_of_another_api_closes(env):
    must_close(env, raw_frame(3, 99, 1, body=b"\0"), "Metadata v99")


@test
def negative_frame_size_closes(env):
    must_close(env, struct.pack(">i", -1), "size -1")
    must_close(env, struct.pack(">i", -(1 << 31)), "size i32::MIN")


@test
def oversize_frame_closes(env):
    """Above socket.request.max.bytes (100 MiB); no such buffer may be taken either."""
    must_close(env, struct.pack(">i", (1 << 31) - 1) + b"x" * 100, "size i32::MAX")
    must_close(env, struct.pack(">i", 104857600 + 1), "size 100 MiB + 1")


@test
def too_short_frame_closes(env):
    must_close(env, struct.pack(">i", 0), "size 0")
    must_close(env, struct.pack(">i", 4) + b"\0\x03\0\x08", "size 4")


@test
def http_on_the_port_closes(env):
    """The four letters are a size of 1.2 GB."""
    must_close(env, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP")


@test
def tls_hello_on_a_plain_port_closes(env):
    must_close(env, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(512), "TLS hello")


@test
def garbage_body_closes(env):
    for key, version in ((0, 8), (1, 11), (2, 5), (3, 8), (3, 12), (19, 5), (32, 4), (22, 4)):
        must_close(env, raw_frame(key, version, 1, body=b"\x7e\xad\xbe\xef" * 20), f"garbage for api {key} v{version}")


@test
def huge_array_count_closes(env):
    must_close(env, raw_frame(3, 8, 1, body=struct.pack(">i", (1 << 31) - 1)), "2^31-1 topics")
    must_close(env, raw_frame(1, 11, 1, body=struct.pack(">iiiibii", -1, 0, 0, 1, 0, 0, -1) + struct.pack(">i", 1 << 30)), "2^30 topics")
    must_close(env, raw_frame(3, 12, 1, body=b"\0\xff\xff\xff\xff\x0f"), "2^32-1 topics, compact")


@test
def truncated_body_closes(env):
    body = encode(apis.FETCH.request, fetch_request([("t", 0, 0, 100)]), 11, False)
    for cut in (1, 5, len(body) // 2, len(body) - 3):
        must_close(env, raw_frame(1, 11, 1, body=body[:cut]), f"Fetch cut to {cut} bytes")


@test
def bytes_behind_a_metadata_request_are_ignored(env):
    """librdkafka 2.15 asks for the metadata of all topics with a count of four zero bytes where one is meant: three too many follow."""
    for version in (9, 12, 13):
        c = env.connect()
        c.raw(raw_frame(3, version, 7, body=b"\0" + b"\0\0\0\0" + b"\1\0\0"))
        equal(c.read_frame()[:4], b"\0\0\0\7", f"Metadata v{version}")


@test
def half_a_request_then_silence_harms_nobody(env):
    slow = env.connect()
    whole = raw_frame(18, 0, 5)
    slow.raw(whole[:7])
    began = time.monotonic()
    still_serves(env)
    assert time.monotonic() - began < 2, "others wait for a half request"
    slow.raw(whole[7:])
    slow.read_frame()


@test
def a_request_byte_by_byte_is_served(env):
    c = env.connect()
    for byte in raw_frame(18, 0, 5):
        c.raw(bytes([byte]))
    equal(c.read_frame()[:6], b"\0\0\0\x05\0\0", "correlation id and no error")


@test
def client_gone_in_mid_request(env):
    for _ in range(20):
        c = env.connect()
        c.raw(struct.pack(">i", 1000) + b"x" * 500)
        c.close()
    still_serves(env)


@test
def pipelined_requests_are_answered_in_order(env):
    """Different kinds, one of them a fetch that waits."""
    topic = env.topic()
    c = env.leader(topic)
    sent = []
    for i in range(20):
        sent.append((apis.API_VERSIONS, 0, c.send(apis.API_VERSIONS, 0, {})))
        data = batch.build([batch.Record(f"{i}".encode())])
        sent.append((apis.PRODUCE, 8, c.send(apis.PRODUCE, 8, produce_request(topic, 0, data))))
        wait = 300 if i == 3 else 0
        sent.append((apis.FETCH, 11, c.send(apis.FETCH, 11, fetch_request([(topic, 0, i + 1, 1000)], max_wait_ms=wait))))
        sent.append((apis.LIST_OFFSETS, 5, c.send(apis.LIST_OFFSETS, 5, list_offsets(topic, 0, LATEST))))
    ends = []
    for api, version, correlation in sent:
        got = c.receive(api, version, correlation)  # raises when out of order
        if api is apis.PRODUCE:
            ends.append(got["topics"][0]["partitions"][0]["base_offset"])
    equal(ends, list(range(20)), "offsets of pipelined produces")


@test
def pipelined_in_one_packet(env):
    c = env.connect()
    c.raw(b"".join(raw_frame(18, 0, i) for i in range(100)))
    for i in range(100):
        equal(struct.unpack(">i", c.read_frame()[:4])[0], i, "order")


@test
def client_that_never_reads_blocks_only_itself(env):
    topic = env.topic()
    c = env.leader(topic)
    data = batch.build([batch.Record(b"x" * 200_000)])
    produce(c, topic, 0, data)
    lazy = env.leader(topic, timeout_s=0.5)
    try:
        for _ in range(300):
            lazy.send(apis.FETCH, 11, fetch_request([(topic, 0, 0, 1 << 20)]))
    except (OSError, Closed):
        pass
    began = time.monotonic()
    for _ in range(20):
        assert produce(env.leader(topic), topic, 0, batch.build([batch.Record(b"y")]))["error_code"] == 0
    assert time.monotonic() - began < 5, "others wait for a client that does not read"


@test
def many_connections_open_and_close(env):
    for _ in range(10):
        some = [env.connect() for _ in range(30)]
        for c in some:
            c.send(apis.API_VERSIONS, 0, {})
        for c in some[::2]:
            c.read_frame()
        for c in some:
            c.close()
    still_serves(env)
