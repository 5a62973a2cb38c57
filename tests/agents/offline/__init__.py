"""Tests of ``agents.offline``."""
