"""``marca fit``: fit the cost and revenue models of a scenario, and say how good they are.

With ``--mapping`` (or for logs without a header, as the method's authors published them) the logs are those of a system
of your own, and the folder that is written is a scenario: see :mod:`marca_env.integration.mapping`.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.cli.testbench import measure
from benchmarks.days.artefacts import outcomes_with_progress
from benchmarks.evaluation import model_errors
from benchmarks.evaluation.fit_own_system import fit_own_system, print_report
from marca_env.cascade.behaviour_policy import behaviour_log
from marca_env.integration.logged_system import read_logged_system
from marca_env.integration.mapping import Mapping
from marca_env.logs.log_files import read_cost_log, read_request_log, read_table, write_request_log
from marca_env.logs.published_samples import is_headerless
from marca_env.models.cost_model import CostModel
from marca_env.models.population import Population
from marca_env.models.revenue_model import RevenueModel
from marca_env.scenario.scenario import FILE, Scenario
from marca_env.testbench.testbench import TestBench
from marca_env.utils.errors import InputError
from marca_env.utils.files import check_device, write_json
from marca_env.utils.progress import track_progress

if TYPE_CHECKING:
    import pandas as pd

    from marca_env.scenario.scenario import Scenario

HELD_OUT = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--scenario", default="default", help="preset or .yaml file (default: %(default)s)")
    parser.add_argument("--requests", type=Path, help="request log; left out: OUT/requests.parquet, made if absent")
    parser.add_argument("--costs", type=Path, help="cost log; left out: OUT/cost_log.csv, measured if absent")
    parser.add_argument("--system", type=Path, help="system log of a system of your own (with --mapping)")
    parser.add_argument(
        "--mapping", metavar="FILE", help="YAML that says which columns of your own logs are what; makes a scenario"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the models and what they were fitted to")
    parser.add_argument("--rows", type=int, default=200_000, help="requests to serve for a log (default: %(default)s)")
    parser.add_argument(
        "--members", type=int, default=5, help="networks of the revenue ensemble (default: %(default)s)"
    )
    parser.add_argument(
        "--truth",
        type=int,
        default=0,
        metavar="N",
        help="also compare with the live cascade's true revenue of N requests",
    )
    parser.add_argument(
        "--budget", type=float, default=300.0, help="seconds for measuring costs (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")


def run(args: argparse.Namespace) -> None:
    """Fit on four fifths of the requests, judge on the last, fit again on all, write."""

    _check(args)
    if args.mapping or _is_published(args.requests):
        _run_own(args)
        return
    scenario = Scenario.load(args.scenario)
    args.out.mkdir(parents=True, exist_ok=True)
    costs, requests = _costs(args, scenario), _requests(args, scenario)
    held = np.random.default_rng(args.seed).random(len(requests)) < HELD_OUT
    options: dict[str, Any] = {"seed": args.seed, "device": args.device}
    for rows, final in ((~held, False), (np.ones(len(requests), dtype=bool), True)):
        log = requests[rows]
        cost_model = _fit("cost model", CostModel.fit, scenario, log, costs, **options)
        revenue_model = _fit("revenue model", RevenueModel.fit, scenario, log, members=args.members, **options)
        if not final:
            report = _report(args, scenario, cost_model, revenue_model, requests[held], costs)
    cost_model.save(args.out / "cost_model")
    revenue_model.save(args.out / "revenue_model")
    Population.from_log(scenario, requests).save(args.out / "population.parquet", scenario)
    write_json(args.out / "report.json", report)
    scenario.save(args.out / FILE)
    print(f"wrote {FILE}, cost_model, revenue_model, population.parquet and report.json in {args.out}")


def _run_own(args: argparse.Namespace) -> None:
    """A scenario from the logs of a system of one's own."""

    system = read_logged_system(Mapping.load(args.mapping or "published"), args.requests, args.costs, args.system)
    report = fit_own_system(system, args.out, members=args.members, seed=args.seed, device=args.device)
    print_report(report)
    print(f"wrote a scenario: marca_env.parallel_env(scenario={str(args.out)!r}), marca train --scenario {args.out}")


def _is_published(requests: Path | None) -> bool:
    """Whether it is the published sample of requests, which has no header."""

    return requests is not None and is_headerless(read_table(requests))


