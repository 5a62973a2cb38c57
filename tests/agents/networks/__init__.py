"""Tests of ``agents.networks``."""
