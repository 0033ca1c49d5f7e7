"""Stands in for test/service.py of kafka-python's repository, which its source package lacks.

The broker is started outside (KAFKA_URI), so only the two names that its fixtures import are needed; starting a process is refused.
"""


class ExternalService:
    """A broker that somebody else runs."""

    def __init__(self, host, port):
        self.host, self.port = host, port

    def open(self):
        pass

    def close(self):
        pass

    def dump_logs(self):
        pass


class SpawnedService:
    """The repository's own starts a broker of its own from a Kafka distribution; there is none here."""

    def __init__(self, args=None, env=None):
        raise RuntimeError("these tests run against a broker that already runs: set KAFKA_URI")
