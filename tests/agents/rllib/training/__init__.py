"""Tests of ``agents.rllib.training``."""
