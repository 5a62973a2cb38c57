"""Training for the ``marca`` command and the experiments.

Start with :class:`benchmarks.training.trials.Trial`, one run as data, and ``run_trial``, which trains it. Experiment
files hold several trials; ``run_log`` writes a run's numbers; ``console`` shows them; ``greedy_rollout`` plays episodes
with an algorithm in training.
"""
