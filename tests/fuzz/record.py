"""Make the inputs of the corpus and record what becomes of them: ``python -m tests.fuzz.record``.

Read the changes of the recorded lines before committing them: a line has to say what is wrong, where, and what to do.
"""

from __future__ import annotations

import itertools
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.cli.parsers import COMMANDS, build_parsers
from marca_env.models.cost_model import CostModel
from marca_env.models.revenue_model import RevenueModel
from tests.fuzz.kinds import ARTEFACTS, DOCUMENTS, SCENARIO, TABLES, TRACE, Input
from tests.helpers.factories import make_cost_log, make_requests
from tests.helpers.policies import save_team_policy

CORPUS = Path(__file__).parent / "corpus"
SEED = 0
HOSTILE = [
    "null",
    "true",
    "-1",
    "0",
    "1.5",
    "1e308",
    ".inf",
    ".nan",
    "99999999999999999999999999",
    "''",
    "' '",
    "x",
    "../../x",
    "[]",
    "{}",
    "[1, 2]",
    "{a: 1}",
    "[[[[]]]]",
    "2024-02-31",
    "2024-01-01",
    "12:30:45",
    "!!binary aGk=",
    "!!set {a, b}",
    "'" + "A" * 400 + "'",
    "🙂",
    "'1'",
    "1_000",
    None,
]
"""Values as YAML; None removes the place."""
CELLS = [
    "",
    "x",
    "-1",
    "1e308",
    "inf",
    "-inf",
    "nan",
    "1.5",
    "99999999999999999999",
    "true",
    "2024-02-31",
    "A" * 400,
    "🙂",
]
OPTION_VALUES = [
    "",
    " ",
    "x",
    "-1",
    "0.5x",
    "nan",
    "inf",
    "1e999",
    "18446744073709551616",
    "x/y.csv",
    "A" * 400,
    "🙂",
]
COMPLETE = {
    "score": ["predictions.csv"],
    "allocate": ["predictions.csv", "--quotas", "predictions.csv", "--counts", "predictions.csv"],
    "evaluate": ["predictions.csv"],
    "decide": ["--policy", "none", "--prices", "1", "--requests", "predictions.csv", "--out", "decided"],
    "train file": ["predictions.csv"],
    "bench run": ["games", "--methods", "NoSuch"],
    "completion": ["bash"],
    "train": ["--algo", "NoSuchAlgorithm"],
    "simulate": ["--scenario", "no-such-scenario"],
    "balance": ["--scenario", "no-such-scenario"],
    "control": ["--scenario", "no-such-scenario", "--state", "state"],
    "serve": ["--policy", "none"],
    "headroom": ["--scenario", "no-such-scenario"],
    "fit": ["--scenario", "no-such-scenario"],
    "testbench": ["--scenario", "no-such-scenario"],
}
"""Arguments with which a command ends early, so that a wrong option is the only work."""


def places(data: Any, prefix: str = "") -> Iterator[str]:
    """Yield the path of every entry of a document."""
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, (list, tuple)) else ()
    for key, value in entries:
        path = f"{prefix}{key}"
        yield path
        yield from places(value, f"{path}.")


def documents(rng: random.Random) -> Iterator[Input]:
    """Yield documents with one wrong place."""
    for reader, (_, valid, _) in DOCUMENTS.items():
        pairs = list(itertools.product(places(valid), HOSTILE))
        for path, value in rng.sample(pairs, min(len(pairs), 90)):
            data = {"reader": reader, "path": path}
            yield Input("document", data if value is None else {**data, "yaml": value})


def texts() -> Iterator[Input]:
    """Yield files that are no document or table at all."""
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(97 + k)}: &{chr(97 + k)} [{', '.join(['*' + chr(96 + k)] * 9)}]\n" for k in range(1, 12)
    )
    for reader in DOCUMENTS:
        for content in (
            "",
            "\n\n",
            "a: 1\na: 2\n",
            "a: [1, 2\n",
            "- 1\n- 2\n",
            "just words",
            "1",
            "null",
            "a: !!python/object/apply:os.system ['echo attacked']",
            "a: !unknown 1",
            "? [1, 2]\n: 3\n",
            "a: *nowhere",
            "{a: 1, a: 2}",
            "a: 2024-13-45",
            "\ta: 1",
            "%YAML 9.9\n---\na: 1",
            "a: 1\n---\nb: 2\n",
            "<<: [1, 2]",
            bomb,
        ):
            yield Input("text", {"reader": reader, "text": content})
        yield Input("text", {"reader": reader, "unit": "[", "times": 100_000})
        yield Input("text", {"reader": reader, "unit": "{a: ", "times": 100_000})
        yield Input("text", {"reader": reader, "before": "a: ", "unit": "9", "times": 10_000})
        yield Input("text", {"reader": reader, "before": "a: '", "unit": "A", "times": 1_000_000, "after": "'"})
        yield Input("text", {"reader": reader, "hex": bytes(range(128, 160)).hex()})
        yield Input("text", {"reader": reader, "hex": "fffe61003a00200031000a00"})
        yield Input("text", {"reader": reader, "hex": "613a2000310a"})
    for reader in TABLES:
        for content in ("", "\n", "x", "a,b\n", "a,b\n1,2,3\n", 'a,"b\n1,2\n', "a;b\n1;2\n", "\x00\x00", "a,a\n1,2\n"):
            yield Input("text", {"reader": reader, "text": content})
        yield Input("text", {"reader": reader, "unit": "a,", "times": 100_000})
        yield Input("text", {"reader": reader, "hex": bytes(range(128, 160)).hex()})
        yield Input("text", {"reader": reader, "name": "t.parquet", "text": "PAR1 and no more"})
        yield Input("text", {"reader": reader, "name": "t.csv.gz", "hex": "1f8b0800"})
        yield Input("text", {"reader": reader, "name": "t.zip", "hex": "504b0304"})
        yield Input("text", {"reader": reader, "name": "t.xlsx", "text": "x"})
    for stamp in (
        "31.02.2024",
        "1e308",
        "9999999999999999",
        "-5",
        "24:61",
        "0001-01-01",
        "9999-12-31",
        "inf",
        "now",
        "",
    ):
        yield Input("text", {"reader": "trace", "text": TRACE + f"{stamp},8\n"})
    for value in ("inf", "-1", "1e308", "abc", "1,5,6", "--", "0x10", "１２"):
        yield Input("text", {"reader": "trace", "text": TRACE + f"2024-01-01 00:15,{value}\n"})


