"""What was acknowledged, and whether a client reads just that: sample records, the ledger, the comparison.

The ledger knows the whole content of every partition that the tests write, so a lost, doubled, reordered or changed record
is seen. It never learns from what is read back, but for timestamps that a client (kcat) does not let us choose.
"""
import base64
import random
import time

WORDS = "the quick brown fox jumps over the lazy dog ".split()


def b64(data):
    return None if data is None else base64.b64encode(data).decode()


def now_ms():
    return int(time.time() * 1000)


def sample(count, partitions, caps, seed, size=300):
    """`count` records over `partitions`: null and empty keys and values, binary, several headers, compressible text."""
    rnd = random.Random(seed)
    base = now_ms() - 3_600_000
    out = []
    for i in range(count):
        value = (" ".join(rnd.choices(WORDS, k=size // 5)) + f" #{i}").encode()
        key = f"key-{i}-ü".encode()
        if caps["binary"] and i % 4 == 1:
            value, key = bytes(rnd.choices(range(256), k=40)) * (size // 40 + 1), bytes([0, 255, i])
        if i % 5 == 2:
            key = None
        if i % 7 == 3 and key is not None:
            value = None
        if caps["binary"] and i % 9 == 4:
            value = b""
        out.append({"p": i % partitions, "ts": base + i * 10 if caps["timestamps"] else None, "k": b64(key), "v": b64(value),
                    "h": headers(i if caps["headers_per_record"] else 1, caps)})
    return out


def headers(i, caps):
    out = [["trace-id", b64(f"{i:08x}".encode())], ["ctype", b64(b"text/plain")]]
    if caps["null_headers"]:
        out.append(["nothing", None])
    if caps["binary"]:
        out.append(["bin", b64(bytes([0, 1, 254, 255]))])
    return [] if i % 6 == 5 else out


def big(count, size, caps, seed):
    """`count` records of `size` bytes each that no codec makes smaller (kcat: letters only), in partition 0."""
    rnd = random.Random(seed)
    letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
    out = []
    for i in range(count):
        data = rnd.randbytes(size)
        value = data if caps["binary"] else bytes(letters[x & 63] for x in data)
        out.append({"p": 0, "ts": now_ms() - 60_000 + i if caps["timestamps"] else None, "k": b64(f"{i}".encode()), "v": b64(value),
                    "h": []})
    return out


class Ledger:
    """(topic, partition) → the records, in the order of their offsets from 0."""

    def __init__(self):
        self.logs = {}

    def add(self, topic, records, offsets):
        """Acknowledged records. Offsets must be the next ones of their partition: anything else is a lost or doubled record."""
        for r, offset in zip(records, offsets, strict=True):
            log = self.logs.setdefault((topic, r["p"]), [])
            if offset != len(log):
                raise AssertionError(f"{topic}-{r['p']}: acknowledged at offset {offset}, expected {len(log)}")
            log.append(r)

    def add_in_order(self, topic, records):
        """Records whose offsets the client does not tell: appended in the order they were sent."""
        for r in records:
            self.logs.setdefault((topic, r["p"]), []).append(r)

    def length(self, topic, p):
        return len(self.logs.get((topic, p), []))

    def topics(self):
        return sorted({t for t, _ in self.logs})

    def partitions(self, topic):
        return sorted(p for t, p in self.logs if t == topic)

    def check(self, topic, p, got, start=0):
        """`got` must be the partition's records from `start` to its end."""
        log = self.logs[topic, p]
        where = f"{topic}-{p}"
        offsets = [r["o"] for r in got]
        wanted = list(range(start, len(log)))
        if offsets != wanted:
            raise AssertionError(f"{where}: read offsets {brief(offsets)}, expected {brief(wanted)}")
        for r in got:
            self._check_one(where, log[r["o"]], r)

    @staticmethod
    def _check_one(where, want, got):
        at = f"{where} offset {got['o']}"
        for name, label in (("k", "key"), ("v", "value")):
            if want[name] != got[name]:
                raise AssertionError(f"{at}: {label} {brief(got[name])}, expected {brief(want[name])}")
        if want["ts"] is None:
            want["ts"] = got["ts"]  # chosen by the client at send time; from now on it must stay
            if abs(now_ms() - got["ts"]) > 3_600_000:
                raise AssertionError(f"{at}: timestamp {got['ts']} is not a send time")
        elif want["ts"] != got["ts"]:
            raise AssertionError(f"{at}: timestamp {got['ts']}, expected {want['ts']}")
        if "hs" in got:  # kcat prints headers as one text, each value up to its first NUL
            text = b",".join(n.encode() + b"=" + (b"NULL" if v is None else base64.b64decode(v).split(b"\0")[0]) for n, v in want["h"])
            if base64.b64decode(got["hs"]) != text:
                raise AssertionError(f"{at}: headers {base64.b64decode(got['hs'])!r}, expected {text!r}")
        elif sorted(want["h"], key=str) != sorted(got["h"], key=str) or [h[0] for h in want["h"]] != [h[0] for h in got["h"]]:
            raise AssertionError(f"{at}: headers {got['h']}, expected {want['h']}")


def brief(x):
    text = str(x)
    return text if len(text) < 200 else f"{text[:120]}…({len(text)} characters)"
