"""Tests of ``agents.rllib.envs``."""
