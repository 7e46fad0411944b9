"""Tasks by name: their configurations, their environments by backend, and what they are trained with.

    @registry.envcfg("my-task", "one line for --list")
    @dataclass(frozen=True)
    class MyCfg(EnvCfg): ...

    @registry.env("my-task", "numpy")
    class MyEnv(ArrayEnv): ...

    @registry.rlcfg("my-task")
    def training(): return {"ppo.gamma": 0.99}

A package makes its tasks known by an entry point of the group foal.environments that names a module
of such definitions; a task in a module of one's own is "module:name", the module being found from
the current folder too.
"""

import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from config import Config, EnvCfg
from environments.contracts import ABEnv
from host import available_cores
from physics.jit import ROOT, compiling
from settings import ConfigError, flat, imported, override, suggest

Decorated = TypeVar("Decorated")
GROUP = "foal.environments"


@dataclasses.dataclass
class _Task:
    description: str
    cfg: Callable[[], EnvCfg]
    fit: Callable[[EnvCfg, EnvCfg], EnvCfg] | None = None
    envs: dict[str, Callable[..., ABEnv]] = dataclasses.field(
        default_factory=dict
    )  # by backend, the preferred one first
    rl: Callable[[], dict[str, Any]] | None = None


_TASKS: dict[str, _Task] = {}


def envcfg(
    name: str, description: str = "", fit: Callable[[EnvCfg, EnvCfg], EnvCfg] | None = None
) -> Callable[[Decorated], Decorated]:
    """Make a task known by its configuration: a subclass of EnvCfg, or a function that returns one.

    fit: returns the first configuration with the model of the second, and the numbers that go with it.

    Raises ValueError if the name is taken or is none.
    """

    def register(make_cfg: Decorated) -> Decorated:
        if not isinstance(name, str) or not name or ":" in name:
            raise ConfigError(f"envcfg: expected a name without a colon, got {name!r}")
        if name in _TASKS:
            raise ConfigError(f"envcfg: expected a new name, got {name!r}; known: {', '.join(_TASKS)}")
        _TASKS[name] = _Task(description or (make_cfg.__doc__ or "").split("\n")[0], make_cfg, fit)
        return make_cfg

    return register


def env(name: str, backend: str = "numpy") -> Callable[[Decorated], Decorated]:
    """Make a task's environment for a backend known: a class, called with cfg, num_envs and threads.

    Raises ValueError if there is no configuration of that name, or an environment for that backend.
    """

    def register(make_env: Decorated) -> Decorated:
        envs = _known(name, "env").envs
        if backend in envs:
            raise ConfigError(f"env: expected a new backend of {name}, got {backend!r}; known: {', '.join(envs)}")
        envs[backend] = make_env
        return make_env

    return register


def rlcfg(name: str) -> Callable[[Decorated], Decorated]:
    """Bind what a task is trained with to it: a function that returns changes to config.Config, by "section.field".

    Raises ValueError if there is no configuration of that name, or it is bound already.
    """

    def register(make_rl: Decorated) -> Decorated:
        task = _known(name, "rlcfg")
        if task.rl:
            raise ConfigError(
                f"rlcfg: expected a task without a training preset, got {name!r}; "
                f"without: {', '.join(n for n, t in _TASKS.items() if not t.rl)}"
            )
        task.rl = make_rl
        return make_rl

    return register


def _known(name: str, what: str) -> _Task:
    """Return a task; raise ConfigError, with the known names, if there is none of that name."""
    if name not in _TASKS:
        raise ConfigError(
            f"{what}: unknown task {name!r}; {suggest(str(name), _TASKS, '')} known: {', '.join(_TASKS)}; "
            "one of your own is named with its file, my_file:my-task".replace("  ", " ")
        )
    return _TASKS[name]


@cache
def _load_packages() -> None:
    """Import what other packages have made known."""
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            point.load()
        except (
            Exception
        ) as error:  # whatever another's module may raise must not keep the tasks of this one from running
            warnings.warn(f"tasks of {point.value} are not available: {error}", stacklevel=2)


def _find(name: str, what: str = "task") -> _Task:
    """Return a task by its name or as "module:name"; raise ConfigError if there is none."""
    if isinstance(name, str) and ":" in name:
        _, name = imported(name, "task", what)
    elif name not in _TASKS:
        _load_packages()
    return _known(name, what)


