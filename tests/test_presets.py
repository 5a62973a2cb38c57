"""Presets refuse what no algorithm has, name the nearest valid option, and survive a round trip."""

from __future__ import annotations

import json

import pytest

from agents.presets import PRESETS, Preset, PresetError, preset


def test_vdn_and_qmix_differ_by_their_mixer_alone() -> None:
    vdn, qmix = PRESETS["VDN"], PRESETS["QMIX"]
    assert (vdn.network, vdn.objective, vdn.credit, vdn.joint) == (
        qmix.network,
        qmix.objective,
        qmix.credit,
        qmix.joint,
    )
    assert vdn.mixer.mixer == "sum"
    assert qmix.mixer.mixer == "absolute"


def test_table_6() -> None:
    options = PRESETS["AWRQMixer"].options
    expected = {
        "heads": 20,
        "gru": 256,
        "hidden": (512, 256),
        "dropout": 0.2,
        "gamma": 0.9,
        "target_update": 100,
        "mixer": "softplus",
        "mixer_activation": "relu",
        "mixer_input": "state",
        "head_weighting": "adaptive",
        "credit": "variance",
    }
    assert {k: options[k] for k in expected} == expected


@pytest.mark.parametrize(
    ("switch", "option", "value"),
    [
        ("adaptive_weighting", "head_weighting", "mean"),
        ("softplus_mixer", "mixer", "absolute"),
        ("variance_credit", "credit", "none"),
    ],
)
def test_an_ablation_turns_one_switch(switch: str, option: str, value: str) -> None:
    full = PRESETS["AWRQMixer"]
    without = full.replace(**{switch: False})
    assert without.options == {**full.options, option: value}
    assert without.replace(**{switch: True}).options == full.options
    assert full.replace(**{switch: True}) == full


def test_a_switch_leaves_another_form_of_the_same_idea() -> None:
    assert preset("AWRQMixer", credit="cumulative", variance_credit=True).credit.credit == "cumulative"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("QMIXX", {}, "did you mean 'QMIX'"),
        ("QMIX", {"head": 3}, "did you mean 'heads'"),
        ("QMIX", {"softplus_mixer": True}, "unknown option"),
        ("QMIX", {"mixer": "softpluss"}, "did you mean 'softplus'"),
        ("QMIX", {"gamma": 1.5}, "gamma is 1.5"),
        ("QMIX", {"hidden": (0,)}, "layer widths"),
        ("QMIX", {"heads": 2.5}, "whole number"),
        ("QMIX", {"credit": "variance"}, "agent_loss"),
        ("QMIX", {"weighting_level": "batch"}, "weighting_level has no effect"),
        ("QMIX", {"tau": 0.01, "target_update": 5}, "exclude each other"),
        ("VDN", {"mixer_width": 16}, "no effect"),
        ("JointDRQN", {"mixer": "softplus"}, "nothing to mix"),
        ("AWRQMixer", {"softplus_mixer": False, "mixer": "softplus"}, "contradicts"),
        ("AWRQMixer", {"variance_credit": "no"}, "true or false"),
    ],
)
def test_refusals(name: str, options: dict, message: str) -> None:
    with pytest.raises(PresetError, match=message):
        preset(name, **options)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_round_trip_through_json(name: str) -> None:
    assert Preset.from_dict(json.loads(json.dumps(PRESETS[name].to_dict()))) == PRESETS[name]


def test_a_damaged_description_is_one_error() -> None:
    data = PRESETS["QMIX"].to_dict()
    del data["mixer"]
    with pytest.raises(PresetError, match="mixer"):
        Preset.from_dict(data)
