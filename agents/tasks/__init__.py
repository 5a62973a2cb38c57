"""Public cooperative tasks by id, and the small games among them; nothing here needs ray.

- :mod:`agents.tasks.registry`: id → how the task is built.
- :mod:`agents.tasks.matrix_games`: the climbing, penalty, two-step and 3×3 games.
"""
