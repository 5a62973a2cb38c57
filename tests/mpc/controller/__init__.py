"""Tests of mpc.controller."""
