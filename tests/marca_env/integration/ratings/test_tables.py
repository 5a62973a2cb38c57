"""Tables of ratings and attributes: formats, columns, repeated pairs, and faults in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marca_env.integration.ratings.tables import ColumnNames, read_attributes, read_ratings
from marca_env.utils.errors import InputError
from tests.helpers.ratings import make_attributes, make_events, make_ratings


def test_every_format_gives_the_same_ratings(tmp_path: Path) -> None:
    table = make_ratings()
    table.to_csv(tmp_path / "r.csv", index=False)
    table.to_csv(tmp_path / "r.csv.gz", index=False)
    table.to_csv(tmp_path / "r.tsv", index=False, sep="\t")
    table.to_parquet(tmp_path / "r.parquet")
    table.to_csv(tmp_path / "bare.csv", index=False, header=False)
    first = read_ratings(tmp_path / "r.csv")
    assert first.feedback == "explicit"
    assert first.columns == {"user": "userId", "item": "itemId", "rating": "rating", "time": "timestamp"}
    for name in ("r.csv.gz", "r.tsv", "r.parquet", "bare.csv"):
        other = read_ratings(tmp_path / name)
        for part in ("user", "item", "value", "item_ids"):
            np.testing.assert_array_equal(getattr(other, part), getattr(first, part), err_msg=name)


def test_pairs_are_sorted_by_user_and_time(tmp_path: Path) -> None:
    table = make_ratings()
    table.sample(frac=1, random_state=0).to_parquet(tmp_path / "r.parquet")
    ratings = read_ratings(tmp_path / "r.parquet")
    expected = table.sort_values(["userId", "timestamp"], key=lambda x: x.astype(str) if x.name == "userId" else x)
    np.testing.assert_array_equal(ratings.item_ids[ratings.item].astype(int), expected["itemId"])
    np.testing.assert_allclose(ratings.value, expected["rating"])


def test_dates_are_times(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("user,item,rating,date\na,x,1,2024-02-01 10:00\na,y,2,2023-12-31\n")
    ratings = read_ratings(tmp_path / "r.csv")
    assert ratings.item_ids[ratings.item].tolist() == ["y", "x"]


def test_of_repeated_ratings_the_last_counts_and_events_add_up(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("user,item,rating,time\na,x,5,2\na,x,1,1\na,y,3,1\n")
    ratings = read_ratings(tmp_path / "r.csv")
    assert dict(zip(ratings.item_ids[ratings.item], ratings.value, strict=True)) == {"x": 5.0, "y": 3.0}
    assert ratings.repeated == 1
    (tmp_path / "e.csv").write_text("user,item,plays\na,x,5\na,x,1\na,y,3\na,z,0\n")
    events = read_ratings(tmp_path / "e.csv")
    assert events.feedback == "implicit"
    assert dict(zip(events.item_ids[events.item], events.value, strict=True)) == {"x": 6.0, "y": 3.0}
    assert (events.repeated, events.without_events, events.has_time) == (1, 1, False)


def test_ratings_read_as_events_count_once(tmp_path: Path) -> None:
    make_ratings().to_csv(tmp_path / "r.csv", index=False)
    events = read_ratings(tmp_path / "r.csv", feedback="implicit")
    assert set(events.value) == {1.0}
    assert "rating" not in events.columns


def test_columns_can_be_named_and_items_without_ratings_added(tmp_path: Path) -> None:
    make_ratings().set_axis(["who", "what", "how", "when"], axis=1).to_csv(tmp_path / "r.csv", index=False)
    columns = ColumnNames("who", "what", "how", "when")
    ratings = read_ratings(tmp_path / "r.csv", columns, extra_items=["new"])
    assert "new" in ratings.item_ids
    assert ratings.columns["time"] == "when"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item,rating\na,x,1\n,y,2\n", "line 3, column 'user': '' is empty"),
        ("user,item,rating\na,x,1\nb,y,good\nb,z,bad\n", r"line 3, column 'rating': 'good' is not a number.*2 rows"),
        ("user,item,plays\na,x,1\nb,y,-3\n", "line 3, column 'plays': '-3' is below 0"),
        ("user,item,plays\na,x,0\nb,y,0\n", "column 'plays': no row has an event"),
        ("user,item,rating,time\na,x,1,2024-01-01\nb,y,3,soon\n", "line 3, column 'time': 'soon' is not a time"),
        (
            "user,thing,rating\na,x,1\n",
            "no column of the item .its columns: user, thing, rating.; name it with --item-",
        ),
        ("user,item,movie_id\na,x,1\n", "columns 'item', 'movie_id' could each be the item; name one with --item-"),
    ],
)
def test_a_bad_row_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_ratings(tmp_path / "r.csv")
    assert str(caught.value).startswith(str(tmp_path / "r.csv"))
    assert "\n" not in str(caught.value)


def test_other_faults_name_the_remedy(tmp_path: Path) -> None:
    make_events().to_csv(tmp_path / "e.csv", index=False)
    with pytest.raises(InputError, match="did you mean 'item'"):
        read_ratings(tmp_path / "e.csv", ColumnNames(item="itm"))
    with pytest.raises(InputError, match=r"no column of ratings.*--rating-column"):
        read_ratings(tmp_path / "e.csv", feedback="explicit")
    with pytest.raises(InputError, match="unknown feedback 'both'"):
        read_ratings(tmp_path / "e.csv", feedback="both")
    with pytest.raises(InputError, match="no such file"):
        read_ratings(tmp_path / "none.csv")


def test_attributes_have_several_categories(tmp_path: Path) -> None:
    make_attributes().to_csv(tmp_path / "i.csv.gz", index=False)
    attributes = read_attributes(tmp_path / "i.csv.gz")
    assert attributes.values[1] == ("all", "kind 1")
    pd.concat([make_attributes(), make_attributes().head(1)]).to_csv(tmp_path / "twice.csv", index=False)
    with pytest.raises(InputError, match="column 'itemId': '0' appears twice"):
        read_attributes(tmp_path / "twice.csv")
