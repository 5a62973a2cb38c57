"""Hand-written YAML and JSON: exact values, and one line for every fault."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from marca_env.utils.yaml import parse_mapping, parse_yaml, read_mapping
from tests.helpers.paths import ROOT

SHIPPED = sorted(
    path
    for package in ("marca_env", "benchmarks", "examples")
    for path in (ROOT / package).rglob("*.yaml")
    if "data" not in path.parts
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e0", 1.0),
        ("1e-3", 0.001),
        ("-2.5E+2", -250.0),
        ("1.e5", 100_000.0),
        (".5e1", 5.0),
        ("1.5e3", 1500.0),
        ("1e", "1e"),
        ("e3", "e3"),
        ("1e3x", "1e3x"),
        ("'1e3'", "1e3"),
        ("7", 7),
        ("0.25", 0.25),
        ("'off'", "off"),
        ("null", None),
        ("true", True),
        ("{a: 1e-1, b: [2e2, x]}", {"a": 0.1, "b": [200.0, "x"]}),
    ],
)
def test_scalars_have_the_expected_value_and_type(text: str, value: Any) -> None:
    parsed = parse_yaml(text, "text")
    assert parsed == value
    assert type(parsed) is type(value)


def test_json_is_read_as_json_reads_it() -> None:
    data = {"a": [1, 2.5, 1e-7, None, True, "x: y"], "b": {"c": -1e300}, "ü": "\u2028"}
    assert parse_mapping(json.dumps(data), "text") == data


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_shipped_files_are_read_as_before(path: Path) -> None:
    """PyYAML's own loader gives the same, except that it leaves ``1e-3`` as text."""

    def numbers(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: numbers(v) for k, v in value.items()}
        if isinstance(value, list):
            return [numbers(v) for v in value]
        try:
            return float(value) if isinstance(value, str) and "e" in value else value
        except ValueError:
            return value

    assert read_mapping(path) == numbers(yaml.safe_load(path.read_text(encoding="utf-8")))


def test_a_merged_mapping_may_override_keys() -> None:
    text = "base: &base {a: 1, b: 2}\nother: {<<: *base, b: 3}\nthird: {<<: *base, a: 0}"
    assert parse_mapping(text, "text") == {
        "base": {"a": 1, "b": 2},
        "other": {"a": 1, "b": 3},
        "third": {"a": 0, "b": 2},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "line 3, column 1: key 'a' appears twice, first on line 1"),
        ("x:\n  y: {a: 1, 'a': 2}", "line 2, column 13: key 'a' appears twice, first on line 2"),
        ('{"a": 1, "a": 1}', "key 'a' appears twice"),
        ("a: [1, 2", "line 1, column 9: expected ',' or ']', but got '<stream end>'"),
        ("a: !!timestamp 2020-13-45", "could not determine a constructor"),
        ("? [1]\n: 2", "found unhashable key"),
        ("a: \x00", "special characters are not allowed"),
        ("", "expected a mapping, got nothing"),
        ("- a", "expected a mapping, got list"),
        ("3: x", "key 3 is not text; put it in quotes"),
    ],
)
def test_a_fault_is_one_line_with_its_place(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_mapping(text, "f.yaml")
    assert str(error.value).startswith("f.yaml: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: no such target file; check the path"):
        read_mapping(tmp_path / "none.yaml", "target")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"b\.yaml: not a text file in UTF-8 .*; save it as UTF-8"):
        read_mapping(tmp_path / "b.yaml")


