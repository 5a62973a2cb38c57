"""Tests of ``agents.rllib``."""
