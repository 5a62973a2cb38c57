"""Tests of ``agents.rllib.core``."""