@pytest.mark.parametrize(
    "date",
    [
        "2020-01-31",
        "2020-13-45",
        "0000-00-00",
        "2020-02-30 25:61:61",
        "2020-02-29T12:00:00+99:99",
        "9999-12-31T23:59:59-23:59",
    ],
)
def test_dates_stay_text_and_impossible_ones_are_one_line(date: str) -> None:
    assert parse_yaml(f"start: {date}", "file") == {"start": date}
    assert json.dumps(parse_yaml(f"[{date}, 1]", "file"))
    data = Scenario.load("default").to_dict()
    with pytest.raises(InputError, match=r"peak_qps: expected a finite number, got '\d{4}-\d\d-\d\d"):
        Scenario.from_dict({**data, **parse_yaml(f"peak_qps: {date}", "file")})
    with pytest.raises(InputError, match=r"not valid YAML or JSON: [^\n]*$"):
        parse_yaml("a: !!timestamp 2020-13-45", "file")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("off", "off"),
        ("no", "no"),
        ("Yes", "Yes"),
        ("12:30:45", "12:30:45"),
        ("1:30.5", "1:30.5"),
        ("010", "010"),
        ("=", "="),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("1_000", 1000),
        ("0x1F", 31),
        ("-0", 0),
        ("1.", 1.0),
        (".5e-3", 0.0005),
        ("2e3", 2000.0),
        ("-.inf", -math.inf),
        ("[a, on, 1]", ["a", "on", 1]),
    ],
)
def test_values_are_those_of_json_and_yaml_1_2(text: str, value: object) -> None:
    """An option or a channel named off, and a time of day, are what they look like."""
    assert parse_yaml(f"a: {text}", "file") == {"a": value}


@pytest.mark.parametrize("text", ["!!set {a, b}", "!!binary aGk=", "!!timestamp 2024-01-01", "!!omap [a: 1]"])
def test_types_that_json_does_not_have_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="could not determine a constructor for the tag"):
        parse_yaml(f"a: {text}", "file")


def nested_aliases(level: str) -> str:
    """Return lists of which each holds the one before nine times: twenty lines stand for 9²⁰ values."""
    return "a0: &a0 {x: 1}\n" + "".join(
        f"a{k}: &a{k} {level.format(', '.join([f'*a{k - 1}'] * 9))}\n" for k in range(1, 21)
    )


HOSTILE = {
    "aliases": (nested_aliases("[{}]"), "stands for more than 50,000 values"),
    "merges": (nested_aliases("{{<<: [{}]}}"), "stands for more than 50,000 values"),
    "endless list": ("a: &a [1, *a]", "contains itself"),
    "endless mapping": ("a: &a {<<: *a}", "contains itself"),
    "deep list": ("a: " + "[" * 100_000, "more than 64 levels of nesting"),
    "deep mapping": ("{a: " * 100_000, "more than 64 levels of nesting"),
    "deep lines": ("- " * 100_000 + "x", "more than 64 levels of nesting"),
    "many values": ("a: [" + "1," * 300_000 + "]", "more than 50,000 values"),
    "giant text": ("a: " + "x" * 2_000_000, "2,000,003 characters"),
    "giant integer": ("a: " + "1" * 900_000, "int of 900000 characters"),
    "giant float": ("a: 0." + "1" * 900_000, "float of 900002 characters"),
    "giant key": (f"? {'k' * 9000}\n: 1\n? {'k' * 9000}\n: 2", "appears twice, first on line 1"),
    "code": ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
    "wrong tag": ("a: !!bool maybe", "does not fit its tag"),
    "no time": ("a: !!timestamp x", "could not determine a constructor"),
    "empty integer": ("a: !!int ''", "does not fit its tag"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_made_to_exhaust_time_or_memory_is_one_line_at_once(kind: str, tmp_path: Path) -> None:
    text, message = HOSTILE[kind]
    (tmp_path / "f.yaml").write_text(text)
    began = time.process_time()
    for read in (lambda: parse_mapping(text, "f.yaml"), lambda: read_mapping(tmp_path / "f.yaml")):
        with pytest.raises(InputError) as error:
            read()
        assert message in str(error.value)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 500
    assert time.process_time() - began < 5


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "f.yaml").open("wb") as file:
        file.truncate(10 * 1024**3)
    with pytest.raises(InputError, match=r"10,737,418,240 bytes; it cannot be a file that is written by hand"):
        read_mapping(tmp_path / "f.yaml")


def test_a_few_aliases_and_long_texts_are_read() -> None:
    text = f"a: &a {{x: [1, 2]}}\nb: [*a, *a]\nc: {'word ' * 5000}\nd: '{'1' * 5000}'\n"
    data = parse_mapping(text, "text")
    assert data["b"] == [{"x": [1, 2]}] * 2
    assert len(data["c"]) == 24_999
    assert data["d"] == "1" * 5000
