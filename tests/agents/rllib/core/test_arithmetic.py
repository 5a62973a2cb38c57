"""Compiled losses are those of the operators; mixed precision keeps most of each gradient; settings are put back."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from agents.algorithms.presets import PRESETS
from agents.rllib import CONFIGS
from agents.rllib.core.arithmetic import compiled, resolve_precision, update_arithmetic
from agents.team.td_losses import team_losses
from agents.team.turn_plan import PLAN_KEY, plan_turns
from marca_env.utils.errors import InputError
from tests.agents.team.test_td_losses import ALONE, AWRQ, SPEC, make_team
from tests.agents.team.test_turn_plan import OPTIONS, common_batch, losses_and_gradients


def gradients(losses: Any, name: str, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return losses and gradients of a preset on a batch with common turns, by a function that computes losses."""
    online, target = (make_team(name, seed, OPTIONS.get(name, {}) | options) for seed in (1, 2))
    batch: dict[str, Any] = common_batch(ALONE if online.preset.joint else SPEC)
    batch[PLAN_KEY] = plan_turns(online, batch)
    torch.manual_seed(0)
    out = losses(online, target, batch)
    out["loss"].backward()
    return out, {n: p.grad for n, p in online.named_parameters() if p.grad is not None}


def assert_same(name: str, backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """Check that the compiled losses of a preset have the values and gradients of the operators."""
    function = compiled(team_losses, backend)
    (expected, expected_grads), (out, grads) = (gradients(f, name) for f in (team_losses, function))
    assert "without torch.compile" not in caplog.text
    for label, value in expected.items():
        torch.testing.assert_close(out[label], value, rtol=1e-12, atol=1e-13)
    assert grads.keys() == expected_grads.keys()
    for label, grad in expected_grads.items():
        torch.testing.assert_close(grads[label], grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["JointDQN"])
def test_traced_losses_equal_those_of_the_operators(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert_same(name, "aot_eager", caplog)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"JointDQN", "JointDDQN", "AveragedDQN"}))
def test_traced_losses_of_other_presets_equal_those_of_the_operators(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert_same(name, "aot_eager", caplog)


def test_a_loss_that_cannot_be_compiled_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def waits(x: torch.Tensor) -> torch.Tensor:
        return x + float(x.sum().item()) if x.sum() > 0 else x

    function = compiled(waits, "eager")
    with caplog.at_level(logging.WARNING):
        values = [function(torch.ones(2)), function(torch.ones(2))]
    assert torch.equal(torch.stack(values), torch.full((2, 2), 3.0))
    (record,) = caplog.records
    assert "compile: the loss runs without torch.compile" in record.message
    assert "\n" not in record.message


@pytest.mark.parametrize("name", ["AWRQMixer", "QMIX"])
def test_mixed_precision_keeps_the_direction_of_the_gradient(name: str) -> None:
    """bfloat16 has 8 bits: losses are within 3 %, and the whole gradient within 10 %, of those in float32."""
    options = AWRQ if name == "AWRQMixer" else {"gru": 5}
    online, target = (make_team(name, seed, options).float() for seed in (1, 2))
    batch = {k: v.float() if v.is_floating_point() else v for k, v in common_batch(SPEC).items()}
    exact, exact_grads = losses_and_gradients(online, target, batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, grads = losses_and_gradients(online, target, batch)
    assert rounded["loss"].item() == pytest.approx(exact["loss"].item(), rel=0.03)
    assert rounded["loss"].item() != exact["loss"].item()
    assert all(g.dtype == torch.float32 for g in grads.values())
    flat, flat_exact = (torch.cat([g[n].flatten() for n in exact_grads]) for g in (grads, exact_grads))
    assert float((flat - flat_exact).norm() / flat_exact.norm()) < 0.1


def test_settings_are_those_of_before_after_an_update() -> None:
    before = torch.get_float32_matmul_precision(), torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    with update_arithmetic("medium"):
        assert torch.get_float32_matmul_precision() == "medium"
    assert before == (
        torch.get_float32_matmul_precision(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    )
    assert [resolve_precision("auto", device) for device in ("cpu", "cuda")] == ["highest", "high"]
    assert resolve_precision("medium", "cuda") == "medium"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matmul_precision": "hihg"}, "did you mean 'high'"),
        ({"amp": "bf61"}, "did you mean 'bf16'"),
        ({"compile": "graphs"}, "did you mean 'graph'"),
    ],
)
def test_unknown_settings_name_the_nearest_valid_one(options: dict[str, str], message: str) -> None:
    config = CONFIGS["QMIX"]().environment("benchmarks.experiments.games.matrix_games.TwoStepGame").training(**options)
    with pytest.raises(InputError, match=message):
        config.validate()
