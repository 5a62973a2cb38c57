"""``marca fit``: fit the cost and revenue models of a scenario to logs, and report their errors.

With ``--mapping`` (or for logs without a header, as the method's authors published them) the logs are those of a
user's system, and the folder that is written is a scenario: see :mod:`marca_env.integration.mapping`. With
``--ratings`` the folder is a scenario whose live cascade serves the users and items of a table of ratings: see
:mod:`marca_env.integration.ratings`.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pandas as pd

from benchmarks.cli.arguments import SCENARIO_HELP
from benchmarks.cli.commands.testbench import measure
from benchmarks.cli.rating_arguments import add_rating_arguments, rated_sources
from benchmarks.days.artefacts import outcomes_with_progress
from marca_env.cascade.behaviour_policy import behaviour_log
from marca_env.integration.feature_coding import FILE as CODING_FILE
from marca_env.integration.fit_report import report_lines
from marca_env.integration.fit_system import fit_system
from marca_env.integration.logged_system import LoggedSystem, cascade_system, read_logged_system
from marca_env.integration.mapping import Mapping
from marca_env.integration.ratings.budgets import with_shares_of
from marca_env.integration.ratings.rated_scenario import REPORT as RATINGS_REPORT
from marca_env.integration.ratings.rated_scenario import (
    RatedSources,
    build_rated_scenario,
    copy_world,
)
from marca_env.integration.ratings.ratings_report import rated_report_lines
from marca_env.integration.records import HELDOUT_FILE, read_records
from marca_env.logs.log_files import read_cost_log, read_request_log, read_table, write_request_log
from marca_env.logs.published_samples import is_headerless
from marca_env.models.latency_map import FILE as LATENCY_FILE
from marca_env.models.recorded_outcomes import FILE as OUTCOMES_FILE
from marca_env.scenario.scenario import FILE as SCENARIO_FILE
from marca_env.scenario.scenario import Scenario
from marca_env.testbench.testbench import TestBench
from marca_env.utils.errors import InputError
from marca_env.utils.files import lock_output, read_json, write_json
from marca_env.utils.model_files import check_device
from marca_env.utils.progress import track_progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--scenario", default="default", metavar="NAME", help=SCENARIO_HELP)
    parser.add_argument(
        "--requests", type=Path, metavar="FILE", help="request log; default: OUT/requests.parquet, made if missing"
    )
    parser.add_argument(
        "--costs", type=Path, metavar="FILE", help="cost log; default: OUT/cost_log.csv, measured if missing"
    )
    parser.add_argument("--system", type=Path, metavar="FILE", help="system log of your own system (with --mapping)")
    parser.add_argument(
        "--mapping", metavar="FILE", help="YAML file that maps the columns of your own logs; makes a scenario"
    )
    parser.add_argument(
        "--outcomes",
        type=Path,
        metavar="FILE",
        help="recorded outcome of every joint action of every request, which environments then serve",
    )
    parser.add_argument(
        "--heldout", type=Path, metavar="FILE", help="features of the recorded requests that no learner may see"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the models and what they were fitted to"
    )
    parser.add_argument(
        "--rows", type=int, default=200_000, metavar="N", help="requests to serve for a log (default: %(default)s)"
    )
    parser.add_argument(
        "--members", type=int, default=5, metavar="N", help="networks of the revenue ensemble (default: %(default)s)"
    )
    parser.add_argument(
        "--truth",
        type=int,
        default=0,
        metavar="N",
        help="also compare with the true revenue of N requests of the live cascade",
    )
    parser.add_argument(
        "--budget", type=float, default=300.0, metavar="N", help="seconds for measuring costs (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the fits and the held-out rows (default: %(default)s)"
    )
    parser.add_argument(
        "--device", default="cpu", metavar="NAME", help="torch device of the fits (default: %(default)s)"
    )
    add_rating_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Read or make the logs, fit and evaluate the models, write the folder, and print the report."""
    uses_mapping = _uses_mapping(args)
    sources = rated_sources(args)
    with lock_output(args.out):
        base = None if sources is None else _build_world(args, sources)
        _fit(args, uses_mapping)
        if base is not None:
            _set_budgets(args.out, base)