def tables(rng: random.Random) -> Iterator[Input]:
    """Yield tables with one wrong cell, header or column."""
    for reader, (_, valid, _) in TABLES.items():
        pairs = [(c, r, x) for c in valid.columns for r in (0, len(valid) - 1) for x in CELLS]
        for column, row, cell in rng.sample(pairs, min(len(pairs), 45)):
            yield Input("table", {"reader": reader, "column": column, "row": row, "cell": cell})
        for column in valid.columns:
            yield Input("table", {"reader": reader, "column": column, "drop": True})
            yield Input("table", {"reader": reader, "column": column, "header": valid.columns[0] + " "})


def artefacts(rng: random.Random, home: Path) -> Iterator[Input]:
    """Yield damaged folders of policies and models."""
    values = [None, True, -1, 0, 1.5, "x", "", [], {}, [1, 2], "os.system", 1e308, "A" * 400]
    for name, (description, _, _) in ARTEFACTS.items():
        plain = json.loads((home / name / description).read_text())
        pairs = list(itertools.product(places(plain), values))
        for path, value in rng.sample(pairs, min(len(pairs), 60)):
            yield Input("artefact", {"artefact": name, "path": path, "json": value})
        for path in rng.sample(list(places(plain)), 10):
            yield Input("artefact", {"artefact": name, "path": path, "remove": True})
        for file in ("description", "weights"):
            for cut in (0, 0.01, 0.5, 0.99):
                yield Input("artefact", {"artefact": name, "file": file, "cut": cut})
            for content, times in (("00", 1), ("5b", 100_000), ("ffffffffffffff7f7b7d", 1), ("7b7d", 1)):
                yield Input("artefact", {"artefact": name, "file": file, "hex": content, "times": times})
        for damage in ("nan", "inf", "shape", "type", "missing"):
            for tensor in (0, 3, 7):
                yield Input("artefact", {"artefact": name, "tensor": tensor, "damage": damage})


def arguments(rng: random.Random) -> Iterator[Input]:
    """Yield command lines with one wrong argument."""
    parsers = build_parsers(load=list(COMMANDS))
    for command in COMMANDS:
        words, complete = command.split(), COMPLETE.get(command, [])
        yield Input("arguments", {"argv": [*words, *complete, "--no-such-option"]})
        yield Input("arguments", {"argv": [*words, *complete, "one", "too", "many"]})
        options = [
            a.option_strings[-1]
            for a in parsers[command]._actions
            if a.option_strings and a.nargs != 0 and a.option_strings[-1] not in ("--address", "--help")
        ]
        for option in options:
            for value in rng.sample(OPTION_VALUES, 4):
                yield Input("arguments", {"argv": [*words, *complete, f"{option}={value}"]})
    for argv in ([], ["nonsense"], ["bench", "nonsense"], ["--nonsense"], [""], ["bench", "run", "nonsense"]):
        yield Input("arguments", {"argv": argv})


def make_artefacts(home: Path) -> None:
    """Save a policy and two models of the tiny scenario."""
    requests = make_requests(SCENARIO, 400)
    costs = CostModel.fit(SCENARIO, requests, make_cost_log(SCENARIO), epochs=2)
    costs.save(home / "cost_model")
    RevenueModel.fit(SCENARIO, requests, members=2, epochs=2).save(home / "revenue_model")
    save_team_policy(home / "policy", SCENARIO, costs)


def main() -> None:
    """Write the corpus."""
    rng = random.Random(SEED)
    CORPUS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "artefacts"
        make_artefacts(home)
        makers = {
            "documents": documents(rng),
            "texts": texts(),
            "tables": tables(rng),
            "artefacts": artefacts(rng, home),
            "arguments": arguments(rng),
        }
        for name, inputs in makers.items():
            lines = []
            for number, case in enumerate(inputs):
                (place := Path(folder) / f"{name}{number}").mkdir()
                try:
                    expected = case.run(place, home)
                except BaseException as error:  # the record shows what has to be mended
                    expected = f"FAULT {type(error).__name__}: {error}"[:300]
                lines.append(json.dumps({"kind": case.kind, **case.data, "expected": expected}, ensure_ascii=False))
            (CORPUS / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            print(f"{name}: {len(lines)} inputs")


if __name__ == "__main__":
    main()
