"""``key=value`` options, option files and JSON objects on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cli.arguments import parse_pairs
from marca_env.utils.errors import InputError


def test_options_from_pairs_objects_and_files(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("heads: 3\nmixer: softplus\nlr: 1e-3\n")
    options = parse_pairs(
        [str(file), '{"gamma": 0.5}', "heads=5", "gru=null", "hidden=[8,4]", "double_q=false"], "--config"
    )
    assert options == {
        "heads": 5,
        "mixer": "softplus",
        "lr": 1e-3,
        "gamma": 0.5,
        "gru": None,
        "hidden": [8, 4],
        "double_q": False,
    }


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("heads", "give key=value"),
        ("=3", "give key=value"),
        ("no.yaml", "no such file"),
        ("{[", "not valid YAML or JSON"),
        ("{lr: 1, lr: 2}", "line 1, column 9: key 'lr' appears twice, first on line 1"),
    ],
)
def test_items_that_cannot_be_read_are_named(item: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_pairs([item], "--config")
