"""Tests of ``agents.team``."""
