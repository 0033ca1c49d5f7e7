#!/usr/bin/env python3
"""Shows that the client tests can fail: the ledger must notice each kind of damage, the raw parser each kind of lie.

No broker, no client. Last line: `N passed, N failed`.
"""
import copy
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from drivers import CAPS  # noqa: E402
from ledger import Ledger, sample  # noqa: E402
from protocol import batch  # noqa: E402
from suites import kafka_python, librdkafka, rust_rdkafka  # noqa: E402
from suites.case import run  # noqa: E402


def fresh():
    """A ledger with one partition of 12 records, and what an honest broker would give back."""
    ledger, records = Ledger(), sample(12, 1, CAPS, "selftest")
    ledger.add("t", records, range(12))
    return ledger, [{"o": i, **{k: copy.deepcopy(r[k]) for k in ("ts", "k", "v", "h")}} for i, r in enumerate(records)]


def damaged(change):
    ledger, got = fresh()
    ledger.check("t", 0, got)
    change(got)
    try:
        ledger.check("t", 0, got)
    except AssertionError:
        return
    raise AssertionError("not noticed")


def swap(got):
    got[3], got[4] = got[4], got[3]


def swap_contents(got):
    got[0]["v"], got[1]["v"] = got[1]["v"], got[0]["v"]


DAMAGE = {
    "a lost record": lambda got: got.pop(5),
    "a lost last record": lambda got: got.pop(),
    "all lost": lambda got: got.clear(),
    "a doubled record": lambda got: got.insert(5, got[5]),
    "records out of order": swap,
    "contents of two records exchanged": swap_contents,
    "another key": lambda got: got[0].update(k="eA=="),
    "a null key read as empty": lambda got: got[2].update(k=""),
    "a null value read as empty": lambda got: got[3].update(v=""),
    "another timestamp": lambda got: got[6].update(ts=got[6]["ts"] + 1),
    "a lost header": lambda got: got[0]["h"].pop(),
    "a null header read as empty": lambda got: got[0]["h"][2].__setitem__(1, ""),
    "headers out of order": lambda got: got[0]["h"].reverse(),
}


def wrong_offset():
    ledger, _ = fresh()
    for offset in (11, 13):
        try:
            ledger.add("t", sample(1, 1, CAPS, "x"), [offset])
        except AssertionError:
            continue
        raise AssertionError(f"an acknowledgement at {offset} behind 11 was taken")


def known_crc():
    assert batch.crc32c(b"123456789") == 0xE3069283  # RFC 3720's check value


def round_trip():
    records = [batch.Record(b"v", None, 5, [("h", None), ("", b"")]), batch.Record(None, b"k", 3)]
    for codec in ("none", "gzip"):
        parsed = batch.parse(batch.build(records, 7, 1, 9, codec))
        assert len(parsed) == 1 and (parsed[0].producer_id, parsed[0].base_sequence, parsed[0].codec) == (7, 9, codec)
        back = batch.records(parsed[0])
        assert [(r.value, r.key, r.timestamp, r.headers) for r in back] == [(r.value, r.key, r.timestamp, r.headers) for r in records]


def flipped_bits():
    data = batch.build([batch.Record(b"hello")])
    for at in range(17, len(data)):
        broken = bytearray(data)
        broken[at] ^= 1
        try:
            batch.parse(bytes(broken))
        except ValueError:
            continue
        raise AssertionError(f"a flipped bit in byte {at} was not noticed")


SUMMARY = "|\x1b[32m 0001_a       |     {0} |   1.2s \x1b[0m| {1}\n| 0001_b       |     PASSED |   0.2s |\n"


def verdicts():
    """What the suites of others say is read right: nothing that did not pass is called passed."""
    def lib(text, code=0, names=("0001_a",)):
        return librdkafka.judge(list(names), code, librdkafka.COLOUR.sub("", text), 9).state
    both = ("0001_a", "0001_b")
    passed, failed, skipped = (SUMMARY.format(s, "why") for s in ("PASSED", "FAILED", "SKIPPED"))
    part_skipped = "[x / 0s] [ f:12: SKIP: not for you ]\n" + passed
    got = [lib(passed), lib(passed, 1), lib(passed, -6), lib(failed), lib(failed, 0, both), lib(skipped), lib(skipped, 0, both), lib(""),
           lib(passed, None), lib(part_skipped), lib("[ f:12: PASS (1.00s) ]" + part_skipped), lib(passed, 0, ("0002_c",))]
    want = ["pass", "fail", "fail", "fail", "fail", "skip", "pass", "fail", "fail", "skip", "pass", "fail"]
    assert got == want, f"librdkafka: {got}"
    got = [kafka_python.judge(c, text, 9).state for c, text in (
        (0, "1 passed in 1s"), (1, "1 failed in 1s"), (0, "SKIPPED [1] t.py:3: why\n1 skipped in 1s"), (0, ""), (5, "no tests ran"),
        (None, "1 passed"))]
    assert got == ["pass", "fail", "skip", "fail", "fail", "fail"], f"kafka-python: {got}"
    got = [rust_rdkafka.judge(c, text, 9).state for c, text in (
        (0, "test result: ok. 1 passed; 0 failed"), (101, "panicked at a.rs:1:\nno"), (0, "test result: ok. 0 passed; 0 failed; 1 ignored"),
        (0, "test result: ok. 0 passed; 0 failed; 0 ignored"), (None, ""))]
    assert got == ["pass", "fail", "skip", "fail", "fail"], f"rdkafka: {got}"


def limits():
    """A test that hangs is ended with all it started, and is told from one that fails."""
    assert run(["sh", "-c", "echo a; exit 3"], "/", {}, 10) == (3, "a\n")
    code, output = run(["sh", "-c", "sleep 60 & echo b; sleep 60"], "/", {}, 1)
    assert (code, output) == (None, "b\n")


def main():
    checks = {f"notices {name}": (lambda c=c: damaged(c)) for name, c in DAMAGE.items()}
    checks |= {"notices a wrong offset": wrong_offset, "crc32c": known_crc, "batch round trip": round_trip, "notices flipped bits": flipped_bits,
               "verdicts of other suites": verdicts, "time limits of other suites": limits}
    failed = 0
    for name, check in checks.items():
        try:
            check()
        except Exception as e:
            failed += 1
            print(f"FAIL {name}: {type(e).__name__}: {e}")
    print(f"{len(checks) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
