"""Presets refuse invalid options, name the nearest valid one, and survive a round trip."""

from __future__ import annotations

import json

import pytest

from agents.algorithms.presets import ALIASES, AWRQ_V2_SWITCHES, PRESETS, Preset, PresetError, preset


def test_vdn_and_qmix_differ_only_in_their_mixer() -> None:
    vdn, qmix = PRESETS["VDN"], PRESETS["QMIX"]
    assert (vdn.network, vdn.objective, vdn.credit, vdn.joint) == (
        qmix.network,
        qmix.objective,
        qmix.credit,
        qmix.joint,
    )
    assert vdn.mixer.mixer == "sum"
    assert qmix.mixer.mixer == "absolute"


def test_the_published_algorithms_are_presets() -> None:
    methods = "AveragedDQN AWRQMixer JointDDQN JointDQN JointDRQN QMIX REM VDN WeightedQMIX"
    assert set(PRESETS) == {*methods.split(), "IQL", "AWRQMixerV2"}


def test_presets_have_the_published_defaults() -> None:
    """Presets differ as in their papers; learning rate and batch size belong to the configuration."""
    flat = {name: p.options for name, p in PRESETS.items() if name != "AWRQMixerV2"}
    assert {n for n, o in flat.items() if o["gru"] is None} == {"JointDQN", "JointDDQN", "AveragedDQN", "REM"}
    assert {n for n, o in flat.items() if o["double_q"]} == {"VDN", "QMIX", "WeightedQMIX", "IQL", "JointDDQN"}
    assert {n: o["mixer"] for n, o in flat.items() if o["mixer"] != "sum"} == {
        "QMIX": "absolute",
        "WeightedQMIX": "absolute",
        "AWRQMixer": "softplus",
        "IQL": "none",
        "AveragedDQN": "none",
    }
    assert {n: o["head_weighting"] for n, o in flat.items() if o["head_weighting"] != "mean"} == {
        "AWRQMixer": "adaptive",
        "REM": "random",
    }
    assert [n for n, o in flat.items() if o["head_target"] == "mean"] == ["AveragedDQN"]
    assert [n for n, o in flat.items() if o["td_weighting"] != "none"] == ["WeightedQMIX"]
    assert all(o["mixer_input"] == "state" for o in flat.values())
    assert all(flat[n]["mixer_activation"] == "elu" for n in ("QMIX", "WeightedQMIX"))


