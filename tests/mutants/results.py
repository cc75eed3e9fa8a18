"""What came of each mutant: kept while it is found out, compared with the survivors that are known, and shown."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

LEAST_KILLED = 0.97
SURVIVED = "survived"


class Results:
    """One line for each mutant, written as soon as it is known, so that a run that was stopped goes on where it was.

    The first line says which sources the results are of. Those of other sources are of no use; but with `keep_killed` the killed
    mutants stay killed: one more test cannot bring a mutant back to life.
    """

    def __init__(self, path: Path, digest: str, *, keep_killed: bool) -> None:
        lines = path.read_text().splitlines() if path.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith("}")]  # the last one may be half written
        if keep_killed:
            self.known = {row["mutant"]: row["outcome"] for row in rows[1:] if row["outcome"] != SURVIVED}
        elif rows and rows[0] == {"digest": digest}:
            self.known = {row["mutant"]: row["outcome"] for row in rows[1:]}
        else:
            self.known = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("w")
        self.file.write(json.dumps({"digest": digest}) + "\n")
        for mutant, outcome in self.known.items():
            self.write(mutant, outcome)

    def write(self, mutant: str, outcome: str) -> None:
        self.known[mutant] = outcome
        self.file.write(json.dumps({"mutant": mutant, "outcome": outcome}) + "\n")
        self.file.flush()


def digest(folders: Iterable[Path]) -> str:
    """Of every Python file in the folders."""
    paths = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def read_survivors(path: Path) -> set[str]:
    """The mutants that a file lists: paragraphs of a reason, in lines that begin with #, and then mutants of three lines each.

    Raises ValueError for a mutant without a reason, and for lines that are no mutant.
    """
    listed = set()
    for paragraph in path.read_text().split("\n\n") if path.exists() else []:
        lines = paragraph.strip().splitlines()
        mutant_lines = [line for line in lines if not line.startswith("#")]
        triples = ["\n".join(mutant_lines[start:start + 3]) for start in range(0, len(mutant_lines), 3)]
        for triple in triples:
            if not lines[0].startswith("# ") or [line[:2] for line in triple.splitlines()][1:] != ["- ", "+ "]:
                raise ValueError(f"{path}: expected a line '# reason', then a function, '- old' and '+ new', got\n{paragraph}")
        listed |= set(triples)
    return listed


def report(mutants: dict[str, str], outcomes: dict[str, str], listed: set[str]) -> tuple[str, bool]:
    """A table, what is not as it must be, and whether all is.

    mutants: each with its module.   outcomes: each with what came of it.   listed: those that are known to survive, and why.
    """
    alive = [mutant for mutant in mutants if outcomes[mutant] == SURVIVED]
    lines = [f"{'module':<44}{'mutants':>8}{'killed':>8}{'alive':>7}"]
    for module in [*dict.fromkeys(mutants.values()), "all"]:
        of_module = [mutant for mutant, where in mutants.items() if module in (where, "all")]
        survived = sum(outcomes[mutant] == SURVIVED for mutant in of_module)
        lines.append(f"{module:<44}{len(of_module):>8}{1 - survived / len(of_module):>8.1%}{survived:>7}")
    killed = 1 - len(alive) / len(mutants)
    unknown, stale = [mutant for mutant in alive if mutant not in listed], sorted(listed - set(alive))
    if unknown:
        lines += ["", f"{len(unknown)} survived without a reason. Write the test that is missing, or list why it is no mistake:",
                  "", *unknown]
    if stale:
        lines += ["", f"{len(stale)} on the list did not survive, or are no mutants any more. Take them out:", "", *stale]
    if killed < LEAST_KILLED:
        lines += ["", f"{killed:.1%} killed, expected {LEAST_KILLED:.0%} or more"]
    return "\n".join(lines), not unknown and not stale and killed >= LEAST_KILLED
