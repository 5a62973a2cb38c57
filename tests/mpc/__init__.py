"""Tests of the package mpc."""
