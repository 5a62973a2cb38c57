"""Check that a live cascade serves each joint action as the joint evaluation says."""

from __future__ import annotations

import numpy as np

from marca_env.cascade.cascade import LiveCascade
from marca_env.cascade.outcomes import DistinctPlans, evaluate_joint_actions


def assert_serving_agrees(cascade: LiveCascade, count: int) -> None:
    """Serve ``count`` requests with every joint action and compare results and outcomes."""
    requests = cascade.sample_requests(np.random.default_rng(3), count)
    plans = DistinctPlans(cascade)
    for k in range(len(requests)):
        request = requests.take([k])
        results, outcomes = evaluate_joint_actions(cascade, plans, request)
        for j, action in enumerate(cascade.scenario.joint_actions):
            served = cascade.serve(request, action)
            assert np.array_equal(served.results, results[j])
            alone = [served.impressions, served.clicks, served.revenue, served.gmv]
            assert np.allclose(alone, outcomes[j], rtol=1e-5)
