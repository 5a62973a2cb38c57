"""Read a table of ratings or events, and a table of item attributes.

CSV, TSV and other text tables (plain or compressed) and Parquet; columns are found by their names or given.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from marca_env.logs.numbers import parse_numbers
from marca_env.logs.raw_tables import read_raw
from marca_env.logs.text_tables import read_text_table
from marca_env.utils.errors import InputError, unknown_option

Feedback = Literal["explicit", "implicit"]
FEEDBACK: tuple[Feedback, ...] = ("explicit", "implicit")
ROLES = ("user", "item", "rating", "time")
_KNOWN_NAMES = {
    "user": ("user", "userid", "uid", "customer", "customerid", "visitor", "visitorid", "member", "memberid"),
    "item": (
        *("item", "itemid", "iid", "movie", "movieid", "product", "productid", "article", "articleid", "asin"),
        *("track", "trackid", "song", "songid", "artist", "artistid", "book", "bookid", "video", "videoid", "sku"),
    ),
    "rating": ("rating", "ratings", "score", "stars"),
    "count": ("count", "counts", "events", "plays", "playcount", "views", "clicks", "quantity", "weight"),
    "time": ("time", "timestamp", "date", "datetime", "ts", "unixtime", "createdat"),
    "category": ("category", "categories", "genre", "genres", "class", "classes", "topic", "topics", "tags"),
}
"""Names of columns, in small letters and digits only, that are recognised."""
_VALUE_SEPARATORS = re.compile(r"\s*[|;]\s*")


@dataclass(frozen=True)
class ColumnNames:
    """Names of the columns of both tables; ``None``: found by :data:`_KNOWN_NAMES`."""

    user: str | None = None
    item: str | None = None
    rating: str | None = None
    """Rating, or number of events."""
    time: str | None = None
    category: str | None = None
    """One or several categories of an item, separated by ``|`` or ``;``."""


@dataclass(frozen=True)
class Ratings:
    """Pairs of a user and an item, each once. E pairs, U users, I items (those of the attributes included)."""

    feedback: Feedback
    user: np.ndarray
    """Row of the user, int64 (E,); sorted, the pairs of a user from the oldest to the newest."""
    item: np.ndarray
    """Row of the item, int64 (E,)."""
    value: np.ndarray
    """Rating, or number of events, float64 (E,)."""
    n_users: int
    item_ids: np.ndarray
    """Id of each item in the tables, text (I,)."""
    has_time: bool
    """Whether the order of a user's pairs is that of a time column; else it is random."""
    repeated: int
    """Rows that repeat a pair: of ratings the last one counts, of events all."""
    without_events: int
    """Rows with a number of events of zero, which are left out."""
    columns: dict[str, str]
    """Column of each role that was read."""

    def take(self, rows: np.ndarray) -> Ratings:
        """Return some of the pairs, by mask or index, with all users and items."""
        taken = {name: getattr(self, name)[rows] for name in ("user", "item", "value")}
        rest = {n: getattr(self, n) for n in self.__dataclass_fields__ if n not in taken}
        return Ratings(**taken, **rest)


@dataclass(frozen=True)
class Attributes:
    """Categories of items."""

    ids: np.ndarray
    """Id of each item, text (I,)."""
    values: list[tuple[str, ...]]
    """Categories of each item; empty: unknown."""
    column: str


