"""Any task as an environment of Gymnasium, which this module alone needs: pip install gymnasium.

    env = gymnasium.make("environments.gymnasium:foal/cartpole-v0")
    envs = gymnasium.make_vec("environments.gymnasium:foal/cartpole-v0", num_envs=1024)

With render_mode="rgb_array" render() draws, without a display too. What else is left after the name goes to
registry.make(), as env_cfg_override does. Where this module is imported anyway, "foal/cartpole-v0" is enough.
"""

import contextlib
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from environments import registry
from environments.contracts import ABEnv, Box, EnvState

if TYPE_CHECKING:
    from renderer import Stills

Infos = dict[str, Any]
RENDER_MODES = ("rgb_array",)


class GymVectorEnv(VectorEnv):
    """N copies of a task as Gymnasium sees them; an episode that ended starts anew in the same step.

    env: the copies; seed: of the first reset() that names none, and of all that follow it; None for
    one that nobody chose; action_limit: bound of the action space where the task has none, for
    libraries that need one. An action beyond the bounds is taken as the task takes it. render_mode: "rgb_array" for
    pictures of all copies side by side; size: width and height of these, even [pixel].

    Observations (N, num_obs) and rewards (N) are float32. infos has, beside what the task tells of
    every robot, on steps that end an episode "final_obs" (N, num_obs) and "final_info", a dict of
    arrays, the task's own tallies among them, both meaningful where the masks "_final_obs" and
    "_final_info" (N) are true; zeros elsewhere in "final_obs". Every array is the caller's to keep.
    """

    def __init__(
        self,
        env: ABEnv,
        seed: int | None = 0,
        action_limit: float = np.inf,
        render_mode: str | None = None,
        size: tuple[int, int] = (640, 480),
    ) -> None:
        if render_mode not in (None, *RENDER_MODES):
            raise ValueError(f"render_mode: expected one of {', '.join(RENDER_MODES)}, or None, got {render_mode!r}")
        self.env = env
        self.render_mode = render_mode
        self._size = size
        self._stills: Stills | None = None
        self._ended: np.ndarray | bool = False
        self.num_envs = env.num_envs
        self.metadata = metadata_of(env) | {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = _box(env.observation_space)
        self.single_action_space = _box(env.action_space, action_limit)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._first_seed = seed
        self._started = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, Infos]:
        """Start every episode; return the first observations and infos.

        seed: the same one gives the same episodes; None goes on with the random numbers of the last
        one. options: "staggered", true to start at random ages, so that episodes do not end all at once.

        Raises ValueError for other options.
        """
        if unknown := set(options or {}) - {"staggered"}:
            raise ValueError(f"options: expected staggered, got {', '.join(sorted(unknown))}")
        if seed is None:
            seed = self._first_seed
        super().reset(seed=seed)
        self._first_seed = None
        self._started = True
        # Gymnasium's seeds have no upper bound, a task's have 32 bits
        start = int(self.np_random.integers(2**31)) if seed is None else seed % 2**32
        state = self.env.init_state(start, bool((options or {}).get("staggered", False)))
        # the state is the environment's own
        return state.obs.copy(), self._infos(state, np.zeros(self.num_envs, bool), copy=True)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Infos]:
        """Advance one control step; return observations, rewards, terminations, truncations, infos.

        actions: (N, num_actions).

        Raises ResetNeeded before the first reset().
        """
        if not self._started:
            raise ResetNeeded("step() before reset()")
        # arrays of this step's own: nothing is copied, and nothing is written over later
        state = self.env.step(actions, out=self.env.new_state())
        self._ended = state.terminated
        return state.obs, state.reward, state.terminated, state.truncated, self._infos(state, state.done)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Return a tuple of a picture of all copies, (height, width, 3) uint8; None without a render_mode.

        Of episodes that ended with the last step it shows what they have begun with since.

        Raises ResetNeeded before the first reset(), and RenderError where nothing can be drawn.
        """
        if self.render_mode is None:
            return None
        if not self._started:
            raise ResetNeeded("render() before reset()")
        if self._stills is None:
            from renderer import Stills

            name = type(self.env).__name__
            self._stills = Stills(self.env, name, *self._size, fps=self.metadata["render_fps"])
        return (self._stills.take(fallen=self._ended),)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the window of pictures."""
        if self._stills:
            self._stills.close()
        self._stills = None

    def _infos(self, state: EnvState, done: np.ndarray, copy: bool = False) -> Infos:
        """Return a state's info under Gymnasium's names, each with its mask.

        final_* and episode_* are of the episodes that ended.
        """
        infos = {}
        final = {}
        any_done = bool(done.any())
        for name, value in state.info.items():
            if not value.size:  # a task that tells nothing privileged
                continue
            if name.startswith(("final_", "episode_")):
                if any_done and name == "final_obs":
                    infos |= {"final_obs": value, "_final_obs": done}
                elif any_done:
                    name = name.removeprefix("final_")
                    final |= {name: value, f"_{name}": done}
            else:
                infos |= {name: value.copy() if copy else value, f"_{name}": np.ones(self.num_envs, bool)}
        return infos | ({"final_info": final, "_final_info": done} if any_done else {})


