"""Small cooperative games; they live in :mod:`agents.tasks.matrix_games`, this module keeps their former names."""

from agents.tasks.matrix_games import MatrixGame, TwoStepGame

__all__ = ["MatrixGame", "TwoStepGame"]