def compile_beside(name: str, cfg: EnvCfg) -> "subprocess.Popen | None":
    """Start a process that compiles a task's environment into the cache; return it, or None without a second core."""
    if available_cores() < 2:
        return None
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", "from environments import registry; registry.compile_alone()"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # who started it meets the same errors
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}, **quiet
    )
    process.stdin.write(json.dumps([name, dataclasses.asdict(cfg)]))
    process.stdin.close()
    return process


def compile_alone() -> None:
    """Compile the environment that standard input describes; see compile_beside()."""
    name, values = json.load(sys.stdin)
    with compiling():
        make(name, cfg=override(default_cfg(name), flat(values), "env")).compile()


def is_taken(name: str) -> bool:
    """Return whether a task has that name already; those of other packages that are not loaded yet aside."""
    return name in _TASKS


def contains(name: str) -> bool:
    """Return whether there is a task of that name, as "module:name" too."""
    try:
        return bool(_find(name))
    except ConfigError:
        return False


def list_registered_envs() -> dict[str, tuple[str, ...]]:
    """Return every task's name and the backends it runs on."""
    _load_packages()
    return {name: tuple(task.envs) for name, task in _TASKS.items()}


def tasks() -> dict[str, str]:
    """Return every task's name and description."""
    _load_packages()
    return {name: task.description for name, task in _TASKS.items()}


def find_available_sim_backend(name: str) -> str:
    """Return the backend that a task runs on if none is asked for.

    Raises ValueError for an unknown task, or one without an environment.
    """
    envs = _find(name).envs
    if not envs:
        raise ConfigError(f"task: expected an environment registered for {name}, got its configuration alone")
    return next(iter(envs))


def default_cfg(name: str) -> EnvCfg:
    """Return a task's configuration; raise ValueError for an unknown task, or a configuration that is none."""
    cfg = _find(name).cfg()
    if not isinstance(cfg, EnvCfg):
        raise ConfigError(f"envcfg: expected an EnvCfg for {name}, got {cfg!r}")
    return cfg


def default_rl_cfg(name: str) -> Config:
    """Return everything that a task is trained with.

    Raises ValueError for an unknown task, or what is unknown in its preset.
    """
    task = _find(name)
    return override(dataclasses.replace(Config(), task=name, env=default_cfg(name)), task.rl() if task.rl else {})


def _fitted(name: str, cfg: EnvCfg, chosen: EnvCfg) -> EnvCfg:
    """Return a task's configuration, fitted to a chosen one's model."""
    fit = _find(name).fit
    return fit(cfg, chosen) if fit else cfg


def changed(base: Config, changes: dict[str, Any]) -> Config:
    """Return what a task is trained with, changed; what changes leave is fitted to the model that they choose.

    Raises ConfigError, naming the field, for an unknown one or a value out of its range.
    """
    env = _fitted(base.task, base.env, override(base, changes).env)
    return override(dataclasses.replace(base, env=env), changes)


def make(
    name: str,
    sim_backend: str | None = None,
    env_cfg_override: dict[str, Any] | None = None,
    num_envs: int = 1,
    threads: int = 0,
    cfg: EnvCfg | None = None,
) -> ABEnv:
    """Return num_envs copies of a task.

    sim_backend: None for the one that find_available_sim_backend() returns; env_cfg_override: fields
    of the task's configuration to change, as {"push": {"spin": 2.0}} or {"push.spin": 2.0};
    threads: 0 for every core; cfg: instead of the task's own configuration. What is not given of the
    task's own is fitted to the model, where that is another than the task's.

    Raises ConfigError, a ValueError naming the field, for an unknown task, backend or field or a value out of range.
    """
    task = _find(name)
    default = default_cfg(name)
    backend = find_available_sim_backend(name) if sim_backend is None else sim_backend
    if backend not in task.envs:
        raise ConfigError(f"sim_backend: unknown backend {backend!r} of {name}; known: {', '.join(task.envs)}")
    if not isinstance(num_envs, int) or isinstance(num_envs, bool) or num_envs < 1:
        raise ConfigError(f"num_envs: expected a whole number of at least 1, got {num_envs!r}")
    changes = env_cfg_override or {}
    cfg = override(cfg or _fitted(name, default, override(default, changes, "env")), changes, "env")
    if not isinstance(cfg, type(default)):
        raise ConfigError(f"cfg: expected a {type(default).__name__} for {name}, got {type(cfg).__name__}")
    make_env = task.envs[backend]
    if missing := ", ".join(sorted(getattr(make_env, "__abstractmethods__", ()))):
        raise ConfigError(f"{name}: expected {make_env.__name__} to define {missing}")
    made = make_env(cfg, num_envs, threads)
    if isinstance(made, ABEnv):
        made.require_sizes()
    return made