def _build_world(args: argparse.Namespace, sources: RatedSources) -> Scenario:
    """Write the world of a table of ratings; fit its folder from now on, and return the scenario it is based on."""
    base = Scenario.load(args.scenario)
    scenario, report = build_rated_scenario(sources, args.out, base)
    for line in rated_report_lines(report):
        print(line)
    args.scenario = scenario.load_name
    return base


def _set_budgets(out: Path, base: Scenario) -> None:
    """Give the clusters of a folder budgets of the same shares as those of the scenario that it is based on."""
    scenario, shares = with_shares_of(base, Scenario.load(out))
    scenario.save(out / SCENARIO_FILE)
    report = read_json(out / RATINGS_REPORT)
    write_json(out / RATINGS_REPORT, {**report, "budget_shares": shares})
    for cluster in scenario.clusters:
        print(
            f"cluster {cluster.name}: budget {cluster.budget:g} of {cluster.cores:g} cores, {shares[cluster.name]:.1%} "
            f"of the cost of the most expensive action at the peak, as in scenario {base.name!r}"
        )


def _fit(args: argparse.Namespace, uses_mapping: bool) -> None:
    truth = None
    if uses_mapping:
        system = read_logged_system(Mapping.load(args.mapping or "published"), args.requests, args.costs, args.system)
    else:
        system = _cascade_logs(args)
        truth = outcomes_with_progress(system.scenario, args.truth, args.seed + 1) if args.truth else None
    records = None if args.outcomes is None else read_records(system, args.outcomes, args.heldout)
    options = {"members": args.members, "seed": args.seed, "device": args.device}
    report = fit_system(system, args.out, **options, truth=truth, records=records)
    for line in report_lines(report):
        print(line)
    files = ["scenario.yaml", "cost_model", "revenue_model", "population.parquet", "requests.parquet", "report.json"]
    if system.coder is not None:
        files.insert(1, CODING_FILE)
    files += [name for name in (LATENCY_FILE, OUTCOMES_FILE, HELDOUT_FILE) if (args.out / name).is_file()]
    print(f"wrote a scenario in {args.out}: {', '.join(files)}")
    print(f"use it: marca_env.parallel_env(scenario={str(args.out)!r}), marca train --scenario {args.out}")


def _uses_mapping(args: argparse.Namespace) -> bool:
    """Check the options before anything is measured; return whether a mapping describes the logs."""
    for name, least in (("rows", 1), ("members", 1), ("truth", 0)):
        if getattr(args, name) < least:
            raise InputError(f"--{name} is {getattr(args, name)}; it must be at least {least}")
    if args.mapping and args.requests is None:
        raise InputError("--mapping describes your own logs; pass them with --requests, --costs and --system")
    if args.outcomes is not None and (args.mapping or args.requests is None):
        raise InputError("--outcomes needs a scenario file and logs with its columns; pass --scenario and --requests")
    if args.heldout is not None and args.outcomes is None:
        raise InputError("--heldout names recorded requests; pass their outcomes with --outcomes")
    for path in (args.requests, args.costs, args.system, args.outcomes, args.heldout):
        if path is not None and not path.is_file():
            raise InputError(f"{path}: no such file; check the path")
    check_device(args.device)
    # The published sample of requests has no header; its mapping comes with the package.
    uses_mapping = bool(args.mapping) or (args.requests is not None and is_headerless(read_table(args.requests)))
    if args.system is not None and not uses_mapping:
        raise InputError("--system is read through a mapping; pass --mapping FILE")
    return uses_mapping


def _cascade_logs(args: argparse.Namespace) -> LoggedSystem:
    """Read the logs of the live cascade; measure or serve those that are missing."""
    scenario = Scenario.load(args.scenario)
    args.out.mkdir(parents=True, exist_ok=True)
    copy_world(scenario, args.out)
    costs = _costs(args, scenario)
    return cascade_system(scenario, _requests(args, scenario), costs)


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
