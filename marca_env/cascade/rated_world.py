"""World of real users and items: a factorisation of a table of ratings, in the folder of a scenario.

`marca fit --ratings` makes it (:mod:`marca_env.integration.rated_scenario`). Users, items, histories and who likes what
are those of the table. Bids, baskets, conversions, placements and the value of users are generated, as in
:mod:`marca_env.cascade.generated_world`.

Shapes: U users, I items, E pairs of a user and an item, C categories, d dimensions.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from marca_env.cascade.world import RequestBatch, UserDraw, World
from marca_env.scenario.scenario import Scenario, ScenarioError
from marca_env.utils.errors import one_line
from marca_env.utils.files import atomic_path

FILE = "world.npz"
"""Name of the file in a scenario's folder."""
_REMEDY = "use the folder that `marca fit --ratings` wrote, or write it again"


@dataclass(frozen=True)
class RatedData:
    """Users, items and pairs of a table of ratings.

    The affinity of user u to item i, before the residual, is ``user[u] @ item[i] / √d + shift``.
    """

    user: np.ndarray
    """Interests, float32 (U, d); the first dimensions explain most."""
    item: np.ndarray
    """Embeddings, float32 (I, d), of unit mean square in each dimension, as in a generated world."""
    quality: np.ndarray
    """Mean affinity of the users to each item, of zero mean and unit variance, float32 (I,)."""
    popularity: np.ndarray
    """Number of users with a rating of each item, int64 (I,)."""
    category: np.ndarray
    """int64 (I,)."""
    centres: np.ndarray
    """Mean embedding of the items of each category, float32 (C, d)."""
    starts: np.ndarray
    """The pairs of user u are ``starts[u]`` … ``starts[u + 1]`` − 1, oldest first; int64 (U + 1,)."""
    event_item: np.ndarray
    """Item of each pair, int64 (E,)."""
    event_liked: np.ndarray
    """Whether the pair may be part of the user's history, bool (E,)."""
    event_residual: np.ndarray
    """What the rating adds to the affinity of the pair, float32 (E,)."""
    shift: np.ndarray
    """Scalar, see above; it makes the mean affinity of all pairs zero."""
    history_edges: np.ndarray
    """Lengths of the history at which buckets 1, 2, … begin, int64."""
    similarity_weight: np.ndarray
    """Weight of each dimension in the similarity of two items, (d,)."""
    two_tower_rank: np.ndarray
    """Scalar: leading dimensions that the two-tower model knows."""

    def fingerprint(self) -> str:
        """Return a hash of all arrays."""
        digest = hashlib.sha256()
        for field in fields(self):
            array = np.ascontiguousarray(getattr(self, field.name))
            digest.update(f"{field.name} {array.dtype} {array.shape} ".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Write all arrays, atomically; no pickle."""
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez(file, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> RatedData:
        """Read what :meth:`save` wrote.

        Raises:
            ScenarioError: the file is missing, damaged, or lacks an array.
        """
        if not path.is_file():
            raise ScenarioError(f"{path}: no such file, but the scenario's users and items come from it; {_REMEDY}")
        try:
            with np.load(path, allow_pickle=False) as data:
                return cls(**{f.name: data[f.name] for f in fields(cls)})
        except (BadZipFile, KeyError, ValueError, OSError, EOFError, zlib.error) as error:
            raise ScenarioError(f"{path}: cannot be read ({one_line(error)[:120]}); {_REMEDY}") from None


class RatedWorld(World):
    """World of a scenario whose ``catalogue.world`` is the fingerprint of :data:`FILE` in its folder.

    Raises:
        ScenarioError: the scenario has no folder, or its file is missing, damaged or another one.
    """

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        data = _load(scenario)
        self.data = data
        rng = np.random.default_rng(scenario.catalogue.seed)
        self.embedding, self.quality, self.popularity = data.item, data.quality, data.popularity
        self.category, self.centres = data.category, data.centres
        self.history_edges = data.history_edges
        self.user_scale = np.sqrt(np.mean(data.user.astype(np.float64) ** 2, axis=0))
        self._draw_auctions(rng, len(data.item))
        self.item_views = self._item_views(rng)
        self.logit_shift = self._logit_shifts(rng)
        self._event_user = np.repeat(np.arange(len(data.user)), np.diff(data.starts))
        pairs = self._pair(self._event_user, data.event_item)
        order = np.argsort(pairs)
        self._pairs, self._residuals = pairs[order], data.event_residual[order].astype(np.float64)
        self._liked_before = np.concatenate([[0], np.cumsum(data.event_liked)])
        """Liked pairs among the first k of all users, (E + 1,)."""
        self._liked_items = data.event_item[data.event_liked]

    def _item_views(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw each model's view of the items.

        The two-tower model knows the leading dimensions only: a factorisation of lower rank. The item-to-item model
        weights dimensions by what they explain.
        """
        views = super()._item_views(rng)
        views["two_tower"][:, int(self.data.two_tower_rank) : -1] = 0.0
        views["item_to_item"][:, :-1] *= self.data.similarity_weight.astype(np.float32)
        return views

    def affinity(self, user: np.ndarray, embedding: np.ndarray, quality: np.ndarray) -> np.ndarray:
        """Return the affinity that the factors explain, for a user (d,) or users (B, d) and items (B, d): (B,)."""
        return (user * embedding).sum(axis=1) / np.sqrt(user.shape[-1]) + float(self.data.shift)

    def true_affinity(self, request: RequestBatch, items: np.ndarray) -> np.ndarray:
        """Return the affinity of one user to items (n,); that of a pair with a rating follows the rating, (n,)."""
        user, items = int(request.user_row[0]), np.asarray(items)
        score = self.affinity(request.user[0][None], self.embedding[items], self.quality[items])
        return score + self._residual(user, items)

    def _residual(self, user: int, items: np.ndarray) -> np.ndarray:
        """Return what ratings add to the affinity of a user to items (n,); zero without a rating."""
        pairs = self._pair(user, items)
        place = np.minimum(np.searchsorted(self._pairs, pairs), len(self._pairs) - 1)
        return np.where(self._pairs[place] == pairs, self._residuals[place], 0.0)

    def _pair(self, user: np.ndarray | int, items: np.ndarray) -> np.ndarray:
        return np.asarray(user, dtype=np.int64) * len(self.data.item) + items

    def _draw_users(self, rng: np.random.Generator, n: int) -> UserDraw:
        """Draw moments in the lives of users: each pair is as likely as any other, so active users come more often.

        The history of a request is the user's pairs before that moment, the latest last.
        """
        data, longest = self.data, self.scenario.catalogue.max_history
        event = rng.integers(len(data.event_item), size=n)
        user = self._event_user[event]
        end, start = self._liked_before[event], self._liked_before[data.starts[user]]
        length = end - start
        offset = end[:, None] - np.minimum(length, longest)[:, None] + np.arange(longest)
        inside = offset < end[:, None]
        history = np.full((n, longest), -1, dtype=np.int64)
        history[inside] = self._liked_items[offset[inside]]
        return UserDraw(data.user[user], history, length, user)


def _load(scenario: Scenario) -> RatedData:
    """Read the world of a scenario and check that it is the one that the scenario was written for."""
    where = f"scenario {scenario.name!r}: its users and items come from ratings"
    if scenario.home is None:
        raise ScenarioError(f"{where}, but it was not read from a folder that holds {FILE}; {_REMEDY}")
    data, spec = RatedData.load(scenario.home / FILE), scenario.catalogue
    if data.fingerprint() != spec.world:
        raise ScenarioError(f"{where}, but {scenario.home / FILE} is not the file that it was written with; {_REMEDY}")
    shape = (len(data.item), data.item.shape[1], len(data.centres))
    if shape != (spec.items, spec.dim, spec.categories):
        raise ScenarioError(
            f"{where}: {shape[0]} items, {shape[1]} dimensions and {shape[2]} categories; set catalogue.items, dim and "
            "categories to these"
        )
    return data
