"""What a suite's test is, and how one is run: in processes of its own, with a time limit. Judges nothing."""
import dataclasses
import os
import subprocess

from lib import CACHE, HERE

SUITES = CACHE / "suites"
PYTHON = SUITES / "env" / "bin" / "python"
SHELL = HERE / "suites" / "shell"
# What clients are told the broker is; the tests choose by it what they expect.
KAFKA_VERSION = "4.3.1"


@dataclasses.dataclass(frozen=True)
class Case:
    """One test. `settings` are the broker's; cases with the same ones share a broker."""

    suite: str
    variant: str
    name: str
    settings: tuple
    limit_s: int = 180
    weight: int = 1  # how many of the parallel places it takes: timing tests and heavy ones take more

    @property
    def key(self):
        return (self.suite, self.variant, self.name)


@dataclasses.dataclass
class Result:
    """`state`: pass, fail or skip. `note`: why not passed, in one line. `output`: everything the test said."""

    state: str
    note: str = ""
    output: str = ""
    seconds: float = 0.0


def run(command, cwd, env, limit_s):
    """The exit code (None: the limit was reached and the test's processes were ended) and its output, stdout and stderr as one.

    PELTON_SUITE_PREFIX is put before the command, outside the limit: on a shared machine, something that waits for its turn.
    """
    full = dict(os.environ, **env)
    full.pop("CI", None)  # librdkafka's tests triple their waits under CI
    prefix = os.environ.get("PELTON_SUITE_PREFIX", "").split()
    limited = ["timeout", "--kill-after=5", str(limit_s)]
    process = subprocess.Popen(prefix + limited + command, cwd=cwd, env=full, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
    output, _ = process.communicate()
    # timeout(1) signals the whole process group that it made for the command; 124 is its own word for the limit.
    return None if process.returncode == 124 else process.returncode, output.decode(errors="replace")


def skip_reason(suite):
    """Why this suite cannot run here, or None."""
    reason = SUITES / f"{suite}.skip"
    if reason.exists():
        return reason.read_text().strip()
    if not (SUITES / f"{suite}.stamp").exists():
        return f"not installed: run tests/clients/suites/install.sh {suite}"
    return None
