"""The clients under test as processes: one driver program each, one JSON command a line, one answer a line.

Never judges an answer; a client that is not installed gives its reason.
"""
import json
import os
import pathlib
import subprocess
import threading
import time

from lib import CACHE, HERE

PYTHON = CACHE / "python" / "bin" / "python"
CALL_TIMEOUT_S = 60
CAPS = {"timestamps": True, "binary": True, "headers_per_record": True, "offsets": True, "null_headers": True}

# name → (what install.sh calls it, the command)
CLIENTS = {
    "kcat": ("kcat", ["python3", str(HERE / "kcat" / "driver.py")]),
    "confluent-kafka": ("python", [str(PYTHON), str(HERE / "confluent" / "driver.py")]),
    "kafka-python": ("python", [str(PYTHON), str(HERE / "kafka_python" / "driver.py")]),
    "kafkajs": ("kafkajs", ["node", str(HERE / "kafkajs" / "driver.js")]),
    "java": ("java", ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                      "-cp", f"{CACHE}/java/classes{os.pathsep}{CACHE}/java/jars/*", "Driver"]),
    "franz-go": ("franz", [str(CACHE / "franz")]),
}


class Skipped(Exception):
    """The client cannot do it, or is not there; the message is the reason."""


class Refused(Exception):
    """The client answered with an error."""

    def __init__(self, op, answer):
        super().__init__(f"{op}: {answer.get('error')}{' ' + answer['trace'] if answer.get('trace') else ''}")
        self.code = answer.get("code", -1)


class DriverDied(Exception):
    """The driver process ended or did not answer in time."""


def missing(name):
    """Why this client cannot run here, or None."""
    package, command = CLIENTS[name]
    reason = CACHE / f"{package}.skip"
    if reason.exists():
        return reason.read_text().strip()
    needed = {"kcat": None, "kafkajs": CACHE / "kafkajs" / "node_modules", "java": CACHE / "java" / "classes" / "Driver.class"}
    path = needed.get(name, pathlib.Path(command[0]))
    if path is not None and not path.exists():
        return f"not installed: run tests/clients/install.sh {package}"
    return None


class Driver:
    """One client, connected to one bootstrap address, until `close`."""

    def __init__(self, name, bootstrap, log_dir):
        self.name, self.bootstrap, self.log_dir = name, bootstrap, log_dir
        self.log = open(pathlib.Path(log_dir) / f"{name}.stderr", "ab")
        environment = dict(os.environ, PELTON_NODE_MODULES=str(CACHE / "kafkajs" / "node_modules"))
        self.process = subprocess.Popen([*CLIENTS[name][1], bootstrap], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.log, env=environment)
        hello = self.call("hello")
        self.version, self.caps = hello["version"], {**CAPS, **hello.get("caps", {})}

    def call(self, op, **values):
        line = json.dumps({"op": op, **values}).encode() + b"\n"
        watchdog = threading.Timer(CALL_TIMEOUT_S, self.process.kill)
        watchdog.start()
        began = time.monotonic()
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except OSError:
            answer = b""
        finally:
            watchdog.cancel()
        if not answer:
            raise DriverDied(f"{self.name} ended during {op} after {time.monotonic() - began:.0f} s")
        answer = json.loads(answer)
        if "skip" in answer:
            raise Skipped(answer["skip"])
        if not answer["ok"]:
            raise Refused(op, answer)
        return answer

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except OSError:
                pass  # unsent bytes to a driver that is gone
        self.log.close()
