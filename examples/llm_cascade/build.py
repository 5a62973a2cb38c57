"""Make a scenario of language models from questions, scores and prices: router, first model, judge, second model.

    python examples/llm_cascade/build.py --data FOLDER --out results/llm

FOLDER holds ``train.json.gz`` and ``test.json.gz``, lists of {"question": text, "scores": {model: 0 … 1}}, and
``models.json``, model → {"input_price", "output_price"} in dollars per million tokens. The script writes what
`marca fit` takes (a scenario file, a request log, a cost log, the outcomes of every pair of models, the held-out
questions) into OUT/inputs and fits the scenario folder OUT. The shipped preset ``llm-cascade-v0`` was made like this.

What the data do not hold is stated here, not measured: token counts, the worth of an answer, and the judge's readings.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from marca_env import Scenario
from marca_env.scenario.scenario import Cluster, Decision, Feature, Protection, Stage

DIMENSIONS = 24
"""Numbers that the text of a question is reduced to."""
CHARACTERS_PER_TOKEN = 4
TOKEN_STEP = 8
"""Token counts are rounded up to multiples of it, which keeps the tables small."""
ANSWER_TOKENS = 256
"""Tokens of every answer: the data hold no answers, only their scores."""
JUDGE_TOKENS = 64
"""Tokens of the judge's instructions and verdict; a second model reads them, too."""
SEPARATION = 1.68
"""Distance between the judge's mean readings of right and wrong answers, in standard deviations of its noise. At the
best threshold it is right in Φ(1.68 / 2) = 80 % of the cases if right and wrong answers are equally frequent (AUC
0.88): about the agreement between language models as judges and people (over 80 %: Zheng et al., arXiv 2306.05685)."""
WORTH = 0.004
"""Dollars that a right answer is worth: about where, on the training questions, the best cheap model and the best model
are worth the same net of their prices (0.0039)."""
PEAK_QPS = 20.0
"""Questions per second at the peak of a day."""
BUDGET_PER_MINUTE = 0.2
"""Dollars that may be spent in a minute."""
LOG_ROWS = 4
"""Rows of the request log for each training question, each with models drawn at random."""
MILLION = 1e6


@dataclass(frozen=True)
class Questions:
    """Training questions, then held-out ones; Q questions, n models ordered by price."""

    texts: list[str]
    scores: np.ndarray
    """(Q,n) 0 … 1."""
    models: list[str]
    prices: np.ndarray
    """(n,) dollars per token."""
    n_train: int

    @property
    def tokens(self) -> np.ndarray:
        """Tokens of each question and its answer, int (Q,)."""
        length = np.array([len(text) for text in self.texts]) / CHARACTERS_PER_TOKEN
        return (np.ceil((length + ANSWER_TOKENS) / TOKEN_STEP) * TOKEN_STEP).astype(int)

    @property
    def strength(self) -> np.ndarray:
        """Mean score of each model on the training questions, (n,)."""
        return self.scores[: self.n_train].mean(axis=0)


def read(folder: Path) -> Questions:
    """Read the data; training questions that are also held out are left out."""
    train, test = (json.loads(gzip.decompress((folder / f"{part}.json.gz").read_bytes())) for part in ("train", "test"))
    held_out = {row["question"] for row in test}
    train = [row for row in train if row["question"] not in held_out]
    rows, listed = [*train, *test], json.loads((folder / "models.json").read_text())
    scores = np.array([[row["scores"][name] for name in listed] for row in rows])
    prices = np.array([(entry["input_price"] + entry["output_price"]) / 2 for entry in listed.values()]) / MILLION
    order = np.lexsort((scores[: len(train)].mean(axis=0), prices))  # by price, then by mean score
    models = [list(listed)[k] for k in order]
    return Questions([row["question"] for row in rows], scores[:, order], models, prices[order], len(train))


def text_features(questions: Questions, seed: int) -> np.ndarray:
    """Return standardised numbers of each question, (Q, DIMENSIONS + 1): its text, then the log of its length.

    Everything is fitted on the training questions alone.
    """
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=3, max_features=30_000)
    reduce = TruncatedSVD(DIMENSIONS, random_state=seed)
    train = questions.texts[: questions.n_train]
    reduce.fit(words.fit_transform(train))
    length = np.log([len(text) for text in questions.texts])
    numbers = np.column_stack([reduce.transform(words.transform(questions.texts)), length])
    centre, spread = numbers[: len(train)].mean(axis=0), numbers[: len(train)].std(axis=0)
    return ((numbers - centre) / spread).round(3)


def judge_readings(questions: Questions, seed: int) -> np.ndarray:
    """Return the judge's standardised reading of each model's answer, (Q,n): its score seen through noise."""
    noise = np.random.default_rng(seed).normal(size=questions.scores.shape)
    reading = SEPARATION * questions.scores + noise
    train = reading[: questions.n_train]
    return ((reading - train.mean()) / train.std()).round(2)


