"""Tests of mpc.model."""
