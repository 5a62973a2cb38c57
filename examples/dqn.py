"""Train RLlib's DQN on the recommender: each stage learns independently from replayed steps.

    python examples/dqn.py [ITERATIONS]

Masked actions are never taken, never explored, and never the best next action of a target.
"""

import sys

from ray.rllib.algorithms.dqn import DQNConfig

from agents.rllib import independent, train

config = independent(DQNConfig(), env="marca_env/parallel-v0")
config.training(lr=5e-4, gamma=1.0, train_batch_size_per_learner=256, num_steps_sampled_before_learning_starts=1000)
config.training(training_intensity=16, epsilon=[[0, 1.0], [20_000, 0.05]], target_network_update_freq=1000)
config.env_runners(num_env_runners=0, num_envs_per_env_runner=20, rollout_fragment_length=5)
config.reporting(min_sample_timesteps_per_iteration=1000).debugging(seed=0)

iterations = int(sys.argv[1]) if len(sys.argv) > 1 else 40
algorithm, numbers = train(config, stop={"training_iteration": iterations}, report=print)
algorithm.stop()
print(f"revenue per request, currency: {numbers['episode_return_mean']:.4f}")
