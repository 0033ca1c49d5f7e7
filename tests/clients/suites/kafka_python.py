"""kafka-python's own integration tests, each in a pytest of its own, against a broker that runs (KAFKA_URI)."""
import re
import subprocess

from suites.case import KAFKA_VERSION, PYTHON, SUITES, Case, Result, run

NAME = "kafka-python"
VARIANTS = ("classic",)
ROOT = SUITES / NAME
# Their own cluster lets a session be as short as their tests want it.
SETTINGS = (("num.partitions", "4"), ("group.initial.rebalance.delay.ms", "0"), ("group.min.session.timeout.ms", "1000"))
LIMIT_S = 150


def environment(bootstrap):
    # KAFKA_ROOT must name a folder; nothing below it is used with a broker that already runs.
    return {"KAFKA_URI": f"kafka://{bootstrap}", "KAFKA_VERSION": KAFKA_VERSION, "KAFKA_ROOT": str(ROOT), "PYTHONPATH": str(ROOT)}


def cases():
    """All cases, as pytest collects them."""
    code, output = run([str(PYTHON), "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "test/integration"], ROOT,
                       environment("127.0.0.1:1"), 60)
    names = [line for line in output.splitlines() if line.startswith("test/") and "::" in line]
    if code != 0 or not names:
        raise subprocess.SubprocessError(f"pytest collects nothing:\n{output[-2000:]}")
    return [Case(NAME, "classic", n.removeprefix("test/integration/"), SETTINGS, LIMIT_S) for n in names]


def execute(case, bootstrap, work):
    command = [str(PYTHON), "-m", "pytest", "-q", "-rs", "-x", "--no-header", "--durations=0", "--tb=short", "--show-capture=no", "-W",
               "ignore", "-p", "no:cacheprovider", f"test/integration/{case.name}"]
    code, output = run(command, ROOT, environment(bootstrap), case.limit_s)
    return judge(code, output, case.limit_s)


def judge(code, output, limit_s):
    """The verdict by pytest's exit code and closing line."""
    if code is None:
        return Result("fail", f"not done after {limit_s} s", output)
    if code == 0 and re.search(r"\b\d+ passed\b", output):
        return Result("pass", "", output)
    if code == 0 and re.search(r"\b\d+ skipped\b", output):
        said = re.findall(r"^SKIPPED \[\d+\] \S+ (.*)", output, re.M)
        return Result("skip", said[0] if said else "skipped by the suite", output)
    said = re.findall(r"^E\s+(.*)", output, re.M)
    return Result("fail", said[0] if said else f"exit code {code}", output)
