"""Gymnasium environments of the generated scenarios: the single-agent view of each.

The multi-agent environments take the preset's name instead: ``marca_env.parallel_env("ranking-model-v0")``. So
do ``env``, ``batched_env`` and ``marca train --scenario``.
"""

from __future__ import annotations

from typing import Any

from marca_env.envs.gym_env import RecommenderEnv
from marca_env.envs.request_window import RequestWindow


class RankingModelEnv(RecommenderEnv):
    """A generated cascade of three stages that all decide; the last chooses its ranking model.

    ## Description
    The id is `marca_env/RankingModel-v0`, the preset `ranking-model-v0`. Retrieval decides how many candidates it
    collects, pre-ranking how many of them it passes on, and ranking which of three models scores them. Each stage has
    its own cluster. The scenario is generated: its costs and revenues follow the formulas of
    `marca_env.models.analytic` exactly; nothing was measured.

    ## Action Space
    `Discrete(4)`, 48 joint actions. As a multi-agent environment it has the agents `retrieval`, `pre_ranking` and
    `ranking`, each with one more action, `wait`.

    | step | decision | options |
    |---|---|---|
    | 0 | `depth` | 100, 300, 900, 2,700 candidates |
    | 1 | `truncation` | 20, 60, 180, 540 candidates |
    | 2 | `ranker` | small, medium, large (relative prices 0.4, 1, 3) |

    ## Observation Space
    As in `marca_env/Recommender-v0`, with these features:

    | feature | codes | meaning |
    |---|---|---|
    | `uv` | 6 | bucket of user value |
    | `w` | 6 | time window |
    | `supply` | 4 | how many candidates exist |
    | `taste` | 3 | how many candidates it takes to satisfy the user |

    ## Rewards
    As in `marca_env/Recommender-v0`. Revenue is the expectation of the formulas, at most some tenths of a currency
    unit.

    ## Starting State
    A request drawn from a fixed population with independent features.

    ## Episode End
    Terminates after three decisions. Never truncated.

    ## Arguments
    As in `marca_env/Recommender-v0`, without `scenario`.

    ## Version History
    - v0: initial release
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("ranking-model-v0", **options)


class BurstyEnv(RecommenderEnv):
    """A window of 60 requests under bursty traffic, in the cascade of `marca_env/RankingModel-v0`.

    ## Description
    The id is `marca_env/Bursty-v0`, the preset `bursty-v0`. Stages, costs and revenues are those of
    `marca_env/RankingModel-v0`. Each request stands for one minute of traffic. Between bursts, expensive options fit
    the budgets. In a burst they overload the clusters, and the later requests suffer degradation, backlog and drops.
    The traffic is a generated pattern of 240 minutes (`Scenario.traffic`) from its first minute on;
    `marca_env/Balancing-v0` with this scenario draws the first minute instead.

    ## Action Space
    As in `marca_env/RankingModel-v0`, for each request in turn.

    ## Observation Space
    As in `marca_env/RankingModel-v0`, and for each of the three clusters the load over its budget, the degradation
    level over the deepest level and the backlog over the time-out, and the share of the window that has passed.

    ## Rewards
    At the end of each request its reward as in `marca_env/Recommender-v0`, net of dropped requests. `info` of that step
    also holds load, degradation, backlog and prices of each cluster, and the share `dropped`.

    ## Starting State
    Idle clusters, and a request drawn from the population.

    ## Episode End
    Terminates after 180 decisions. Never truncated.

    ## Arguments
    As in `marca_env/Recommender-v0`, without `scenario`. `window` (default 60) sets the length, the traffic and whether
    λ follows the load (`marca_env.envs.request_window.RequestWindow`).

    ## Version History
    - v0: initial release
    """

    def __init__(self, window: RequestWindow | int | dict | None = 60, **options: Any) -> None:
        super().__init__("bursty-v0", window=window, **options)


class CongestionEnv(RecommenderEnv):
    """A window of twelve requests with two rush hours, in which load, backlog and degradation outlast a request.

    ## Description
    The id is `marca_env/Congestion-v0`, the preset and the task `congestion-v0`. Each request stands for one minute of
    traffic. Its computation loads two clusters: `light` runs retrieval and pre-ranking, `heavy` runs ranking. A load
    over the budget raises the degradation level of the cluster, which caps the options of the next requests until
    agents ask for less than the budget again. Work beyond the cores waits, at most two minutes; what does not fit is
    dropped with its revenue. The budgets are a fifth of what the most expensive action costs at the peak.

    The traffic is the same in every window, so that an agent that sees the share of the window can know what comes:
    rush hours from the fourth and from the ninth minute. To earn much, agents spend on valuable requests, ask for
    little while degraded, and keep room for the rush. A policy that looks only at the current request loses half of
    the possible gain (`marca headroom --scenario congestion-v0`). The scenario is generated; nothing was measured.

    ## Action Space
    `Discrete(4)`, three decisions for each request in turn: 64 joint actions. As a multi-agent environment it has the
    agents `retrieval`, `pre_ranking` and `ranking`, each with one more action, `wait`.

    | decision | options |
    |---|---|
    | `depth` | 100, 300, 900, 2,700 candidates |
    | `truncation` | 20, 60, 180, 540 candidates |
    | `ranker` | tiny, small, medium, large (relative prices 0.15, 0.4, 1, 3) |

    ## Observation Space
    As in `marca_env/Recommender-v0`, with the features `uv` (6 buckets of user value; the last is worth twenty times
    the first) and `taste` (3: how many candidates it takes to satisfy the user), and for both clusters the load over
    the budget, the degradation level over the deepest level and the backlog over the time-out, and the share of the
    window that has passed.

    ## Rewards
    At the end of each request its revenue, net of dropped requests. `info` of that step also holds load, degradation,
    backlog and prices of each cluster, and the share `dropped`.

    ## Starting State
    Idle clusters, and a request drawn from the population.

    ## Episode End
    Terminates after 36 decisions. Never truncated.

    ## Arguments
    As in `marca_env/Recommender-v0`, without `scenario`. `window` replaces the scenario's own window.

    ## Version History
    - v0: initial release
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("congestion-v0", **options)


