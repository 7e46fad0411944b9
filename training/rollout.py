"""What a rollout remembers: buffers that the environment and the policy write into."""

import torch
from torch import Tensor

from entity import Memory
from environments import ABEnv, EnvState


class Rollout:
    """T control steps of N robots, allocated once; pinned where a GPU will copy them.

    The environment writes observations, rewards and ends straight into these buffers: step t's
    EnvState shares memory with row t + 1 of the observations and row t of everything else.

    others: commands, beside each robot's own, that rewards are asked about.
    """

    def __init__(self, env: ABEnv, steps: int, pinned: bool = False, others: int = 0) -> None:
        n = env.num_envs
        self.steps = steps
        self.shown = env.command_columns

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, pin_memory=pinned)

        self.obs = zeros(steps + 1, n, env.num_obs)
        self.privileged = zeros(steps + 1, n, env.num_privileged)
        self.final_obs = zeros(steps, n, env.num_obs)
        self.final_privileged = zeros(steps, n, env.num_privileged)
        self.reward = zeros(steps, n)
        self.terminated = zeros(steps, n, dtype=torch.bool)
        self.truncated = zeros(steps, n, dtype=torch.bool)
        self.episode_return = zeros(steps, n)
        self.episode_steps = zeros(steps, n)
        self.action = zeros(steps, n, env.num_actions)
        self.mean = zeros(steps, n, env.num_actions)
        self.std = zeros(env.num_actions)
        self.starts = zeros(steps + 1, n)  # 1 where the observation is the first of its episode
        self.command = torch.from_numpy(env.command())[None]  # (1, N, C), before the first step
        self.others = self.command.repeat(others, 1, 1)  # (K, N, C)
        self.others_shown = zeros(others, n, self.shown.stop - self.shown.start)  # as robots would observe them
        self.others_reward = zeros(steps, n, others)
        self.state: Memory | None = None  # before the first step
        self.states = [
            EnvState(
                self.obs[t + 1].numpy(), self.reward[t].numpy(), self.terminated[t].numpy(), self.truncated[t].numpy(),
                {
                    "privileged": self.privileged[t + 1].numpy(),
                    "final_obs": self.final_obs[t].numpy(),
                    "final_privileged": self.final_privileged[t].numpy(),
                    "episode_return": self.episode_return[t].numpy(),
                    "episode_steps": self.episode_steps[t].numpy(),
                },
            )
            for t in range(steps)
        ]  # fmt: skip

    def begin(self, env_state: EnvState | None) -> None:
        """Make the last observation the first one.

        env_state: of fresh episodes, None to go on with the last rollout's.
        """
        if env_state is None:
            self.obs[0] = self.obs[-1]
            self.privileged[0] = self.privileged[-1]
            self.starts[0] = self.starts[-1]
        else:
            self.obs[0] = torch.from_numpy(env_state.obs)
            self.privileged[0] = torch.from_numpy(env_state.info["privileged"])
            self.starts[0] = 1.0

    def ask(self, command: Tensor, others: tuple[Tensor, Tensor] | None) -> None:
        """Note the commands (N, C) before the first step, and the others that rewards are asked about.

        others: (K, N, C), and how robots would observe them (K, N, columns); None, while none are known, for their own.
        """
        self.command.copy_(command)
        asked, shown = others or (command, self.obs[0, :, self.shown])
        self.others.copy_(asked)
        self.others_shown.copy_(shown)

    def done(self) -> Tensor:
        """Return (T, N) float, 1 where an episode ended."""
        return (self.terminated | self.truncated).float()
