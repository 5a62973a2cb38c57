"""Tests of ``agents.policy``."""
