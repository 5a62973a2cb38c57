"""A small policy that the tests of the decision server share."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.policy.allocation_policy import AllocationPolicy
from tests.helpers.policies import save_untrained_policy


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a policy with random weights on the default scenario."""
    folder = tmp_path_factory.mktemp("policy")
    save_untrained_policy(folder)
    return folder


@pytest.fixture(scope="session")
def policy(policy_folder: Path) -> AllocationPolicy:
    """Return the policy."""
    return AllocationPolicy.load(policy_folder)
