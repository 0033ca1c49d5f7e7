"""Brokers under test: start, wait until they serve, stop, kill, restart. Standard library only.

Knows Pelton (a process of ours), Apache Kafka (kafka-oracle.sh) and a broker somebody else runs (HOST:PORT). It ends only
processes that it started itself, by their pid, and never leaves one running.
"""
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = HERE.parent / ".cache"
START_TIMEOUT_S, STOP_TIMEOUT_S = 90, 30
DEFAULT_PORTS = (19000, 19500)


class BrokerFailed(Exception):
    """The broker did not start, or did not stop as it must; the message holds the end of its log."""


def port_range():
    """Ports to use, from PELTON_TEST_PORTS=FROM-TO (TO not included); below the ports that Linux gives to outgoing connections."""
    low, _, high = os.environ.get("PELTON_TEST_PORTS", "").partition("-")
    return (int(low), int(high)) if low and high else DEFAULT_PORTS


_next_port = None


def free_ports(count):
    """The first of `count` adjacent loopback ports that are free now; walks through the range so that no port is soon reused."""
    global _next_port
    low, high = port_range()
    for _ in range(high - low):
        if _next_port is None or _next_port + count > high:
            _next_port = low
        first, _next_port = _next_port, _next_port + count
        if all(_is_free(first + i) for i in range(count)):
            return first
    raise BrokerFailed(f"no {count} adjacent free ports in {low}-{high}; set PELTON_TEST_PORTS=FROM-TO")


def _is_free(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def temp_dir(name):
    """A folder for one run. PELTON_TEST_TMP names its parent; a broker with direct I/O wants a real disk, not tmpfs."""
    parent = pathlib.Path(os.environ.get("PELTON_TEST_TMP", CACHE / "run"))
    parent.mkdir(parents=True, exist_ok=True)
    return pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))


class Broker:
    """What all brokers can do. `bootstrap` stays the same over restarts."""

    name = "broker"
    owned = True

    def __init__(self, mode):
        self.mode, self.process, self.log_path, self.dir = mode, None, None, None

    def command(self):
        raise NotImplementedError

    def is_ready(self):
        raise NotImplementedError

    def start(self):
        """Start and wait until it serves. A start that fails raises with the broker's own words."""
        self._log = open(self.log_path, "ab")
        self._from = self.log_path.stat().st_size
        began = time.monotonic()
        self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, cwd=self.dir)
        while not self.is_ready():
            if self.process.poll() is not None:
                raise BrokerFailed(f"{self.name} ended with {self.process.returncode} before it was ready:\n{self.log_tail()}")
            if time.monotonic() - began > START_TIMEOUT_S:
                self.kill()
                raise BrokerFailed(f"{self.name} was not ready in {START_TIMEOUT_S} s:\n{self.log_tail()}")
            time.sleep(0.05)
        return time.monotonic() - began

    def stop(self):
        """SIGTERM, and wait. Exit code 0 (Kafka: 143 counts too) or it raises."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BrokerFailed(f"{self.name} did not stop within {STOP_TIMEOUT_S} s of SIGTERM:\n{self.log_tail()}") from None
        self._closed()
        if code not in self.good_exits:
            raise BrokerFailed(f"{self.name} ended with {code} on SIGTERM:\n{self.log_tail()}")

    good_exits = (0,)

    def kill(self):
        """kill -9."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._closed()

    def _closed(self):
        self.process = None
        self._log.close()

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def log_since_start(self):
        with open(self.log_path, "rb") as f:
            f.seek(self._from)
            return f.read()

    def log_tail(self, lines=25):
        if not self.log_path:
            return ""
        with open(self.log_path, "rb") as f:
            return "\n".join(f.read().decode(errors="replace").splitlines()[-lines:])

    def destroy(self, keep=False):
        """End it if it still runs; drop its data unless asked to keep it."""
        if self.process:
            self.kill()
        if self.dir and not keep:
            shutil.rmtree(self.dir, ignore_errors=True)


class Pelton(Broker):
    name = "pelton"

    def __init__(self, mode, shards=2, binary=None, settings=(), node_id=1):
        super().__init__(mode)
        self.shards, self.settings, self.node_id = shards, dict(settings), node_id
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        self.binary = pathlib.Path(binary or os.environ.get("PELTON_BIN") or target / "release" / "pelton")
        if not self.binary.exists():
            raise BrokerFailed(f"{self.binary} is missing: cargo build --release, or set PELTON_BIN")
        self.dir = temp_dir("pelton")
        self.log_path = self.dir / "broker.log"
        self.log_path.touch()
        self.port = free_ports(8)
        self.bootstrap = f"127.0.0.1:{self.port}"

    def command(self):
        out = [str(self.binary), "start", "--data-dir", str(self.dir / "data"), "--kafka", self.bootstrap,
               "--admin", f"127.0.0.1:{self.port + 7}", "--shards", str(self.shards), "--mode", self.mode, "--node-id", str(self.node_id)]
        for key, value in self.settings.items():
            out += ["-X", f"{key}={value}"]
        return out

    def is_ready(self):
        return re.search(rb"(?<!not )\bready\b", self.log_since_start()) is not None


class Kafka(Broker):
    name = "kafka"
    good_exits = (0, 143)

    def __init__(self, mode, settings=()):
        super().__init__(mode)
        self.settings = dict(settings)
        self.dir = temp_dir("kafka")
        self.log_path = self.dir / "broker.log"
        self.log_path.touch()
        self.port = free_ports(2)
        self.bootstrap = f"127.0.0.1:{self.port}"

    def command(self):
        out = [str(HERE / "kafka-oracle.sh"), "start", "--port", str(self.port), "--dir", str(self.dir / "data")]
        for key, value in self.settings.items():
            out += ["-X", f"{key}={value}"]
        return out

    def is_ready(self):
        return serves(self.bootstrap)


class Remote(Broker):
    """A broker that somebody else runs: never stopped, never restarted."""

    name = "remote"
    owned = False

    def __init__(self, address):
        super().__init__("remote")
        self.bootstrap = address

    def start(self):
        if not serves(self.bootstrap):
            raise BrokerFailed(f"nothing answers Kafka's protocol at {self.bootstrap}")
        return 0.0

    def alive(self):
        return serves(self.bootstrap)

    def destroy(self, keep=False):
        pass


def serves(bootstrap):
    """Whether a broker with itself in the metadata answers there."""
    from protocol.client import Cluster
    try:
        got = Cluster(bootstrap).metadata([])
        return bool(got["brokers"])
    except Exception:  # not up yet: any failure means no
        return False


# Members that die are noticed in seconds.
SETTINGS = {"group.consumer.min.session.timeout.ms": 1000, "group.consumer.session.timeout.ms": 6000,
            "group.consumer.min.heartbeat.interval.ms": 500, "group.consumer.heartbeat.interval.ms": 1000,
            "group.initial.rebalance.delay.ms": 500}


def make(which, mode, shards=2):
    if which == "pelton":
        return Pelton(mode, shards, settings=SETTINGS)
    if which == "kafka":
        return Kafka(mode, SETTINGS)
    return Remote(which)
