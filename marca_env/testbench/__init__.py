"""The TestBench: measure what computation costs on a running service.

Start with :class:`marca_env.testbench.testbench.TestBench`. It measures the live cascade
(:mod:`marca_env.testbench.cascade_service`) or a user's service (:mod:`marca_env.testbench.targets`, described in a
file that :mod:`marca_env.testbench.target_config` reads).
"""