# -- ratings -------------------------------------------------------------------------------------------------------
def read_ratings(
    path: str | Path,
    columns: ColumnNames | None = None,
    *,
    feedback: str | None = None,
    extra_items: Sequence[str] | np.ndarray = (),
    seed: int = 0,
) -> Ratings:
    """Read a table with a row per rating or event.

    Args:
        path: CSV, TSV or another text table, plain or compressed, or Parquet.
        columns: names of its columns. A table of text without a header has the columns user, item, rating, time.
        feedback: ``explicit`` (ratings) or ``implicit`` (events, or their number); ``None``: explicit if there is a
            column of ratings.
        extra_items: ids of items without ratings that belong to the catalogue, too.
        seed: seed of the order of a user's pairs without a time column.

    Raises:
        InputError: a missing column, or a row without a user or an item, with a rating that is no number, or with a
            time that is none; names the file, the row, the column and the remedy.
    """
    path, columns = Path(path), columns or ColumnNames()
    if feedback is not None and feedback not in FEEDBACK:
        raise InputError(unknown_option("feedback", feedback, FEEDBACK))
    table = _Table.read(path)
    names = _rating_columns(table, columns, feedback)
    is_explicit = feedback == "explicit" or (feedback is None and "rating" in names)
    kind: Feedback = "explicit" if is_explicit else "implicit"
    if kind == "explicit" and "rating" not in names:
        raise InputError(
            f"{path}: no column of ratings ({table.listed}); name it with --rating-column, or pass --feedback implicit"
        )
    users, items = table.ids(names["user"], "user"), table.ids(names["item"], "item")
    value = np.ones(len(users))
    amount = names.get("rating", names.get("count"))
    if amount is not None:
        value = table.numbers(amount, "a number", least=None if kind == "explicit" else 0.0)
    time = table.times(names["time"]) if "time" in names else None
    counted = (value > 0) | (kind == "explicit")
    if not counted.any():
        raise InputError(f"{path}: column {amount!r}: no row has an event; pass rows with a number above zero")
    users, items, value = users[counted], items[counted], value[counted]
    time = None if time is None else time[counted]
    user, user_ids = pd.factorize(users, sort=True)
    item_ids = np.unique(np.concatenate([pd.unique(items), np.asarray(extra_items, dtype=object)]).astype(str))
    item = np.searchsorted(item_ids, items.astype(str))
    order = time if time is not None else np.random.default_rng(seed).permutation(len(user))
    pairs = pd.DataFrame({"user": user, "item": item, "value": value, "order": order})
    unique = _one_row_a_pair(pairs, kind)
    return Ratings(
        kind,
        unique["user"].to_numpy(np.int64),
        unique["item"].to_numpy(np.int64),
        unique["value"].to_numpy(np.float64),
        len(user_ids),
        item_ids,
        time is not None,
        len(pairs) - len(unique),
        int((~counted).sum()),
        names,
    )


def _rating_columns(table: _Table, columns: ColumnNames, feedback: str | None) -> dict[str, str]:
    """Return the column of each role that the table has."""
    if table.has_no_header:
        table.name_columns(ROLES)
    names = {}
    for role in ("user", "item"):
        names[role] = table.column(role, getattr(columns, role), needed=True)
    rating = table.column("rating", columns.rating)
    count = None if rating else table.column("count", None)
    names |= {"rating": rating, "count": count, "time": table.column("time", columns.time)}
    if feedback == "implicit" and columns.rating is None and rating is not None:
        del names["rating"]  # a rating is no number of events: each row counts once
    return {role: name for role, name in names.items() if name is not None}


def _one_row_a_pair(pairs: pd.DataFrame, kind: Feedback) -> pd.DataFrame:
    """Return one row for each pair of a user and an item, by user and then from the oldest to the newest."""
    pairs = pairs.sort_values(["user", "order"], kind="stable")
    if kind == "implicit":
        pairs = pairs.assign(value=pairs.groupby(["user", "item"])["value"].transform("sum"))
    return pairs.drop_duplicates(["user", "item"], keep="last")


# -- attributes ----------------------------------------------------------------------------------------------------
def read_attributes(path: str | Path, columns: ColumnNames | None = None) -> Attributes:
    """Read a table with a row per item and a column of categories.

    Raises:
        InputError: a missing column, a row without an item, or an item that appears twice.
    """
    path, columns = Path(path), columns or ColumnNames()
    table = _Table.read(path)
    name = table.column("item", columns.item, needed=True)
    category = table.column("category", columns.category, needed=True)
    assert name is not None
    assert category is not None
    ids = table.ids(name, "item")
    table.refuse(pd.Series(ids).duplicated().to_numpy(), name, "appears twice; remove one of the rows")
    texts = table.texts(category)
    values = [tuple(dict.fromkeys(v for v in _VALUE_SEPARATORS.split(text) if v)) for text in texts]
    return Attributes(ids.astype(str), values, category)


