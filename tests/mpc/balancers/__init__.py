"""Tests of mpc.balancers."""
