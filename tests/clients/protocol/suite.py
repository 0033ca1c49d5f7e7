"""Collects the raw protocol tests. A test is a function (env) marked with @test; it raises when the broker is wrong."""
import importlib
import itertools

from .client import Cluster

_registered = []
_names = itertools.count(1)
MODULES = ["handshake", "frames", "produce", "compression", "idempotence", "fetch", "sessions", "offsets", "topics", "configs", "groups", "consumer_groups", "modes",
           "upkeep", "unreadable", "admin"]


def test(function=None, *, only=None):
    """Register a test. only="pelton": Kafka behaves differently by choice, so the oracle does not run it."""
    def mark(f):
        _registered.append((f"{f.__module__.rpartition('.')[2]}.{f.__name__}", f, only))
        return f
    return mark(function) if function else mark


class Env:
    """What one test gets: the broker, helpers, names nobody else uses."""

    def __init__(self, broker):
        self.broker, self.kind = broker, broker.name
        self.cluster = Cluster(broker.bootstrap)
        self.connect, self.leader, self.create = self.cluster.connect, self.cluster.leader, self.cluster.create

    def name(self, what="t"):
        return f"raw-{what}-{next(_names)}"

    def topic(self, partitions=1, configs=None):
        """A new topic whose leaders serve."""
        name = self.name()
        self.create(name, partitions, configs)
        for p in range(partitions):
            for _ in range(100):
                if self.cluster.offset(name, p, -1)[0] == 0 or self.kind == "pelton":
                    break
        return name


def tests(broker):
    """(name, callable) of every test that fits this broker."""
    if not _registered:
        for m in MODULES:
            importlib.import_module(f"protocol.test_{m}")
    for name, function, only in _registered:
        if only is None or only == broker.name:
            yield name, _bind(function, broker)


def _bind(function, broker):
    def run():
        env = Env(broker)
        try:
            function(env)
        finally:
            env.cluster.close_all()
    return run


def equal(got, want, what=""):
    if got != want:
        raise AssertionError(f"{what}: got {got!r}, expected {want!r}")
