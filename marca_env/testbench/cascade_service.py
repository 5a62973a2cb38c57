"""The live cascade as a service to measure: its buckets, and how each is served."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from marca_env.cascade.cascade import CHANNELS, LiveCascade, RequestPlan
from marca_env.cascade.world import RequestBatch
from marca_env.models.cost_map import model_component
from marca_env.scenario.scenario import Decision, Scenario
from marca_env.testbench.service import Bucket, Workload

POOL = 240
"""Number of requests that replays repeat."""
MAX_JOINT_ACTIONS = 200
"""Most joint actions that are measured one by one."""
QUEUE_STEPS = 5
"""Number of lengths at which a queue without a decision is measured, each twice the previous one."""


def low_discrepancy_points(n: int, dimensions: int) -> np.ndarray:
    """Return points (n, dimensions) in [0, 1) whose every prefix is spread evenly (additive recurrence).

    A replay serves as many requests as its rate allows; the first hundred must be as mixed as the first thousand.
    """
    ratio = 2.0
    for _ in range(64):  # the root of x^(d+1) = x + 1
        ratio = (1.0 + ratio) ** (1.0 / (dimensions + 1))
    return (0.5 + np.arange(1, n + 1)[:, None] * ratio ** -np.arange(1.0, dimensions + 1)) % 1.0


class CascadeService:
    """Service of the live cascade, with buckets by request value and by the work of a stage.

    - ``base``: a stage with almost no work, including the overhead of the service;
    - ``channel:<name>``: retrieval with that channel beside the cheapest one, minus retrieval without it;
    - ``queue``: a model scoring and cutting a queue, minus the same for one candidate;
    - ``model:…``: retrieval with the model switched on, minus the same without it;
    - ``degradation``: the cluster's stages under the scenario's degraded actions, against the undegraded ones,
      for joint actions spread evenly;
    - ``request``: the same undegraded stages; not part of the cost map, but a check of its sums;
    - ``joint_action``: the cluster's stages under one joint action, a check of cost map and latency map.

    Sites run the same stages on the same machines, so a stage is measured once, for the first of its clusters.

    Args:
        scenario: the system.
        seed: seed of the requests.
        value_buckets: buckets of request value.
        joint_actions: number of joint actions, spread evenly, that are measured one by one; 0: none.
    """

    def __init__(
        self, scenario: Scenario | str = "default", seed: int = 0, value_buckets: int = 3, joint_actions: int = 0
    ) -> None:
        self.n_joint_actions = joint_actions
        self.cascade = LiveCascade(scenario)
        self.scenario = self.cascade.scenario
        self.value_buckets = value_buckets
        self._rng = np.random.default_rng([seed, 3])
        pool = self.cascade.sample_requests(self._rng, POOL)
        points = low_discrepancy_points(POOL, 1 + len(self.scenario.decisions))
        history = np.argsort((pool.history >= 0).sum(axis=1), kind="stable")
        rows = [pool.take([k]) for k in history[np.argsort(np.argsort(points[:, 0]))]]
        value = np.array_split(np.argsort([row.value[0] for row in rows], kind="stable"), value_buckets)
        self._all = rows
        self._groups = [[rows[k] for k in np.sort(part)] for part in value]
        self._queues = {id(row): self._candidates(row) for row in rows}
        self._actions = self.scenario.joint_index((points[:, 1:] * self.scenario.action_shape).astype(np.int64))

    def _candidates(self, request: RequestBatch) -> np.ndarray:
        """Return a queue of at least the maximum length, retrieved items first."""
        everything = RequestPlan(CHANNELS, {}, False, self.cascade.queue_limit)
        queue = self._rng.permutation(self.cascade.retrieve(request, everything)[0])
        rest = self._rng.integers(self.scenario.catalogue.items, size=self.cascade.queue_limit)
        return np.concatenate([queue, rest])

    # -- what to measure -----------------------------------------------------------------------------------
    def buckets(self) -> list[Bucket]:
        """Return every bucket of the scenario."""
        return [*self._retrieval(), *self._queue(1), *self._queue(2), *self._degradation(), *self._joint_actions()]

    def _decision(self, kind: str, channel: str | None = None) -> Decision | None:
        """Return the scenario's decision of that kind (for that channel), if it has one."""
        return next((d for d in self.scenario.decisions if d.kind == kind and d.channel == channel), None)

    def _retrieval(self) -> Iterator[Bucket]:
        stage = self.scenario.stages[0]
        switch, model = self._decision("channel"), self._decision("model")
        fixed_model = model is None
        used = CHANNELS if switch is None else tuple(c for c in CHANNELS if any(c in o for o in switch.options))

        def retrieve(
            *channels: tuple[str, int | None], rescoring: bool = fixed_model, group: int | None = None
        ) -> Workload:
            return "retrieve", group, (("popularity", None), *channels), rescoring

        for group in range(self.value_buckets):
            yield Bucket(stage.name, stage.clusters[0], "base", group, 0, retrieve(group=group))
        for channel in used:
            decision = self._decision("queue", channel)
            for length in (None,) if decision is None else decision.options:
                alone = ("channel", channel), ("nothing",)
                added = retrieve((channel, length)), retrieve()
                workload, against = alone if channel == "popularity" else added
                yield Bucket(stage.name, stage.clusters[0], f"channel:{channel}", 0, length or 0, workload, against)
        if model is not None:
            option = next(o for o in model.options if o != "off")
            longest = self._decision("queue", "two_tower")
            for length in (50, 200, 800) if longest is None else longest.options:
                without, full = (retrieve(("two_tower", length), rescoring=on) for on in (False, True))
                merged = np.mean([self._retrieve(row, without)[1] for row in self._all[:20]])
                yield Bucket(
                    stage.name, stage.clusters[0], model_component(model, option), 0, float(merged), full, without
                )

    def _queue(self, index: int) -> Iterator[Bucket]:
        stage = self.scenario.stages[index]
        decision = self._decision("queue")
        longest = self.cascade.queue_limit
        lengths = [max(2, longest >> k) for k in reversed(range(QUEUE_STEPS))]
        if index == 2 and decision is not None:
            lengths = [min(n, longest) for n in decision.options]
        for group in range(self.value_buckets):
            base = ("queue", index, group, 1)
            yield Bucket(stage.name, stage.clusters[0], "base", group, 0, base)
            for n in sorted(set(lengths)):
                yield Bucket(stage.name, stage.clusters[0], "queue", group, n, ("queue", index, group, n), base)

    def _degradation(self) -> Iterator[Bucket]:
        for g, name in enumerate(self.scenario.cluster_names):
            stage = next(s.name for s in self.scenario.stages if name in s.clusters)
            yield Bucket(stage, name, "request", 0, 0, ("request", g, 0))
            for level in range(1, len(self.scenario.protection.levels) + 1):
                yield Bucket(stage, name, "degradation", 0, level, ("request", g, level), ("request", g, 0))

    def _joint_actions(self) -> Iterator[Bucket]:
        chosen = list(dict.fromkeys(self._actions.tolist()))[: self.n_joint_actions]
        for g, name in enumerate(self.scenario.cluster_names):
            stage = next(s.name for s in self.scenario.stages if name in s.clusters)
            for j in chosen:
                yield Bucket(stage, name, "joint_action", 0, j, ("joint_action", g, j))

    def results_of(self, joint_action: int) -> np.ndarray:
        """Return the candidates of each stage for every request of the replays, (``POOL``, 3)."""
        plan = self.cascade.plan(self.scenario.joint_actions[joint_action])
        queues = [self.cascade.retrieve(row, plan) for row in self._all]
        return np.array([(merged, len(queue), min(len(queue), plan.truncation)) for queue, merged in queues], float)

    # -- how it is served ----------------------------------------------------------------------------------
    def handler(self, workload: Workload) -> Callable[[int], object]:
        """Return a function that serves the k-th request of a workload; it prepares as much as possible in advance."""
        assert isinstance(workload, tuple)
        kind, *rest = workload
        if kind == "nothing":
            return lambda k: None
        if kind == "channel":
            return lambda k: self.cascade.run_channel(rest[0], self._all[k % POOL])
        if kind == "retrieve":
            rows = self._all if rest[0] is None else self._groups[rest[0]]
            plan = self._plan(workload)
            return lambda k: self.cascade.retrieve(rows[k % len(rows)], plan)
        if kind == "queue":
            index, group, n = rest
            rows = self._groups[group]
            queues = [self._queues[id(row)][:n] for row in rows]
            return lambda k: self._score(index, rows[k % len(rows)], queues[k % len(rows)], max(1, n // 2))
        if kind == "joint_action":
            return self._cluster_handler(rest[0], np.full(POOL, rest[1]))
        return self._degraded_handler(*rest)

    @staticmethod
    def _plan(workload: tuple) -> RequestPlan:
        _, _, channels, rescoring = workload
        lengths = {name: length for name, length in channels if length is not None}
        return RequestPlan(tuple(name for name, _ in channels), lengths, rescoring, 1)

    def _retrieve(self, request: RequestBatch, workload: Workload) -> tuple[np.ndarray, int]:
        assert isinstance(workload, tuple)
        return self.cascade.retrieve(request, self._plan(workload))

    def _score(self, index: int, request: RequestBatch, queue: np.ndarray, keep: int) -> np.ndarray:
        """Run pre-ranking (1) or ranking (2) on a queue, and cut it."""
        if index == 1:
            scores = self.cascade.run_pre_ranking(request, queue)
            return queue[np.argpartition(-scores, keep - 1)[:keep]] if keep < len(queue) else queue
        scores = self.cascade.run_ranking(request, queue)
        return queue[np.argsort(-scores, kind="stable")[: self.cascade.world.slots[request.placement[0]]]]

    def _site_of(self, cluster: int) -> int:
        """Return a site that uses a cluster; any will do, because all run the same stages."""
        return int(self.scenario.site_clusters[:, cluster].argmax())

    def _degraded_handler(self, cluster: int, level: int) -> Callable[[int], object]:
        """Return a function that runs the stages of one cluster under its degraded joint actions."""
        return self._cluster_handler(
            cluster, self.scenario.degraded(cluster, level, self._site_of(cluster))[self._actions]
        )

    def _cluster_handler(self, cluster: int, indices: np.ndarray) -> Callable[[int], object]:
        """Return a function that runs the stages of one cluster under the joint actions ``indices`` (``POOL``,)."""
        site = self._site_of(cluster)
        plans = [self.cascade.plan(self.scenario.joint_actions[j]) for j in indices]
        queues = [self.cascade.retrieve(row, plan)[0] for row, plan in zip(self._all, plans, strict=True)]
        retrieval, pre_ranking, ranking = (int(c) == cluster for c in self.scenario.stage_clusters[site])

        def serve(k: int) -> None:
            row, plan, queue = self._all[k % POOL], plans[k % POOL], queues[k % POOL]
            if retrieval:
                queue, _ = self.cascade.retrieve(row, plan)
            if pre_ranking:
                self._score(1, row, queue, plan.truncation)
            if ranking:
                self._score(2, row, queue[: plan.truncation], plan.truncation)

        return serve
