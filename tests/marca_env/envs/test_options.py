"""Tests of the options: one definition for all environments of requests, one default of `on_illegal`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

import marca_env
from marca_env.envs.gym_env import RecommenderEnv
from marca_env.envs.options import EnvOptions, TeamOptions, ViewOptions
from marca_env.envs.pettingzoo_env import raw_env
from marca_env.envs.price_env import BalancingEnv
from marca_env.models.engine import Engine
from marca_env.utils.errors import InputError

VIEWS = (marca_env.env, raw_env, marca_env.parallel_env, RecommenderEnv)


@pytest.mark.parametrize("make", VIEWS)
def test_signatures_of_the_views_show_all_options_and_defaults(make: Callable[..., Any]) -> None:
    parameters = inspect.signature(make).parameters
    options = ViewOptions if make is RecommenderEnv else TeamOptions
    assert {name: p.default for name, p in parameters.items()} == {f.name: f.default for f in fields(options)}


def test_signature_of_batched_env_shows_num_envs_and_all_options() -> None:
    parameters = dict(inspect.signature(marca_env.batched_env).parameters)
    assert parameters.pop("num_envs").default is inspect.Parameter.empty
    assert {name: p.default for name, p in parameters.items()} == {f.name: f.default for f in fields(EnvOptions)}


@pytest.mark.parametrize("make", [*VIEWS, lambda **options: marca_env.batched_env(2, **options)])
def test_unknown_option_names_the_nearest_valid_one(make: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="'rewrd'; did you mean 'reward'"):
        make(rewrd="revenue")


@pytest.mark.parametrize("make", [*VIEWS, marca_env.batched_env, BalancingEnv])
def test_unknown_option_is_also_the_type_error_of_python(make: Callable[..., Any]) -> None:
    """Libraries that try an option of their own, as TorchRL does, look for this error and this text."""
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'frameskip'"):
        make(frameskip=1)


def test_batched_env_has_no_render_mode() -> None:
    with pytest.raises(InputError, match="unknown environment option 'render_mode'"):
        marca_env.batched_env(2, render_mode="ansi")  # type: ignore[call-arg]


def test_every_environment_takes_the_nearest_legal_action_by_default(exact_engine: Engine) -> None:
    """Retrieval's first decision has two options; action 2 counts as option 1, the other agent waits."""
    batched = marca_env.batched_env(2, engine=exact_engine)
    batched.reset(seed=0)
    batched.step({"retrieval": np.full(2, 2), "pre_ranking": np.zeros(2, dtype=int)})
    aec, parallel = raw_env(engine=exact_engine), marca_env.parallel_env(engine=exact_engine)
    single = RecommenderEnv(engine=exact_engine)
    for env in (aec, parallel, single):
        env.reset(seed=0)
    aec.step(2)
    parallel.step({"retrieval": 2, "pre_ranking": 0})
    single.step(2)
    for core in (batched, aec._core, parallel._core, single._core):
        assert (core.actions[:, 0] == 1).all()
