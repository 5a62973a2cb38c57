"""The generated scenarios as Gymnasium environments: the single-agent view of each, with its documentation.

The multi-agent views take the preset's name: ``marca_env.parallel_env("ranking-model-v0")``, likewise ``env``,
``batched_env`` and ``marca train --scenario``.
"""

from __future__ import annotations

from typing import Any

from marca_env.envs.gym_env import RecommenderEnv
from marca_env.envs.request_window import RequestWindow


class RankingModelEnv(RecommenderEnv):
    """
    ## Description
    `marca_env/RankingModel-v0`, preset `ranking-model-v0`: three stages that all decide. Retrieval sets how many
    candidates it collects, pre-ranking how many of them it passes on, ranking which of three models scores them. Each
    stage has a cluster of its own. The scenario is generated: its costs and revenues follow the law of
    `marca_env.models.analytic`, stated there and known exactly, and were not measured.

    ## Action Space
    `Discrete(4)`: depth 100, 300, 900 or 2,700; then truncation 20, 60, 180 or 540; then ranker small, medium or
    large (relative prices 0.4, 1, 3). 48 joint actions. As multi-agent environment: agents `retrieval`,
    `pre_ranking` and `ranking`, each with one more action, `wait`.

    ## Observation Space
    As `marca_env/Recommender-v0`, of the features `uv` (6 buckets of user value), `w` (6 time windows), `supply` (4
    levels of how many candidates there are) and `taste` (3 levels of how many it takes to please).

    ## Rewards
    As `marca_env/Recommender-v0`; revenue is the law's expectation, at most some tenths of a currency unit.

    ## Starting State
    A request drawn from a fixed population in which the features are independent.

    ## Episode End
    Terminates after three decisions. Never truncates.

    ## Arguments
    As `marca_env/Recommender-v0`, but for `scenario`.

    ## Version History
    - v0: initial release
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("ranking-model-v0", **options)


class BurstyEnv(RecommenderEnv):
    """
    ## Description
    `marca_env/Bursty-v0`, preset `bursty-v0`: the stages, costs and revenues of `marca_env/RankingModel-v0` in a window
    of 60 requests under bursty traffic. Each request stands for a minute. Between the bursts dear options fit the
    budgets; in a burst they overload the clusters, and the requests after it feel degradation, backlog and drops.
    Traffic is a generated pattern of 240 minutes (`Scenario.traffic`) that begins at its first minute;
    `marca_env/Balancing-v0` with this scenario draws where it begins.

    ## Action Space
    As `marca_env/RankingModel-v0`, request after request.

    ## Observation Space
    As `marca_env/RankingModel-v0`, and for each of the three clusters the load over its budget, the degradation level
    over the deepest and the backlog over the time-out, and the share of the window that has passed.

    ## Rewards
    At the end of each request its reward, as in `marca_env/Recommender-v0`, net of what was dropped. `info` then also
    holds load, degradation, backlog and prices of each cluster, and the share dropped.

    ## Starting State
    Idle clusters and a request of the population.

    ## Episode End
    Terminates after 180 decisions. Never truncates.

    ## Arguments
    As `marca_env/Recommender-v0`, but for `scenario`; `window` (`marca_env.envs.request_window.RequestWindow`): its length, its traffic,
    and whether λ follows the load.

    ## Version History
    - v0: initial release
    """

    def __init__(self, window: RequestWindow | int | dict | None = 60, **options: Any) -> None:
        super().__init__("bursty-v0", window=window, **options)


class DataCentresEnv(RecommenderEnv):
    """
    ## Description
    `marca_env/DataCentres-v0`, preset `data-centres-v0`: the decisions of `marca_env/RankingModel-v0` at three data
    centres, in Asia, Europe and America, with a cluster for retrieval and one for pre-ranking and ranking in each. A
    request is served where its feature `i` says: it loads the two clusters there and pays their prices alone. Each
    site has budgets of its own and a day of its own, with peaks in its morning and evening: hours apart on the
    scenario's clock. Generated; nothing about it was measured.

    By the law, a price for each site earns 9.6 % more over a day within the same budgets than one for all (the best of
    2,440 pairs of prices, for retrieval and for ranking, that fits in each time window at its mean rate).

    ## Action Space
    As `marca_env/RankingModel-v0`: 48 joint actions.

    ## Observation Space
    As `marca_env/Recommender-v0`, of the features `uv` (6 buckets of user value), `w` (8 time windows of three hours),
    `g` (4 placement groups, which differ in how many candidates there are and how many it takes to please) and `i` (3
    data centres, whose requests are worth more the higher the code); prices of all six clusters.

    ## Rewards
    As `marca_env/RankingModel-v0`.

    ## Starting State
    A request drawn from a fixed population, in which the share of each site changes with the time window.

    ## Episode End
    Terminates after three decisions. Never truncates. With `window`, a request stands for a slice of its own site's
    traffic, and time passes there alone.

    ## Arguments
    As `marca_env/Recommender-v0`, but for `scenario`.

    ## Version History
    - v0: initial release
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("data-centres-v0", **options)


class StagesEnv(RecommenderEnv):
    """
    ## Description
    `marca_env/Stages2-v0` to `marca_env/Stages10-v0`, presets `stages-2-v0` to `stages-10-v0`: chains of n stages for
    studies of scale. The first n − 1 stages decide how many candidates to pass on (a ninth, a third or all of what the
    next may get), the last one which model scores them. The first half runs on the cluster `light`, the second on
    `heavy`. All have about the same cost and revenue in all, whatever n; they are generated, their law is that of
    `marca_env.models.analytic`, and nothing about them was measured.

    ## Action Space
    `Discrete(3)`, n times. 3ⁿ joint actions: 9 to 59,049. As multi-agent environment: agents `stage_1` to `stage_n`,
    each with one more action, `wait`.

    ## Observation Space
    As `marca_env/RankingModel-v0`: the same features and population.

    ## Rewards
    As `marca_env/RankingModel-v0`.

    ## Starting State
    As `marca_env/RankingModel-v0`.

    ## Episode End
    Terminates after n decisions. Never truncates.

    ## Arguments
    As `marca_env/Recommender-v0`, but for `scenario`.

    ## Version History
    - v0: initial release
    """

    def __init__(self, stages: int = 2, **options: Any) -> None:
        super().__init__(f"stages-{stages}-v0", **options)
