"""Tests of ``agents.algorithms``."""
