"""``compile=loss`` with torch's C++ compiler, which takes most of a minute; other tests trace the losses alone."""

from __future__ import annotations

import pytest

from tests.agents.rllib.core.test_arithmetic import assert_same


@pytest.mark.slow
def test_compiled_losses_equal_those_of_the_operators(caplog: pytest.LogCaptureFixture) -> None:
    assert_same("QMIX", "inductor", caplog)