def _check(args: argparse.Namespace) -> None:
    """Before minutes are spent on measuring."""

    for name, least in (("rows", 1), ("members", 1), ("truth", 0)):
        if getattr(args, name) < least:
            raise InputError(f"--{name} is {getattr(args, name)}; it must be at least {least}")
    if args.mapping and args.requests is None:
        raise InputError("--mapping says what your own logs hold; pass them with --requests, --costs and --system")
    if args.system is not None and not (args.mapping or _is_published(args.requests)):
        raise InputError("--system is read as a mapping says; pass --mapping FILE")
    for path in (args.requests, args.costs, args.system):
        if path is not None and not path.is_file():
            raise InputError(f"{path}: no such file; check the path")
    check_device(args.device)


def _costs(args: argparse.Namespace, scenario: Scenario) -> pd.DataFrame:
    ours = args.out / "cost_log.csv"
    if args.costs is None and not ours.exists():
        measure(TestBench(scenario, seed=args.seed), ours, budget=args.budget)
    costs = read_cost_log(args.costs or ours)
    if args.costs is not None and args.costs.resolve() != ours.resolve():
        for name, target in ((args.costs, ours), (args.costs.with_name("machine.json"), args.out / "machine.json")):
            if name.exists():
                shutil.copyfile(name, target)
    return costs


def _requests(args: argparse.Namespace, scenario: Scenario) -> pd.DataFrame:
    ours = args.out / "requests.parquet"
    if args.requests is None and not ours.exists():
        with track_progress("serving requests") as progress:
            write_request_log(behaviour_log(scenario, args.rows, args.seed, progress=progress), ours, scenario)
    requests = read_request_log(args.requests or ours, scenario)
    if args.requests is not None and args.requests.resolve() != ours.resolve():
        write_request_log(requests, ours, scenario)
    return requests


def _fit(label: str, fit: Any, *data: Any, **options: Any) -> Any:
    with track_progress(f"fitting the {label}") as progress:
        return fit(*data, progress=progress, **options)


def _report(
    args: argparse.Namespace,
    scenario: Scenario,
    cost_model: Any,
    revenue_model: Any,
    held: pd.DataFrame,
    costs: pd.DataFrame,
) -> dict[str, Any]:
    """Errors on held-out requests and repeats; printed, too."""

    report: dict[str, Any] = {
        "held_out_requests": len(held),
        "cost_map": model_errors.cost_map_errors(scenario, costs),
        "results": model_errors.result_errors(cost_model, held),
        "cost": model_errors.cost_errors(cost_model, held),
        "whole_requests": model_errors.whole_request_errors(cost_model, held, costs),
        "revenue": model_errors.revenue_errors(revenue_model, held),
    }
    if args.truth:
        table = outcomes_with_progress(scenario, args.truth, args.seed + 1)
        report["revenue_truth"] = model_errors.truth_errors(revenue_model, table)
    _print_report(report)
    return report


def _print_report(report: dict[str, Any]) -> None:
    cost_map, revenue = report["cost_map"], report["revenue"]
    print(
        f"cost map: held-out error {cost_map['error']:.1%} against a test–retest spread of {cost_map['spread']:.1%} "
        f"(ratio {cost_map['ratio']:.2f})"
    )
    for name, error in report["results"].items():
        print(f"candidates of {name}: mean error {error['mae']:.1f} ({error['relative']:.1%}), R² {error['r2']:.4f}")
    for name, miss in report["cost"].items():
        print(f"cost on {name}: {miss:.1%} from predicted instead of true results")
    for name, miss in report["whole_requests"].items():
        print(f"cost on {name}: {miss:+.1%} predicted against whole requests measured")
    print(
        f"revenue: Spearman {revenue['spearman']:.3f} against sampled revenue, "
        f"calibration {revenue['calibration']:.3f}, error by decile {revenue['decile_error']:.1%}"
    )
    if "revenue_truth" in report:
        truth = report["revenue_truth"]
        print(
            f"revenue against the truth: Spearman {truth['spearman']:.3f} over requests and actions, "
            f"{truth['by_group']:.3f} over tenths of requests and actions, {truth['by_action']:.3f} over actions, "
            f"calibration {truth['calibration']:.3f}"
        )
