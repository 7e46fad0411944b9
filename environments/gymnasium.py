"""Any task as a vector environment of Gymnasium, which this module alone needs: pip install gymnasium."""

from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from environments.contracts import ABEnv, EnvState


class GymVectorEnv(VectorEnv):
    """N copies of a task as Gymnasium sees them; an episode that ended starts anew in the same step.

    env: the copies; seed: of the first reset() that names none, and of all that follow it;
    action_limit: bound of the action space, for libraries that need one (the task itself knows no
    bounds but its motors': an action beyond is taken as it is).

    Observations (N, num_obs) and rewards (N) are float32. infos has, beside what the task tells of
    every robot, on steps that end an episode "final_obs" (N, num_obs) and "final_info", a dict of
    arrays, both meaningful where the masks "_final_obs" and "_final_info" (N) are true; zeros
    elsewhere in "final_obs". Every array is the caller's to keep.
    """

    def __init__(self, env: ABEnv, seed: int = 0, action_limit: float = np.inf) -> None:
        self.env, self.num_envs = env, env.num_envs
        self.metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = Box(-np.inf, np.inf, (env.num_obs,), np.float32)
        self.single_action_space = Box(-action_limit, action_limit, (env.num_actions,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._first_seed: int | None = seed
        self._started = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start every episode; return the first observations and infos.

        seed: the same one gives the same episodes; None goes on with the random numbers of the last
        one. options: "staggered", true to start at random ages, so that episodes do not end all at once.

        Raises ValueError for other options.
        """
        if unknown := set(options or {}) - {"staggered"}:
            raise ValueError(f"options: expected staggered, got {', '.join(sorted(unknown))}")
        if seed is None and self._first_seed is not None:
            seed = self._first_seed
        super().reset(seed=seed)
        self._first_seed, self._started = None, True
        start = int(self.np_random.integers(2**31)) if seed is None else seed
        state = self.env.init_state(start, bool((options or {}).get("staggered", False)))
        # the state is the environment's own
        return state.obs.copy(), self._infos(state, np.zeros(self.num_envs, bool), copy=True)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advance one control step; actions (N, num_actions). Returns observations, rewards, terminations, truncations, infos.

        Raises ResetNeeded before the first reset().
        """
        if not self._started:
            raise ResetNeeded("step() before reset()")
        # arrays of this step's own: nothing is copied, and nothing is written over later
        state = self.env.step(actions, out=self.env.new_state())
        return state.obs, state.reward, state.terminated, state.truncated, self._infos(state, state.done)

    def _infos(self, state: EnvState, done: np.ndarray, copy: bool = False) -> dict[str, Any]:
        """Return a state's info under Gymnasium's names, each with its mask; final_* and episode_* are of the episodes that ended."""
        infos, final = {}, {}
        any_done = bool(done.any())
        for name, value in state.info.items():
            if name.startswith(("final_", "episode_")):
                if any_done and name == "final_obs":
                    infos |= {"final_obs": value, "_final_obs": done}
                elif any_done:
                    name = name.removeprefix("final_")
                    final |= {name: value, f"_{name}": done}
            else:
                infos |= {name: value.copy() if copy else value, f"_{name}": np.ones(self.num_envs, bool)}
        return infos | ({"final_info": final, "_final_info": done} if any_done else {})
