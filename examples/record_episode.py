"""Record requests of the default scenario as an animation: the cascade's decisions as the price of computation rises.

    python examples/record_episode.py --out results/episode.gif

Each request takes the joint action a* = argmax Q − Σ λ_g C_g of the fitted models: revenue Q minus the cost C_g on
each cluster g at its price λ_g. λ rises from one request to the next.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import marca_env

PRICES = (0.0, 0.5, 2.0, 5.0, 15.0, 40.0)
"""λ of the retrieval cluster; λ of the ranking cluster is a quarter of it."""


def record(price: float, seed: int) -> list[np.ndarray]:
    """Return the frames of one request: before the first decision, and after each."""
    prices = np.array([price, price / 4])
    env = marca_env.parallel_env(prices=prices, reward="lagrangian", render_mode="rgb_array")
    core = marca_env.batched_env(1, prices=prices, reward="lagrangian")
    core.reset(seed=seed)
    values, costs = core.engine.table(core.states)
    best = core.scenario.joint_actions[np.argmax(values[0] - costs[0] @ prices)]
    env.reset(seed=seed)
    frames = [env.render()]
    for agent, action in zip(core.encoder.turn_agent, best, strict=True):
        waits = {name: env.action_space(name).n - 1 for name in env.agents}
        env.step({**waits, agent: int(action)})
        frames.append(env.render())
    return frames


def main() -> None:
    """Write the animation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/episode.gif"))
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    frames, milliseconds = [], []
    for price in PRICES:
        pictures = record(price, args.seed)
        frames += [Image.fromarray(p).quantize(48) for p in pictures]
        milliseconds += [350] * (len(pictures) - 1) + [1800]
    frames[0].save(args.out, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0, optimize=True)
    print(f"wrote {args.out}: {len(frames)} frames, {args.out.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
