"""Tests of mpc.planning."""
