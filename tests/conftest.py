"""Fixtures that shrink everything: a small scenario, logs drawn from a known law, and models of it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from agents.policy.trust import KEY_VARIABLE
from marca_env.logs.log_files import write_request_log
from marca_env.models.cost_model import CostModel
from marca_env.models.engine import Engine
from marca_env.models.population import Population
from marca_env.models.revenue_model import RevenueModel
from marca_env.scenario.scenario import Scenario
from tests.helpers.factories import ExactLaw, make_cost_log, make_requests, make_tiny_scenario

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job: commands under test would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A key for the checkpoints of the tests, so that none is left in the user's folder; child processes use it too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_VARIABLE, str(tmp_path_factory.mktemp("key") / "signing.key"))
        yield


@pytest.fixture(scope="module")
def one_cpu_ray() -> Iterator[None]:
    """A local ray for what runs in this process, with one thread for torch."""
    import torch

    from agents.rllib.core.cluster import start_ray

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    start_ray(num_cpus=1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_scenario() -> Scenario:
    return make_tiny_scenario()


@pytest.fixture(scope="session")
def tiny_requests(tiny_scenario: Scenario) -> pd.DataFrame:
    return make_requests(tiny_scenario, 6000)


@pytest.fixture(scope="session")
def exact_law(tiny_scenario: Scenario) -> ExactLaw:
    return ExactLaw(tiny_scenario)


@pytest.fixture(scope="session")
def exact_engine(tiny_scenario: Scenario, tiny_requests: pd.DataFrame, exact_law: ExactLaw) -> Engine:
    """An engine that knows the law itself: what a request earns and costs can be worked out by hand."""
    return Engine(tiny_scenario, exact_law, exact_law, Population.from_log(tiny_scenario, tiny_requests))


@pytest.fixture(scope="session")
def tiny_artefacts(
    tiny_scenario: Scenario, tiny_requests: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder as `marca fit` leaves it: both models, the population and the request log."""
    folder = tmp_path_factory.mktemp("artefacts")
    CostModel.fit(tiny_scenario, tiny_requests, make_cost_log(tiny_scenario), epochs=15).save(folder / "cost_model")
    RevenueModel.fit(tiny_scenario, tiny_requests, members=2, epochs=30).save(folder / "revenue_model")
    Population.from_log(tiny_scenario, tiny_requests).save(folder / "population.parquet", tiny_scenario)
    write_request_log(tiny_requests, folder / "requests.parquet", tiny_scenario)
    return folder


@pytest.fixture(scope="session")
def tiny_engine(tiny_scenario: Scenario, tiny_artefacts: Path) -> Engine:
    """An engine of fitted models, loaded from their files."""
    return Engine.load(tiny_scenario, tiny_artefacts)
