"""The tests of the crate rdkafka (rust-rdkafka), each in a process of its own: the crate's test binaries, one name at a time."""
import pathlib
import re

from suites.case import KAFKA_VERSION, SUITES, Case, Result, run

NAME = "rdkafka"
VARIANTS = ("classic",)
ROOT = SUITES / NAME
SETTINGS = (("num.partitions", "3"), ("group.initial.rebalance.delay.ms", "3000"))
LIMIT_S = 180


def binaries():
    """File name of each test source → its binary. The library's unit tests need no broker."""
    out = {}
    for line in (ROOT / "tests.list").read_text().split():
        name = re.sub(r"-[0-9a-f]{16}$", "", pathlib.Path(line).name)
        if name.startswith("test_"):
            out[name] = line
    return out


def cases():
    """All cases, as the test binaries list them. Every binary holds the tests of the module utils too; those count once."""
    out, seen = [], set()
    for name, binary in sorted(binaries().items()):
        _, output = run([binary, "--list"], ROOT, {}, 60)
        for test in re.findall(r"^(\S+): test$", output, re.M):
            if test.startswith("utils::"):
                if test in seen:
                    continue
                seen.add(test)
            out.append(Case(NAME, "classic", f"{name}::{test}", SETTINGS, LIMIT_S))
    return out


def execute(case, bootstrap, work):
    name, _, test = case.name.partition("::")
    env = {"KAFKA_HOST": bootstrap, "KAFKA_VERSION": KAFKA_VERSION, "RUST_LOG": "off", "RUST_BACKTRACE": "0"}
    code, output = run([binaries()[name], "--exact", test, "--nocapture"], ROOT / "crate", env, case.limit_s)
    return judge(code, output, case.limit_s)


def judge(code, output, limit_s):
    """The verdict by the exit code and cargo's `test result:` line."""
    if code is None:
        return Result("fail", f"not done after {limit_s} s", output)
    if code == 0 and re.search(r"^test result: ok\. 1 passed", output, re.M):
        return Result("pass", "", output)
    if code == 0 and re.search(r"\b1 ignored", output):
        return Result("skip", "ignored by the suite", output)
    said = re.findall(r"panicked at [^\n]*\n(.*(?:\n  left: .*\n right: .*)?)", output) or re.findall(r"^Error: (.*)", output, re.M)
    return Result("fail", " ".join(said[0].split()) if said else f"exit code {code}", output)
