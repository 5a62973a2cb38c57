"""Train RLlib's PPO on the recommender: one policy for each stage, with action masks.

    python examples/ppo_independent.py [ITERATIONS]

40 iterations take about five minutes on two cores.
"""

import sys

from ray.rllib.algorithms.ppo import PPOConfig

from agents.rllib import independent, train

config = independent(PPOConfig(), env="marca_env/parallel-v0")
config.training(lr=1e-3, gamma=1.0, train_batch_size_per_learner=2000, minibatch_size=250, num_epochs=6)
config.env_runners(num_env_runners=0, num_envs_per_env_runner=20).debugging(seed=0)

iterations = int(sys.argv[1]) if len(sys.argv) > 1 else 40
algorithm, numbers = train(config, stop={"training_iteration": iterations}, report=print)
algorithm.stop()
print(f"revenue per request, currency: {numbers['episode_return_mean']:.4f}")
