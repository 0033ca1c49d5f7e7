"""Debian's kcat (librdkafka 2.0.2), one process per command, behind the runner's commands.

kcat sets no timestamps, reads messages as text lines, and gives all messages of one run the same headers: the runner knows
that from `caps`. It has no admin commands.
"""
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from pydriver import ClientError, Skip, b64, serve, unb64  # noqa: E402

NAMES = {"Message size too large": 10, "Unknown topic or partition": 3}


class Driver:
    def __init__(self, bootstrap):
        self.bootstrap, self.position = bootstrap, {}

    def hello(self):
        text = subprocess.run(["kcat", "-V"], capture_output=True, text=True).stdout
        return {"client": "kcat", "version": " ".join(re.findall(r"(?:Version|librdkafka) [\d.]+", text)),
                "caps": {"timestamps": False, "binary": False, "headers_per_record": False, "offsets": False}}

    def run(self, *args, data=None, timeout_s=40):
        done = subprocess.run(["kcat", "-b", self.bootstrap, *args], input=data, capture_output=True, timeout=timeout_s)
        if done.returncode:
            words = done.stderr.decode(errors="replace")
            raise ClientError(next((c for n, c in NAMES.items() if n in words), -1), words[-300:])
        return done

    def produce(self, topic, records, codec="none", acks=-1, idempotent=False, batch_bytes=65536, max_request=1000000, delivery_ms=30000):
        settings = {"acks": acks, "enable.idempotence": str(idempotent).lower(), "batch.size": batch_bytes, "linger.ms": 100,
                    "message.max.bytes": max_request, "delivery.timeout.ms": delivery_ms, "batch.num.messages": 1000000}
        args = ["-z", codec, "-K", "\x01", "-Z"] + [x for k, v in settings.items() for x in ("-X", f"{k}={v}")]
        for p in sorted({r["p"] for r in records}):
            mine = [r for r in records if r["p"] == p]
            headers = [x for n, v in mine[0]["h"] for x in ("-H", f"{n}={unb64(v).decode()}" if v is not None else n)]
            lines = b"\x02".join((unb64(r["k"]) or b"") + b"\x01" + (unb64(r["v"]) or b"") for r in mine)
            self.run("-P", "-t", topic, "-p", str(p), "-D", "\x02", *args, *headers, data=lines)
        return {"offsets": [None] * len(records)}

    def consume(self, topic, p, at, count, timeout_ms, value=None):
        if at == "latest":
            self.position[topic, p] = self.offsets(topic, p)["latest"]
            if count == 0:
                return {"records": [], "position": self.position[topic, p]}
        start = {"earliest": "beginning", "latest": "end", "offset": str(value), "timestamp": f"s@{value}",
                 "continue": str(self.position.get((topic, p)))}[at]
        done = self.run("-C", "-q", "-t", topic, "-p", str(p), "-o", start, "-c", str(count), "-e", "-X", "check.crcs=true",
                        "-X", "fetch.wait.max.ms=100", "-f", "%o|%T|%K|%S|%h\n%k%s\n", timeout_s=timeout_ms / 1000 + 10)
        out = list(parse(done.stdout))
        if out:
            self.position[topic, p] = out[-1]["o"] + 1
        return {"records": out, "position": self.position.get((topic, p), -1)}

    def offsets(self, topic, p):
        return {"earliest": self.query(topic, p, -2), "latest": self.query(topic, p, -1)}

    def time(self, topic, p, ts):
        return {"offset": self.query(topic, p, ts)}

    def query(self, topic, p, ts):
        text = self.run("-Q", "-t", f"{topic}:{p}:{ts}").stdout.decode()
        return int(re.search(r"offset (-?\d+)", text).group(1))

    def create(self, topic, partitions=0, configs=None):
        raise Skip("kcat has no admin commands")

    configs = delete = create

    def metadata(self, topic):
        text = self.run("-L", "-t", topic).stdout.decode()
        brokers = [[int(i), h, int(p)] for i, h, p in re.findall(r"broker (\d+) at ([^:\s]+):(\d+)", text)]
        return {"brokers": brokers, "partitions": len(re.findall(r"partition \d+, leader \d+", text))}


def parse(data):
    """kcat's output in our -f format: a head line with lengths, then key and value. Headers come as text, `hs`."""
    at = 0
    while at < len(data):
        end = data.index(b"|", data.index(b"|", data.index(b"|", data.index(b"|", at) + 1) + 1) + 1)
        offset, ts, klen, vlen = (int(x) for x in data[at:end].split(b"|"))
        rest = end + 1
        line = data.index(b"\n", rest)
        key_at = line + 1
        value_at = key_at + max(klen, 0)
        yield {"o": offset, "ts": ts, "k": b64(data[key_at:value_at]) if klen >= 0 else None,
               "v": b64(data[value_at:value_at + vlen]) if vlen >= 0 else None, "hs": b64(data[rest:line])}
        at = value_at + max(vlen, 0) + 1


serve(Driver(sys.argv[1]))
