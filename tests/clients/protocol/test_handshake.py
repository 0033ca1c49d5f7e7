"""ApiVersions: what a client meets first. Rules: ux.md §5.2 #1–#6, #9; kafka ApiVersionsRequest.java."""
import struct

from . import apis
from .client import raw_frame
from .suite import equal, test
from .wire import Reader

UNSUPPORTED_VERSION, INVALID_REQUEST = 35, 42
NAMED = {"software_name": "raw", "software_version": "1"}


def ranges(answer):
    return {a["key"]: (a["min"], a["max"]) for a in answer["apis"]}


@test
def every_version_answers_the_same_apis(env):
    c, first = env.connect(), None
    for version in range(5):
        got = c.call(apis.API_VERSIONS, version, NAMED)
        equal(got["error_code"], 0, f"v{version}")
        first = first or ranges(got)
        equal(ranges(got), first, f"v{version}")
    assert first[18][0] == 0 and first[18][1] >= 4, first[18]


@test
def unknown_version_gets_v0_body_with_the_range(env):
    c = env.connect()
    for version in (99, 32767, 5 if env.kind == "pelton" else 99):
        c.raw(raw_frame(18, version, 7, body=b"\0\x04raw\x02\x31\0"))
        r = Reader(c.read_frame())
        equal((r.fixed("i32"), r.fixed("i16")), (7, UNSUPPORTED_VERSION), "correlation id, error")
        found = {}
        for _ in range(r.fixed("i32")):
            key = r.fixed("i16")
            found[key] = (r.fixed("i16"), r.fixed("i16"))
        equal(r.at, len(r.data), "body is exactly v0")
        assert found.get(18, (1, 0))[0] == 0, found
    equal(c.call(apis.API_VERSIONS, 0, {})["error_code"], 0, "the connection goes on")


@test
def produce_is_advertised_from_0(env):
    got = ranges(env.connect().call(apis.API_VERSIONS, 3, NAMED))
    equal(got[0][0], 0, "librdkafka before 2.8 silently drops compression otherwise")
    assert got[0][1] >= 9 and got[1][0] <= 4 and got[1][1] >= 12, got


@test
def floors_of_old_clients_are_served(env):
    """Ranges must hold what KafkaJS 2.2, librdkafka 2.0 and Java 4 use (features.md §1b)."""
    got = ranges(env.connect().call(apis.API_VERSIONS, 0, {}))
    for key, versions in {0: (3, 7), 1: (4, 11), 2: (1, 5), 3: (0, 12), 18: (0, 3), 19: (2, 7), 20: (1, 6), 22: (0, 4), 23: (2, 4),
                          32: (1, 4), 37: (0, 3), 44: (0, 1)}.items():
        assert key in got and got[key][0] <= versions[0] and got[key][1] >= versions[1], f"api {key}: {got.get(key)} lacks {versions}"


@test(only="pelton")
def share_groups_and_telemetry_are_not_advertised_yet(env):
    got = ranges(env.connect().call(apis.API_VERSIONS, 3, NAMED))
    equal(sorted(set(got) & {71, 72, 76, 77}), [], "keys that break clients when half done")


@test
def bad_software_name_is_an_invalid_request(env):
    for name in ("", "-raw", "raw!", "ra w"):
        got = env.connect().call(apis.API_VERSIONS, 3, {"software_name": name, "software_version": "1"})
        equal(got["error_code"], INVALID_REQUEST, repr(name))


@test
def zero_minimum_features_are_hidden_below_v4(env):
    """KAFKA-17492: a range starting at 0 crashes older Java clients."""
    got = env.connect().call(apis.API_VERSIONS, 3, NAMED)
    raw = got.get("_tags", {}).get(0)
    if raw:
        r = Reader(raw)
        for _ in range(r.uvarint() - 1):
            name, low, high = r.take(r.uvarint() - 1), r.fixed("i16"), r.fixed("i16")
            r.tags()
            assert low > 0, f"{name}: {low}-{high}"


@test
def metadata_version_is_finalized(env):
    tags = env.connect().call(apis.API_VERSIONS, 3, NAMED).get("_tags", {})
    assert 2 in tags, f"no finalized features: {sorted(tags)}"
    r, names = Reader(tags[2]), {}
    for _ in range(r.uvarint() - 1):
        name = r.take(r.uvarint() - 1).decode()
        names[name] = (r.fixed("i16"), r.fixed("i16"))
        r.tags()
    assert "metadata.version" in names, names
    if env.kind == "pelton":
        assert names.get("transaction.version", (0, 0))[0] < 2, names
    equal(struct.unpack(">q", tags[1])[0] >= 0, True, "finalized_features_epoch")


@test
def null_client_id_is_accepted(env):
    equal(env.connect().call(apis.API_VERSIONS, 3, NAMED, client_id=None)["error_code"], 0)
    equal(env.connect().call(apis.METADATA, 8, {"topics": [], "allow_auto_topic_creation": False,
                                                "include_cluster_authorized_operations": False,
                                                "include_topic_authorized_operations": False}, client_id=None)["topics"], [])
