"""Why a test is not passed: suites/reasons.toml, read."""
import fnmatch
import tomllib

from lib import HERE

FILE = HERE / "suites" / "reasons.toml"


class Reasons:
    """The entries for one broker, `kafka` or `pelton`. A pattern is `suite variant name` with * in any of them; the first that fits counts."""

    def __init__(self, broker):
        self.broker = broker
        self.entries = [e for e in tomllib.loads(FILE.read_text())["reason"] if e.get("broker", "both") in ("both", broker)]

    def _find(self, case, run):
        for e in self.entries:
            if e.get("run", True) == run and any(fnmatch.fnmatchcase(" ".join(case.key), t) for t in e["tests"]):
                return e["why"]
        return None

    def why(self, case):
        """The reason why this test is expected to fail, or None."""
        return self._find(case, True)

    def not_run(self, case):
        """The reason why this test is not even tried, or None."""
        return self._find(case, False)