class DeadlineEnv(RecommenderEnv):
    """The published cascade with a latency limit: stages that each spend more miss it together.

    ## Description
    The id is `marca_env/Deadline-v0`, the preset and the task `deadline-v0`. Stages, decisions, features and fitted
    models are those of `marca_env/Recommender-v0`; the budgets are larger. A request has to be answered within 4.1 ms.
    A late one earns half of what it would have earned under the cheapest joint action. Service times were measured in
    the running cascade (`latency.json`): channels of retrieval run side by side, stages one after the other. The limit
    is the 75th percentile of the joint actions' mean service time.

    More computation of either stage earns more as long as the other leaves time for it, so that the best option of a
    stage depends on the options of the other. Stages that each know only their own mean effect earn less than the best
    static action (`marca headroom --scenario deadline-v0`).

    One request is an episode and no load is simulated: nothing waits. With `window`, and in the simulated day, loaded
    clusters make requests wait.

    ## Action Space
    As in `marca_env/Recommender-v0`: 1,000 joint actions.

    ## Observation Space
    As in `marca_env/Recommender-v0`, and the mean service time of the earlier stages over the limit, once they have
    decided.

    ## Rewards
    As in `marca_env/Recommender-v0`; the revenue is net of lateness. `info` of the last step also holds `latency`, the
    mean seconds until the request is answered, and `late`, the probability that it is late. The task's prices, at which
    the best allocation just fits the budgets at the peak (20 % of what the most expensive action needs), are the
    scenario's own: `reward="lagrangian"` takes them where none are given.

    ## Starting State
    As in `marca_env/Recommender-v0`.

    ## Episode End
    Terminates after five decisions. Never truncated.

    ## Arguments
    As in `marca_env/Recommender-v0`, without `scenario`.

    ## Version History
    - v0: initial release
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("deadline-v0", **options)


class DataCentresEnv(RecommenderEnv):
    """The decisions of `marca_env/RankingModel-v0` at three data centres with their own clusters and prices.

    ## Description
    The id is `marca_env/DataCentres-v0`, the preset `data-centres-v0`. The data centres are in Asia, Europe and
    America; each has one cluster for retrieval and one for pre-ranking and ranking. The feature `i` says where a
    request is served: it loads the two clusters there and pays only their prices. Each site has its own budgets and its
    own day with a morning and an evening peak, hours apart on the scenario's clock. The scenario is generated; nothing
    was measured.

    By the formulas, one price per site earns 9.6 % more over a day within the same budgets than one price for all sites
    (the best of 2,440 pairs of prices, for retrieval and for ranking, that fits in each time window at its mean rate).

    ## Action Space
    As in `marca_env/RankingModel-v0`: 48 joint actions.

    ## Observation Space
    As in `marca_env/Recommender-v0`, with the prices of all six clusters and these features:

    | feature | codes | meaning |
    |---|---|---|
    | `uv` | 6 | bucket of user value |
    | `w` | 8 | time window of three hours |
    | `g` | 4 | placement group: how many candidates exist and how many it takes to satisfy the user |
    | `i` | 3 | data centre; requests of a higher code are worth more |

    ## Rewards
    As in `marca_env/RankingModel-v0`.

    ## Starting State
    A request drawn from a fixed population; the share of each site changes with the time window.

    ## Episode End
    Terminates after three decisions. Never truncated. With `window`, a request stands for a slice of its own site's
    traffic, and time passes at this site alone.

    ## Arguments
    As in `marca_env/Recommender-v0`, without `scenario`.

    ## Version History
    - v0: initial release
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("data-centres-v0", **options)


class StagesEnv(RecommenderEnv):
    """A generated chain of n stages, for studies of scale.

    ## Description
    The ids are `marca_env/Stages2-v0` to `marca_env/Stages10-v0`, the presets `stages-2-v0` to `stages-10-v0`. The
    first n − 1 stages decide how many candidates to pass on (a ninth, a third or all of the next stage's maximum), the
    last stage which model scores them. The first half of the stages runs on the cluster `light`, the second half on
    `heavy`. Total cost and revenue are about the same for every n. The scenarios are generated by the formulas of
    `marca_env.models.analytic`; nothing was measured.

    ## Action Space
    `Discrete(3)`, n times: 3ⁿ joint actions, from 9 to 59,049. As a multi-agent environment it has the agents `stage_1`
    to `stage_n`, each with one more action, `wait`.

    ## Observation Space
    As in `marca_env/RankingModel-v0`, with the same features.

    ## Rewards
    As in `marca_env/RankingModel-v0`.

    ## Starting State
    As in `marca_env/RankingModel-v0`, with the same population.

    ## Episode End
    Terminates after n decisions. Never truncated.

    ## Arguments
    As in `marca_env/Recommender-v0`, without `scenario`. The id sets `stages`, the number n of stages.

    ## Version History
    - v0: initial release
    """

    def __init__(self, stages: int = 2, **options: Any) -> None:
        super().__init__(f"stages-{stages}-v0", **options)
