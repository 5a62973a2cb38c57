"""One page per environment, from the docstring of its class and the spaces of an instance."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

import gymnasium

import marca_env
from marca_env.envs.batched_env import BatchedRecommender
from marca_env.envs.pettingzoo_env import RecommenderAEC, RecommenderParallel


@dataclass(frozen=True)
class Environment:
    """A page: its file name and title, how the environment is made, and the class whose docstring describes it."""

    slug: str
    title: str
    make: str
    kind: str
    cls: type
    instance: Any


def environments() -> list[Environment]:
    """Return every environment of the package, the multi-agent ones first."""
    pages = [
        Environment(
            "parallel",
            "Parallel environment",
            "marca_env.parallel_env()",
            "PettingZoo Parallel",
            RecommenderParallel,
            marca_env.parallel_env(),
        ),
        Environment("aec", "AEC environment", "marca_env.env()", "PettingZoo AEC", RecommenderAEC, marca_env.env()),
        Environment(
            "batched",
            "Batched environment",
            "marca_env.batched_env(num_envs=64)",
            "arrays, B requests in lockstep",
            BatchedRecommender,
            None,
        ),
    ]
    described: set[type] = set()
    for gym_id in marca_env.ENVIRONMENTS:
        env = gymnasium.make(gym_id)
        cls = type(env.unwrapped)
        if cls not in described:
            described.add(cls)
            name = gym_id.removeprefix("marca_env/")
            slug = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", re.sub(r"\d*-v\d+$", "", name)).lower()
            title = f"{name} to Stages{max(marca_env.STAGES)}-v0" if slug == "stages" else name
            pages.append(Environment(slug, title, f'gymnasium.make("{gym_id}")', "Gymnasium", cls, env))
    return pages


def _spaces(instance: Any) -> list[tuple[str, str]]:
    if instance is None:
        return []
    if not hasattr(instance, "possible_agents"):
        spaces = {"action space": instance.action_space, "observation space": instance.observation_space}
    else:
        spaces = {
            f"{kind} space of `{agent}`": getattr(instance, f"{kind}_space")(agent)
            for agent in instance.possible_agents
            for kind in ("action", "observation")
        }
    return [(name, f"`{_short(space)}`") for name, space in spaces.items()]


def _short(space: Any) -> str:
    """Return a space on one line, without the bounds of every element."""
    if isinstance(space, gymnasium.spaces.Dict):
        return f"Dict({', '.join(f'{name}: {_short(part)}' for name, part in space.items())})"
    if isinstance(space, gymnasium.spaces.Box):
        return f"Box{space.shape} {space.dtype}"
    return str(space)


def _page(env: Environment, links: dict[str, str]) -> str:
    rows = [("make it", f"`{env.make}`"), *_spaces(env.instance)]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    doc = inspect.cleandoc(env.cls.__doc__ or "")
    for name, link in links.items():
        doc = doc.replace(f"`{name}`", link)
    return f"# {env.title}\n\n| kind | {env.kind} |\n|---|---|\n{table}\n\n{doc}\n"


def environment_pages() -> dict[str, str]:
    """Return path → Markdown for every environment, and the overview."""
    listed = environments()
    rows = [f"| [{env.title}]({env.slug}.md) | `{env.make}` | {env.kind} |" for env in listed]
    index = "# Environments\n\nOne cascade, several views of it.\n\n| environment | make it | kind |\n|---|---|---|\n"
    names = {env.cls.__name__: env for env in listed} | {f"marca_env/{env.title}": env for env in listed}
    links = {name: f"[`{name}`]({env.slug}.md)" for name, env in names.items()}
    pages = {f"environments/{env.slug}.md": _page(env, links) for env in listed}
    return {"environments/index.md": index + "\n".join(rows) + "\n", **pages}
