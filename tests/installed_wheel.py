"""Check an installed wheel without extras: `make wheel` runs this outside of the checkout, with `python -I`.

Importing must need no optional package, an episode must run, and a command that needs an extra must name it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed `marca` command."""
    program = [sys.executable, "-I", "-m", "benchmarks.cli", *arguments]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def main() -> None:
    """Import the four packages, play an episode, run the commands that need no extra."""
    import gymnasium

    import agents
    import benchmarks
    import marca_env
    import mpc

    checkout = Path(__file__).resolve().parents[1]
    for package in (marca_env, agents, mpc, benchmarks):
        place = Path(str(package.__file__)).resolve().parent
        assert checkout / package.__name__ != place, f"{package.__name__} comes from the checkout"
        assert (place / "py.typed").exists(), f"{package.__name__} ships no py.typed"
    for name in marca_env.__all__:
        assert getattr(marca_env, name) is not None
    assert mpc.FeedbackBalancer
    assert agents.AllocationPolicy
    assert agents.PRESETS

    env = marca_env.parallel_env()
    observations, _ = env.reset(seed=0)
    while env.agents:
        actions = {a: env.action_space(a).sample(observations[a]["action_mask"]) for a in env.agents}
        observations, *_ = env.step(actions)
    gymnasium.make("marca_env/Balancing-v0").reset(seed=0)

    for arguments in (["--help"], ["--version"], ["bench", "list"], ["train", "--help"]):
        done = run(*arguments)
        assert done.returncode == 0, (arguments, done.stderr)
    done = run("train", "--algo", "VDN", "--out", "nowhere")
    assert done.returncode == 2, done.stderr
    assert "pip install 'marca-env[rllib]'" in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    print("the wheel works without extras")


if __name__ == "__main__":
    main()
