"""Results kept as text (suites/results/BROKER.tsv) and COMPAT.md, written from them."""
from lib import HERE, ROOT
from suites.reasons import Reasons

RESULTS = HERE / "suites" / "results"
PAGE = HERE / "COMPAT.md"
HEAD = HERE / "suites" / "compat_head.md"
MARK = {"pass": "pass", "fail": "**fail**", "skip": "skip", None: "–"}


def read(broker):
    """(suite, variant, name) → {state, note}."""
    path = RESULTS / f"{broker}.tsv"
    out = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        suite, variant, name, state, note = line.split("\t")
        out[(suite, variant, name)] = {"state": state, "note": note}
    return out


def record(broker, rows):
    """Puts the results of a run over those kept before."""
    kept = read(broker)
    for case, result, _ in rows:
        if case:
            said = result.note.replace(f"{ROOT}/", "") if result.state != "pass" else ""
            note = " ".join(said.split())[:200]
            kept[case.key] = {"state": result.state, "note": note}
    RESULTS.mkdir(exist_ok=True)
    lines = ["\t".join([*key, r["state"], r["note"]]) for key, r in sorted(kept.items())]
    (RESULTS / f"{broker}.tsv").write_text("\n".join(lines) + "\n")


def write():
    """COMPAT.md: a table for each suite; a row has both brokers in each variant and, unless Pelton passed, why."""
    kafka, pelton = read("kafka"), read("pelton")
    why = {"kafka": Reasons("kafka"), "pelton": Reasons("pelton")}
    out = [HEAD.read_text().rstrip(), "", *_sums(kafka, pelton)]
    for suite in dict.fromkeys(k[0] for k in sorted(kafka.keys() | pelton.keys())):
        keys = [k for k in kafka.keys() | pelton.keys() if k[0] == suite]
        variants = sorted({k[1] for k in keys})
        columns = [f"{b}{', ' + v if len(variants) > 1 else ''}" for v in variants for b in ("Kafka", "Pelton")]
        out += ["", f"## {suite}", "", f"| Test | {' | '.join(columns)} | Why not passed |", f"|---|{'---|' * len(columns)}---|"]
        for name in sorted({k[2] for k in keys}):
            cells, notes = [], []
            for v in variants:
                for broker, results in (("kafka", kafka), ("pelton", pelton)):
                    r = results.get((suite, v, name), {"state": None, "note": ""})
                    cells.append(MARK[r["state"]])
                    if r["state"] not in (None, "pass"):
                        case = _Key((suite, v, name))
                        reason = why[broker].why(case) or why[broker].not_run(case) or r["note"]
                        label = "" if broker == "pelton" else "Kafka: "
                        notes.append((label, reason))
            # Both brokers for the same reason: said once.
            said = {reason for label, reason in notes if not label}
            texts = dict.fromkeys(f"{label}{reason}" for label, reason in notes if not label or reason not in said)
            note = "; ".join(texts).replace("|", "\\|")
            out.append(f"| {name} | {' | '.join(cells)} | {note} |")
    PAGE.write_text("\n".join(out) + "\n")


def _sums(kafka, pelton):
    out = ["| Suite | Kafka passed | Pelton passed | passed by Kafka, not by Pelton |", "|---|---|---|---|"]
    for suite, variant in dict.fromkeys(k[:2] for k in sorted(kafka.keys() | pelton.keys())):
        good = [{k for k, r in results.items() if k[:2] == (suite, variant) and r["state"] == "pass"} for results in (kafka, pelton)]
        out.append(f"| {suite}, {variant} | {len(good[0])} | {len(good[1])} | {len(good[0] - good[1])} |")
    return out


class _Key:
    """A case as far as reasons look at it."""

    def __init__(self, key):
        self.key = key
