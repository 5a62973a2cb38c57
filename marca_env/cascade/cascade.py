"""Live cascade: retrieval → pre-ranking → ranking → display, really computed, one request at a time.

A service runs ``LiveCascade.serve``, and the TestBench measures it. :mod:`marca_env.cascade.outcomes` evaluates all
joint actions of a request together with the same parts; both must agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marca_env.cascade.generated_world import GeneratedWorld
from marca_env.cascade.rated_world import RatedWorld
from marca_env.cascade.scorers import Scorer
from marca_env.cascade.world import FEATURES, MODELS, RequestBatch, World
from marca_env.scenario.scenario import CHANNELS, Scenario, ScenarioError
from marca_env.utils.errors import unknown_option

POPULAR_ITEMS = 60
"""Items that the popularity channel returns."""
CATEGORY_ITEMS = 30
"""Best items of each favourite category that the category channel returns."""
FAVOURITES = 2
"""Number of favourite categories of a user in the category channel."""
STAGES = ("retrieval", "pre_ranking", "ranking")


@dataclass(frozen=True)
class RequestPlan:
    """Work of each stage of the cascade under a joint action."""

    channels: tuple[str, ...]
    lengths: dict[str, int]
    """Recall length of each channel that has one."""
    rescoring: bool
    truncation: int
    """Candidates that pre-ranking hands to ranking."""


@dataclass(frozen=True)
class ServedRequest:
    """Candidates and outcomes of one served request."""

    results: np.ndarray
    """Candidates processed by each stage, (3,)."""
    shown: np.ndarray
    """Displayed items, best first."""
    impressions: float
    """Expected examined slots."""
    clicks: float
    revenue: float
    """Expected spend, currency."""
    gmv: float
    """Expected basket value of conversions, currency."""
    sampled: np.ndarray | None = None
    """Sampled impressions, clicks, revenue and gmv, (4,); ``None`` without a random generator."""


class LiveCascade:
    """Cascade over the catalogue of a scenario with the stages retrieval, pre_ranking and ranking.

    Its users and items are generated, or those of the ratings in the scenario's folder (``catalogue.world``).

    Raises:
        ScenarioError: the scenario has other stages, channels or features, or its ratings are not in its folder.
    """

    def __init__(self, scenario: Scenario | str = "default") -> None:
        self.scenario = Scenario.load(scenario)
        if self.scenario.stage_names != STAGES:
            raise ScenarioError(
                f"the live cascade runs the stages {', '.join(STAGES)}; scenario {self.scenario.name!r} has "
                f"{', '.join(self.scenario.stage_names)}: fit its models on logs of the real system instead"
            )
        for decision in self.scenario.decisions:
            for name in decision.channels:
                if name not in CHANNELS:
                    raise ScenarioError(
                        f"live cascade: decision {decision.name!r}: {unknown_option('channel', name, CHANNELS)}"
                    )
        for feature in self.scenario.features:
            if feature.name not in FEATURES or feature.kind != "category":
                raise ScenarioError(
                    f"the live cascade observes the categories {', '.join(FEATURES)}, not feature {feature.name!r} of "
                    f"kind {feature.kind!r}: fit the scenario's models on logs of the real system instead"
                )
        self.world: World = (
            GeneratedWorld(self.scenario) if self.scenario.catalogue.world is None else RatedWorld(self.scenario)
        )
        rng = np.random.default_rng([self.scenario.catalogue.seed, 1])
        self.scorers = {name: Scorer(self.world, name, rng) for name in ("rescoring", "pre_ranking", "ranking")}
        self.towers = np.ascontiguousarray(self.world.item_views["two_tower"][:, :-1])
        self.neighbours = np.ascontiguousarray(self.world.item_views["item_to_item"][:, :-1])
        self.popular = self._popular()
        self.by_category = self._best_of_category()
        limit = self.scenario.stages[0].queue_limit
        self.queue_limit = self.scenario.catalogue.items if limit is None else limit

    def _popular(self) -> list[np.ndarray]:
        """Return the most popular items that each placement group may show; a small catalogue has fewer."""
        order = np.argsort(-self.world.popularity, kind="stable")
        return [order[ok[order]][:POPULAR_ITEMS] for ok in self.world.eligible]

    def _best_of_category(self) -> list[np.ndarray]:
        """Return the items of each category, best estimated quality first."""
        quality = self.world.item_views["rescoring"][:, -1]
        members = [np.flatnonzero(self.world.category == c) for c in range(len(self.world.centres))]
        return [m[np.argsort(-quality[m], kind="stable")][:CATEGORY_ITEMS] for m in members]

    def sample_requests(self, rng: np.random.Generator, n: int, windows: np.ndarray | None = None) -> RequestBatch:
        """Draw ``n`` requests; ``windows`` (n,) fixes their time windows."""
        return self.world.sample_requests(rng, n, windows)

    # -- plans ---------------------------------------------------------------------------------------------
    def plan(self, action: np.ndarray) -> RequestPlan:
        """Translate a joint action (D,) of option indices; decisions that the scenario lacks run at their maximum."""
        channels, lengths, rescoring, truncation = CHANNELS, dict[str, int](), True, self.queue_limit
        for decision, option in zip(self.scenario.decisions, action, strict=True):
            choice = decision.options[option]
            if decision.kind == "channel":
                channels = choice
            elif decision.kind == "model":
                rescoring = choice != "off"
            elif decision.channel is None:
                truncation = choice
            else:
                lengths[decision.channel] = choice
        return RequestPlan(channels, lengths, rescoring, truncation)

    # -- stages --------------------------------------------------------------------------------------------
    def run_channel(self, name: str, request: RequestBatch, length: int | None = None) -> np.ndarray:
        """Return the candidates of one channel for a batch of one request, best first; item ids (≤ length,)."""
        if name == "popularity":
            return self.popular[request.placement[0]]
        if name == "category":
            return self._category(request)
        score = self._tower_score(request) if name == "two_tower" else self._neighbour_score(request)
        if score is None:
            return np.empty(0, dtype=np.int64)
        count = min(len(score), self.longest(name) if length is None else length)
        best = np.argpartition(-score, count - 1)[:count]
        return best[np.argsort(-score[best], kind="stable")]

    def longest(self, channel: str) -> int:
        """Return the longest recall length of ``channel`` in the scenario."""
        lengths = [d.options[-1] for d in self.scenario.decisions if d.channel == channel]
        return lengths[0] if lengths else self.queue_limit

    def _category(self, request: RequestBatch) -> np.ndarray:
        view = request.views[0, MODELS.index("rescoring")]
        favourite = np.argsort(-(self.world.centres @ view), kind="stable")[:FAVOURITES]
        return np.concatenate([self.by_category[c] for c in favourite])

    def _tower_score(self, request: RequestBatch) -> np.ndarray:
        return self.towers @ request.views[0, MODELS.index("two_tower")]

    def _neighbour_score(self, request: RequestBatch) -> np.ndarray | None:
        """Return each item's mean similarity to the user's history; ``None`` without a history."""
        history = request.history[0]
        history = history[history >= 0]
        if len(history) == 0:
            return None
        similar = self.neighbours @ self.neighbours[history].T
        score = np.maximum(similar, 0.0, out=similar).mean(axis=1)
        score[history] = -np.inf
        return score

    def retrieve(self, request: RequestBatch, plan: RequestPlan) -> tuple[np.ndarray, int]:
        """Run the channels, merge, filter and truncate; return (queue handed on, number of merged candidates)."""
        lists = [self.run_channel(c, request, plan.lengths.get(c)) for c in CHANNELS if c in plan.channels]
        merged = np.unique(np.concatenate(lists))
        eligible = self.world.eligible[request.placement[0], merged]
        order = -self.run_rescoring(request, merged) if plan.rescoring else self._round_robin(plan, lists, merged)
        queue, order = merged[eligible], order[eligible]
        if len(queue) > self.queue_limit:
            queue = queue[np.argpartition(order, self.queue_limit - 1)[: self.queue_limit]]
        return queue, len(merged)

    @staticmethod
    def _round_robin(plan: RequestPlan, lists: list[np.ndarray], merged: np.ndarray) -> np.ndarray:
        """Rank the merged candidates as if the channels took turns, each with its best first."""
        running = [k for k, c in enumerate(CHANNELS) if c in plan.channels]
        turn = np.concatenate([np.arange(len(x)) * len(CHANNELS) + k for k, x in zip(running, lists, strict=True)])
        place = np.full(len(merged), np.iinfo(np.int64).max)
        np.minimum.at(place, np.searchsorted(merged, np.concatenate(lists)), turn)
        return place

    def run_rescoring(self, request: RequestBatch, items: np.ndarray) -> np.ndarray:
        """Score retrieved candidates for this user, by expected spend."""
        return self._spend("rescoring", request, items)

    def run_pre_ranking(self, request: RequestBatch, items: np.ndarray) -> np.ndarray:
        """Score candidates with the light model, by expected spend."""
        return self._spend("pre_ranking", request, items)

    def run_ranking(self, request: RequestBatch, items: np.ndarray) -> np.ndarray:
        """Score candidates with the heavy model, by expected spend."""
        return self._spend("ranking", request, items)

    def _spend(self, model: str, request: RequestBatch, items: np.ndarray) -> np.ndarray:
        """Return log(predicted click probability · bid): auctions rank by expected spend."""
        audience = self.scenario.audience
        logit = audience.click_bias + audience.affinity_scale * self.scorers[model].score(request.views[0], items)
        return np.log(self.world.bid[items]) - np.log1p(np.exp(-logit))

    # -- whole requests ------------------------------------------------------------------------------------
    def serve(self, request: RequestBatch, action: np.ndarray, rng: np.random.Generator | None = None) -> ServedRequest:
        """Serve a batch of one request with a joint action (D,); ``rng`` also draws the user's reaction."""
        plan = self.plan(action)
        queue, merged = self.retrieve(request, plan)
        scores = self.run_pre_ranking(request, queue)
        count = min(plan.truncation, len(queue))
        finalists = queue[np.argpartition(-scores, count - 1)[:count]] if count < len(queue) else queue
        final = self.run_ranking(request, finalists)
        slots = self.world.slots[request.placement[0]]
        shown = finalists[np.argsort(-final, kind="stable")[:slots]]
        expected_value = self.expected_value(request, shown)
        examined = self.scenario.display.decay ** np.arange(len(shown))
        clicks, revenue, gmv = examined @ expected_value
        sampled = None if rng is None else self._react(request, shown, expected_value[:, 0], rng)
        results = np.array([merged, len(queue), len(finalists)])
        return ServedRequest(results, shown, float(examined.sum()), clicks, revenue, gmv, sampled)

    def _react(
        self, request: RequestBatch, shown: np.ndarray, click: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Sample a user who examines slots from the top, clicks, and converts after some clicks."""
        examined = np.cumprod(np.r_[1.0, rng.random(len(shown) - 1) < self.scenario.display.decay])
        clicked = examined * (rng.random(len(shown)) < click)
        bought = clicked * (rng.random(len(shown)) < self.world.conversion[shown])
        spend = clicked @ self.world.bid[shown] * request.value[0]
        return np.array([examined.sum(), clicked.sum(), spend, bought @ self.world.basket[shown]])

    def expected_value(self, request: RequestBatch, items: np.ndarray) -> np.ndarray:
        """Return the true expected clicks, spend and GMV of an examined impression of each item, (n, 3)."""
        click = self.world.click_probability(request, items)
        spend = click * self.world.bid[items] * request.value[0]
        gmv = click * self.world.conversion[items] * self.world.basket[items]
        return np.stack([click, spend, gmv], axis=1)