def make_scenario(questions: Questions) -> Scenario:
    """Return the scenario: two stages that share one cluster, whose unit is dollars per second."""
    most_tokens, budget = int(questions.tokens.max()) + JUDGE_TOKENS, BUDGET_PER_MINUTE / 60
    return Scenario(
        name="llm-cascade-v0",
        stages=(
            Stage(
                "router",
                "api",
                (Decision("first", "model", tuple(questions.models)),),
                queue_limit=most_tokens,
                signals=("confidence", "strength"),
            ),
            Stage("judge", "api", (Decision("second", "model", ("off", *questions.models)),), queue_limit=most_tokens),
        ),
        clusters=(Cluster("api", cores=round(2 * budget, 6), budget=round(budget, 6)),),
        features=(
            Feature("text", DIMENSIONS, kind="number"),
            Feature("length", 1, kind="number"),
            Feature("request", len(questions.texts), hidden=True),
        ),
        peak_qps=PEAK_QPS,
        protection=Protection(timeout=60.0),
        prices=(1.0,),
    )


def outcome_table(scenario: Scenario, questions: Questions, readings: np.ndarray) -> pd.DataFrame:
    """Return a row for every question and pair of models: tokens, signals, dollars, and what the answer is worth."""
    first, second = scenario.joint_actions.T  # (J,) each; second 0 is off
    n, pairs = len(questions.texts), len(first)
    tokens = np.repeat(questions.tokens, pairs).reshape(n, pairs)
    read_again = tokens + JUDGE_TOKENS
    judge, second_price = questions.prices.min(), np.append(0.0, questions.prices)[second]
    dollars = tokens * questions.prices[first] + read_again * (judge + second_price)
    answered_by = np.where(second > 0, second - 1, first)
    strength = questions.strength
    strength = ((strength - strength.mean()) / strength.std()).round(3)
    columns = {
        "request": np.repeat(np.arange(n), pairs).reshape(n, pairs),
        "first": np.broadcast_to(first, (n, pairs)),
        "second": np.broadcast_to(second, (n, pairs)),
        "result_router": tokens,
        "result_judge": read_again,
        "signal_router_confidence": readings[:, first],
        "signal_router_strength": np.broadcast_to(strength[first], (n, pairs)),
        "cost_api": dollars,
        "revenue": WORTH * questions.scores[:, answered_by],
    }
    return pd.DataFrame({name: np.asarray(values).ravel() for name, values in columns.items()})


def price_list(scenario: Scenario, questions: Questions) -> pd.DataFrame:
    """Return the prices as a cost log: dollars of a number of tokens, for each model and for the judge itself."""
    longest = int(questions.tokens.max()) + JUDGE_TOKENS
    prices = {("judge", "queue"): questions.prices.min()}
    for stage, decision in (("router", "first"), ("judge", "second")):
        pairs = zip(questions.models, questions.prices, strict=True)
        prices |= {(stage, f"model:{decision}={model}"): price for model, price in pairs}
    prices |= {("router", "queue"): 0.0, ("router", "base"): 0.0, ("judge", "base"): 0.0}
    other = {"value_bucket": 0, "qps": 0.0, "utilisation": 0.0, "machines": 1, "cores": 1.0, "repeat": 0}
    rows = [
        {"stage": stage, "cluster": "api", "component": component, "queue_length": n, "cost": price * n, **other}
        for (stage, component), price in prices.items()
        for n in ([0] if component == "base" else [1, longest])
    ]
    return pd.DataFrame(rows)


def request_log(questions: Questions, states: pd.DataFrame, outcomes: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return what a service that tries models at random would have logged for the training questions."""
    rng, pairs = np.random.default_rng(seed), len(outcomes) // len(questions.texts)
    question = np.repeat(np.arange(questions.n_train), LOG_ROWS)
    served = outcomes.iloc[question * pairs + rng.integers(pairs, size=len(question))].reset_index(drop=True)
    served = served.drop(columns=["request", "cost_api"])
    served = served.assign(impressions=1.0, clicks=served["revenue"] / WORTH, gmv=0.0)  # a click is a right answer
    return pd.concat([states.iloc[question].reset_index(drop=True), served], axis=1)


def main() -> None:
    """Write the inputs, then fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("results/llm"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    args = parser.parse_args()
    questions = read(args.data)
    scenario = make_scenario(questions)
    numbers = text_features(questions, args.seed)
    states = pd.DataFrame(numbers, columns=list(scenario.state_columns[:-1]))
    states["request"] = np.arange(len(states))
    outcomes = outcome_table(scenario, questions, judge_readings(questions, args.seed))
    inputs = args.out / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    scenario.save(inputs / "cascade.yaml")
    outcomes.to_parquet(inputs / "outcomes.parquet")
    price_list(scenario, questions).to_csv(inputs / "cost_log.csv", index=False)
    request_log(questions, states, outcomes, args.seed + 1).to_parquet(inputs / "requests.parquet")
    states.iloc[questions.n_train :].to_parquet(inputs / "heldout.parquet")
    files = {"--scenario": "cascade.yaml", "--requests": "requests.parquet", "--costs": "cost_log.csv"}
    files |= {"--outcomes": "outcomes.parquet", "--heldout": "heldout.parquet"}
    options = [part for option, name in files.items() for part in (option, str(inputs / name))]
    command = [sys.executable, "-m", "benchmarks.cli", "fit", *options, "--seed", str(args.seed)]
    sys.exit(subprocess.run([*command, "--out", str(args.out)], check=False).returncode)


if __name__ == "__main__":
    main()