class GymEnv(gymnasium.Env):
    """One copy of a task as Gymnasium sees it: an episode ends with its last observation, and reset() starts the next.

    env: the copy; action_limit, render_mode, size: see GymVectorEnv.

    Observations (num_obs) are float32. info is what the task tells of the robot, and with the last
    observation "episode_return", "episode_steps" and the task's own tallies too. Every array is the
    caller's to keep. Raises ValueError for several copies.
    """

    def __init__(
        self,
        env: ABEnv,
        action_limit: float = np.inf,
        render_mode: str | None = None,
        size: tuple[int, int] = (640, 480),
    ) -> None:
        if env.num_envs != 1:
            raise ValueError(f"env: expected a single copy, got {env.num_envs}; GymVectorEnv takes several")
        # nobody's seed: environments that are made one after another do not all do the same
        self.env = env
        self._many = GymVectorEnv(env, None, action_limit, render_mode, size)
        self.render_mode = render_mode
        self.metadata = metadata_of(env)
        self.observation_space = self._many.single_observation_space
        self.action_space = self._many.single_action_space
        self._next: tuple[np.ndarray, Infos] | None = None  # what the next episode begins with, once one has ended

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, Infos]:
        """Start an episode; return the first observation and info; see GymVectorEnv.

        After the end of an episode, without seed and options, it is the one that the task has started already.
        """
        super().reset(seed=seed)
        start = self._next
        self._next = None
        if start and seed is None and not options:
            return start
        obs, infos = self._many.reset(seed=seed, options=options)
        return obs[0], _of_one(infos)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, Infos]:
        """Advance one control step; action (num_actions). Returns observation, reward, terminated, truncated, info.

        Raises ResetNeeded before the first reset(), and between the end of an episode and the next one.
        """
        if self._next:
            raise ResetNeeded("step() after the end of an episode, before reset()")
        obs, rewards, terminations, truncations, infos = self._many.step(np.asarray(action)[None])
        last = infos.pop("final_obs", obs)
        final = infos.pop("final_info", None)
        if final:
            self._next = obs[0], _of_one(infos)
        return last[0], float(rewards[0]), bool(terminations[0]), bool(truncations[0]), _of_one(final or infos)

    def render(self) -> np.ndarray | None:
        """Return a picture; see GymVectorEnv."""
        pictures = self._many.render()
        return pictures and pictures[0]

    def close(self) -> None:
        """Close the window of pictures."""
        self._many.close()


def metadata_of(env: ABEnv) -> dict[str, Any]:
    """Return what Gymnasium asks of a task: how it can be rendered, and how many control steps make a second."""
    return {"render_modes": list(RENDER_MODES), "render_fps": round(1 / env.cfg.ctrl_dt)}


def _box(space: Box, limit: float = np.inf) -> spaces.Box:
    """Return a space as Gymnasium's; limit: bound of either side where it has none."""
    low, high = (
        np.where(np.isfinite(bound), bound, other) for bound, other in ((space.low, -limit), (space.high, limit))
    )
    return spaces.Box(*(np.full(space.size, bound, np.float32) for bound in (low, high)), dtype=np.float32)


def _of_one(infos: Infos) -> Infos:
    """Return the only robot's share of infos, without masks."""
    return {name: values[0] for name, values in infos.items() if not name.startswith("_")}


def make_env(
    task: str,
    action_limit: float = np.inf,
    render_mode: str | None = None,
    size: tuple[int, int] = (640, 480),
    **settings: Any,
) -> GymEnv:
    """Return one copy of a task; settings: see registry.make()."""
    return GymEnv(registry.make(task, **settings), action_limit, render_mode, size)


def make_vec(
    task: str,
    num_envs: int = 1,
    seed: int | None = 0,
    action_limit: float = np.inf,
    render_mode: str | None = None,
    size: tuple[int, int] = (640, 480),
    **settings: Any,
) -> GymVectorEnv:
    """Return num_envs copies of a task; settings: see registry.make()."""
    return GymVectorEnv(registry.make(task, num_envs=num_envs, **settings), seed, action_limit, render_mode, size)


def register_all() -> None:
    """Make every task known to Gymnasium as foal/TASK-v0.

    Called again, it does so for tasks that were defined after this module was imported.
    """
    for task in registry.tasks():
        if (name := f"foal/{task}-v0") not in gymnasium.registry:
            with contextlib.suppress(gymnasium.error.Error):  # a name that Gymnasium does not take, with a space in it
                gymnasium.register(
                    name, f"{__name__}:make_env", vector_entry_point=f"{__name__}:make_vec", kwargs={"task": task}
                )


register_all()