# -- any table -----------------------------------------------------------------------------------------------------
class _Table:
    """A table of a user, with the place of its rows for messages."""

    def __init__(self, path: Path, frame: pd.DataFrame, lines: np.ndarray, separator: str, word: str) -> None:
        self.path, self.frame, self.lines, self.separator, self._word = path, frame, lines, separator, word
        self.has_no_header = [*map(str, frame.columns)] == [f"column {k + 1}" for k in range(frame.shape[1])]

    @classmethod
    def read(cls, path: Path) -> _Table:
        if not path.is_file():
            raise InputError(f"{path}: no such file; check the path")
        if path.suffix == ".parquet":
            frame = read_raw(path)
            return cls(path, frame, np.arange(1, len(frame) + 1), ",", "row")
        table = read_text_table(path, header_decides=True)
        return cls(path, table.frame, table.lines, table.separator, "line")

    @property
    def listed(self) -> str:
        return f"its columns: {', '.join(map(str, self.frame.columns))}"

    def name_columns(self, names: Sequence[str]) -> None:
        """Name the columns of a table without a header."""
        self.frame = self.frame.iloc[:, : len(names)].set_axis(list(names[: self.frame.shape[1]]), axis=1)

    def column(self, role: str, given: str | None, *, needed: bool = False) -> str | None:
        """Return the column of a role, given or found by its name."""
        names = [str(name) for name in self.frame.columns]
        if given is not None:
            if given not in names:
                raise InputError(f"{self.path}: {unknown_option(f'column for --{role}-column', given, names)}")
            return given
        simple = [re.sub("[^a-z0-9]", "", name.lower()) for name in names]
        found = [name for name, plain in zip(names, simple, strict=True) if plain in _KNOWN_NAMES[role]]
        if len(found) > 1:
            raise InputError(
                f"{self.path}: columns {', '.join(map(repr, found))} could each be the {role}; name one "
                f"with --{role}-column"
            )
        if not found and needed:
            raise InputError(f"{self.path}: no column of the {role} ({self.listed}); name it with --{role}-column")
        return found[0] if found else None

    def texts(self, column: str) -> pd.Series:
        """Return a column as text; a missing value is an empty one."""
        values = self.frame[column]
        if values.dtype.kind == "f" and not (values.dropna() % 1).any():
            values = values.astype("Int64")  # whole numbers with gaps: 1.0 is the id 1
        missing = values.isna()
        return values.astype(str).str.strip().mask(missing, "")

    def ids(self, column: str, role: str) -> np.ndarray:
        """Return a column of ids as text (rows,)."""
        texts = self.texts(column)
        self.refuse((texts == "").to_numpy(), column, f"is empty; fill the {role} in or remove the row")
        return texts.to_numpy(dtype=object)

    def numbers(self, column: str, what: str, least: float | None = None) -> np.ndarray:
        """Return a column of finite numbers (rows,)."""
        values = self.frame[column]
        if values.dtype.kind in "iufb":
            numbers = values.to_numpy(np.float64)
        else:
            numbers = parse_numbers(self.texts(column), self.separator)[0]
        self.refuse(~np.isfinite(numbers), column, f"is not {what}; correct it or remove the row")
        if least is not None:
            self.refuse(numbers < least, column, f"is below {least:g}; correct it or remove the row")
        return numbers

    def times(self, column: str) -> np.ndarray:
        """Return a column of times as numbers (rows,); only their order matters."""
        values = self.frame[column]
        if values.dtype.kind in "iuf":
            return self.numbers(column, "a time")
        if values.dtype.kind != "M":
            numbers, _ = parse_numbers(self.texts(column), self.separator)
            if np.isfinite(numbers).all():
                return numbers
        stamps = pd.to_datetime(values, errors="coerce", format="mixed", utc=True)
        self.refuse(stamps.isna().to_numpy(), column, "is not a time; write 2024-05-31 18:00 or seconds since 1970")
        return stamps.astype("int64").to_numpy(np.float64)

    def refuse(self, bad: np.ndarray, column: str, problem: str) -> None:
        """Raise an error for the first of the bad rows, if there is one."""
        if bad.any():
            row, count = int(np.argmax(bad)), int(bad.sum())
            more = f" [{count} rows in all]" if count > 1 else ""
            value = str(self.frame[column].iloc[row])
            raise InputError(
                f"{self.path}: {self._word} {self.lines[row]}, column {column!r}: {value!r} {problem}{more}"
            )