def test_awrq_mixer_has_the_values_of_table_6() -> None:
    options = PRESETS["AWRQMixer"].options
    expected = {
        "optimizer": "adam",
        "initializer": "glorot_uniform",
        "loss": "mse",
        "double_q": False,
        "weighting_level": "sample",
        "head_target": "own",
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
def test_a_switch_changes_exactly_one_option(switch: str, option: str, value: str) -> None:
    full = PRESETS["AWRQMixer"]
    without = full.replace(**{switch: False})
    assert without.options == {**full.options, option: value}
    assert without.replace(**{switch: True}).options == full.options
    assert full.replace(**{switch: True}) == full


@pytest.mark.parametrize("switch", AWRQ_V2_SWITCHES)
def test_each_part_of_our_preset_can_be_switched(switch: str) -> None:
    full, (option, on, off) = PRESETS["AWRQMixerV2"], AWRQ_V2_SWITCHES[switch]
    assert full.options[option] in (on, off)
    assert full.replace(**{switch: False}).options == {**full.options, option: off}
    assert full.replace(**{switch: True}).options == {**full.options, option: on}


def test_our_preset_without_its_parts_is_vdn() -> None:
    bare = PRESETS["AWRQMixerV2"].replace(**dict.fromkeys(AWRQ_V2_SWITCHES, False), tau=None)
    inert = ("td_alpha", "credit_use")
    vdn = PRESETS["VDN"].options
    assert {n: v for n, v in bare.options.items() if n not in inert} == {n: v for n, v in vdn.items() if n not in inert}


def test_a_switch_keeps_another_value_of_the_same_component() -> None:
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
        ("JointDQN", {"td_weighting": "central"}, "is for teams"),
        ("QMIX", {"td_weighting": "optimist"}, "did you mean 'optimistic'"),
        ("VDN", {"td_alpha": 0.5}, "td_alpha has no effect with td_weighting 'none'"),
        ("QMIX", {"central_width": 8}, "central_width has no effect"),
        ("WeightedQMIX", {"td_alpha": 1.5}, "td_alpha is 1.5"),
        ("WeightedQMIX", {"mixer": "none", "agent_loss": 1.0}, "weights the mixer's errors"),
        ("QMIX", {"mixer": "none"}, "only agent_loss is left"),
        ("REM", {"mixer": "none", "agent_loss": 1.0}, "'random' mixes heads"),
        ("QMIX", {"optimizer": "adamw"}, "did you mean 'adam'"),
        ("QMIX", {"momentum": 0.9}, "momentum has no effect with optimizer 'adam'"),
        ("QMIX", {"optimizer": "sgd", "momentum": 1.0}, "momentum is 1.0"),
        ("QMIX", {"weight_decay": -0.1}, "not negative"),
        ("QMIX", {"loss": "hubber"}, "did you mean 'huber'"),
        ("QMIX", {"huber_delta": 0.5}, "huber_delta has no effect with loss 'mse'"),
        ("QMIX", {"loss": "huber", "huber_delta": 0}, "positive"),
        ("QMIX", {"activation": "rellu"}, "did you mean 'relu'"),
        ("QMIX", {"normalization": "layers"}, "did you mean 'layer'"),
        ("QMIX", {"initializer": "glorot"}, "did you mean 'glorot_"),
        ("QMIX", {"dropout": 1.0}, "in .0, 1."),
        ("QMIX", {"gru": None, "hidden": (), "dropout": 0.1}, "without hidden layers"),
        ("JointDQN", {"hidden": (), "normalization": "layer"}, "without hidden layers"),
        ("AWRQMixer", {"hidden": (), "activation": "sigmoid"}, "without hidden layers"),
        ("QMIX", {"leaky_slope": 0.2}, "leaky_slope has no effect with activation 'relu'"),
        ("QMIX", {"activation": "leaky_relu", "leaky_slope": -1}, "leaky_slope is -1"),
        ("QMIX", {"optimizer": "sgd", "rmsprop_alpha": 0.9}, "rmsprop_alpha has no effect"),
        ("QMIX", {"head_target": "mean"}, "head_target acts through agent_loss"),
        ("QMIX", {"head_action": "own"}, "head_action acts through agent_loss"),
        ("QMIX", {"ensemble_loss": "heads_and_mixture"}, "ensemble_loss acts through agent_loss"),
        ("QMIX", {"weighting_gradient": True}, "weighting_gradient has no effect"),
        ("IQL", {"mixer_target": "return"}, "mixer_target 'return' needs a mixer"),
        ("WeightedQMIX", {"mixer_target": "return"}, "mixer_target 'return' needs a mixer"),
        ("QMIX", {"heads": True}, "whole number"),
        ("QMIX", {"gamma": float("nan")}, "gamma is nan"),
        ("IQL", {"mixer_width": 8}, "no effect with mixer 'none'"),
        ("AWRQMixer", {"softplus_mixer": False, "mixer": "softplus"}, "contradicts"),
        ("AWRQMixer", {"variance_credit": "no"}, "true or false"),
        ("QMIX", {"td_lambda": 1.5}, "td_lambda is 1.5"),
        ("QMIX", {"trace": "all"}, "trace has no effect with td_lambda 0"),
        ("QMIX", {"td_lambda": 0.5, "mixer_target": "return"}, "td_lambda has no effect"),
        ("AWRQMixer", {"td_lambda": 0.5}, "set credit_use to 'weight'"),
        ("QMIX", {"credit_use": "weight"}, "credit_use has no effect with credit 'none'"),
        ("AWRQMixer", {"credit_share": 0.5}, "credit_share has no effect with credit_use 'reward'"),
        ("QMIX", {"mixer": "qplex", "mixer_input": "state+actions"}, "knows the joint action already"),
        ("QMIX", {"mixer": "qplex", "mixer_width": 8}, "mixer_width has no effect with mixer 'qplex'"),
        ("QMIX", {"attention_heads": 2}, "attention_heads has no effect with mixer 'absolute'"),
        ("QMIX", {"td_weighting": "advantage", "central_width": 8}, "central_width has no effect"),
        ("JointDRQN", {"mixer": "qplex"}, "nothing to mix"),
    ],
)
def test_invalid_options_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(PresetError, match=message):
        preset(name, **options)


def test_the_names_of_the_reference_code_are_understood() -> None:
    for alias, name in ALIASES.items():
        assert preset(alias) == PRESETS[name]
    assert not set(ALIASES) & set(PRESETS)
    assert preset("AWRQ", heads=3).network.heads == 3


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_survive_a_round_trip_through_json(name: str) -> None:
    assert Preset.from_dict(json.loads(json.dumps(PRESETS[name].to_dict()))) == PRESETS[name]


def test_presets_of_earlier_versions_get_the_defaults_of_new_options() -> None:
    """Options that did not exist get the values that earlier versions implied."""
    data = PRESETS["QMIX"].to_dict()
    for group, name in (("network", "activation"), ("network", "normalization"), ("objective", "loss")):
        del data[group][name]
    assert Preset.from_dict(data) == PRESETS["QMIX"]


def test_a_missing_group_is_one_error() -> None:
    data = PRESETS["QMIX"].to_dict()
    del data["mixer"]
    with pytest.raises(PresetError, match="mixer"):
        Preset.from_dict(data)
