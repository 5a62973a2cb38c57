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
    The id is `marca_env/Deadline-v0`, the preset and the task `deadline-v0`. Stages, decisions, features, budgets
    and fitted models are those of `marca_env/Recommender-v0`. A request has to be answered within 4.1 ms.
    A late one earns half of what it would have earned under the cheapest joint action. Service times were measured in
    the running cascade (`latency.json`): channels of retrieval run side by side, stages one after the other. The limit
    is the 75th percentile of the joint actions' mean service time.

    More computation of either stage earns more as long as the other leaves time for it, so that the best option of a
    stage depends on the options of the other. Stages that each know only their own mean effect earn hardly more than
    the best static action (`marca headroom --scenario deadline-v0`).

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
    the best allocation just fits the budgets at the peak (an eighth of what the most expensive action needs), are the
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


class HandoverEnv(RecommenderEnv):
    """Three stages that each see what the others cannot: retrieval knows the user, later stages what was retrieved.

    ## Description
    The id is `marca_env/Handover-v0`, the preset and the task `handover-v0`. Retrieval chooses a source of candidates,
    pre-ranking how many of them are ranked, ranking which of three models scores them, or none. An accurate model pays
    where the user is valuable, the request difficult and the queue long. Who the user is, retrieval alone observes; how
    relevant and how hard to rank the list is, only later stages do. As a team, agents act on their own observations; in
    this single-agent view the controller sees everything that is observable at each turn.

    The scenario is generated from a stated law (`marca_env.envs.handover_preset`); nothing was measured. Its population
    holds every combination with its probability, so that the card (`marca headroom --scenario handover-v0`) is exact.
    Gains over the best static action, net of the task's prices:

    | decisions | gain |
    |---|---|
    | random | −64.0 % |
    | truncation only: the ranking model adapts | +16.8 % |
    | each agent's best option as if the others chose at random, all is observed | +44.9 % |
    | own information: each agent acts on its own observation alone (best team found) | +31.9 % |
    | joint: all that is observable | +48.8 % |
    | hindsight | +51.9 % |

    Acting on one's own observation loses 35 % of the gain of full information.

    ## Action Space
    `Discrete(4)`, 48 joint actions. As a multi-agent environment it has the agents `retrieval`, `pre_ranking` and
    `ranking`, each with one more action, `wait`.

    | step | decision | options |
    |---|---|---|
    | 0 | `source` | popular, personal, both |
    | 1 | `truncation` | 20, 60, 180, 540 candidates |
    | 2 | `ranker` | off, small, medium, large |

    ## Observation Space
    As in `marca_env/Recommender-v0`, with these features and signals:

    | name | values | seen by | meaning |
    |---|---|---|---|
    | `value` | 3 codes | retrieval | what the user is worth |
    | `taste` | 3 codes | retrieval | from mainstream to niche: popular lists suit less, ranking is harder |
    | `topic` | 2 codes | all | says how well the user's history probably fits |
    | signal `best` | number | pre_ranking, ranking | best score of the list: its relevance, with an error |
    | signal `spread` | number | pre_ranking, ranking | how hard the list is to rank, with an error |
    | signal `gap` | number | ranking | score gap at the cut |

    The feature `request` is hidden: it is the row of the records and in no observation.

    ## Rewards
    As in `marca_env/Recommender-v0`; `reward="lagrangian"` takes the task's prices, 5 on both clusters.

    ## Starting State
    A request drawn from the population.

    ## Episode End
    Terminates after three decisions. Never truncated.

    ## Arguments
    As in `marca_env/Recommender-v0`, without `scenario`.

    ## Version History
    - v0: initial release
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("handover-v0", **options)


class LlmCascadeEnv(RecommenderEnv):
    """Real questions, real scores of nine language models, real prices: which model answers, and does a second one?

    ## Description
    The id is `marca_env/LlmCascade-v0`, the preset and the task `llm-cascade-v0`. A router sees the question and
    decides which model answers first. A judge reads the answer, and decides whether and which second model answers. The
    last answer counts. Scores, prices and lengths of 5,489 training and 500 held-out questions are those of LLMRouter
    (MIT licence); the page "Routing between language models" shows how the preset was built, step by step.

    The data hold no answers and no judge. Stated, not measured: four characters are a token and every answer has 256;
    the judge's reading is the score of the answer seen through noise that makes it right in 80 % of the cases at the
    best threshold; a right answer is worth 0.004 dollars. The judge costs the price of the cheapest model. The unit of
    cost is the dollar: the cluster `api` has a budget of 0.20 dollars a minute at a peak of 20 questions per second.

    Rules are found on the training questions, judged on the held-out ones (`marca headroom --scenario llm-cascade-v0`).
    Joint decisions are estimated by forests of randomised trees, because conditional means given numbers are unknown:

    | decisions | net dollars per 1,000 questions | gain |
    |---|---|---|
    | random | 1.161 | −38.9 % |
    | best static action: the best single model | 1.900 | |
    | best rule: a second model where the judge's reading is low | 2.050 | +7.9 % |
    | truncation only: the second model adapts | 2.071 | +9.0 % |
    | independent | 2.123 | +11.8 % |
    | own information | 2.127 | +12.0 % |
    | joint | 2.146 | +13.0 % |
    | hindsight: the best pair for each question | 2.855 | +50.3 % |

    With 500 questions a difference of 0.05 between two rows is within chance.

    ## Action Space
    `Discrete(10)`, 90 joint actions. As a multi-agent environment it has the agents `router` and `judge`, each with one
    more action, `wait`.

    | step | decision | options |
    |---|---|---|
    | 0 | `first` | nine models, from the cheapest to the most expensive |
    | 1 | `second` | off, and the same nine models |

    ## Observation Space
    As in `marca_env/Recommender-v0`, with these features and signals:

    | name | values | seen by | meaning |
    |---|---|---|---|
    | `text` | 24 numbers | both | the question's text: TF-IDF and a truncated singular value decomposition |
    | `length` | number | both | log of the question's length |
    | signal `confidence` | number | judge | the judge's reading of the first answer |
    | signal `strength` | number | judge | mean score of the model that answered first |

    The feature `request` is hidden: it is the row of the records and in no observation.

    ## Rewards
    As in `marca_env/Recommender-v0`: what the answer is worth, less λ times the dollars spent. `reward="lagrangian"`
    takes the task's price, 1: net dollars.

    ## Starting State
    A training question, all with the same probability. `Engine.on_heldout()` gives the engine of the held-out ones.

    ## Episode End
    Terminates after two decisions. Never truncated.

    ## Arguments
    As in `marca_env/Recommender-v0`, without `scenario`.

    ## Version History
    - v0: initial release
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("llm-cascade-v0", **options)


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
