"""What robots do next: the policy, step by step, with its memory."""

import torch
from torch import Tensor

import fused
from entity import Creature, Memory
from training.graph import Graph, record


class Inference:
    """The policy of N robots and what they remember.

    On a GPU a step is some fifty kernels of microseconds each, which take longer to launch than to run, on the CPU
    some layers with Python between them, whose lock other threads wait for; record() makes one graph of them, which
    lives on buffers that stay where they are.
    """

    def __init__(self, creature: Creature, num_envs: int, num_obs: int, device: torch.device) -> None:
        self.creature = creature
        self.num_envs = num_envs
        self.device = device
        self.memory = creature.initial_state(num_envs)
        shapes = (num_envs, num_obs), (num_envs,), (num_envs, creature.belief.num_actions)
        self.inputs = [torch.zeros(*shape, device=device) for shape in shapes]
        self.outputs: tuple[Tensor, ...] = ()
        self.graph: Graph | None = None
        self._reading = fused.Gather(3)
        self._writing = fused.Gather(3 if creature.reads else 2)

    def remembered(self) -> Memory:
        """Return what robots remember now, for keeps: a copy where a graph writes into it."""
        return self.memory if self.graph is None else self.memory.copy()

    def remember(self, memory: Memory) -> None:
        """Let robots remember something else, as many as there are."""
        for kept, new in zip(self.memory.tensors(), memory.tensors(), strict=True):
            fused.assign(kept, new)

    def begin(
        self, obs: Tensor, starts: Tensor, noise: Tensor, action: Tensor, mean: Tensor, context: Tensor | None = None
    ) -> None:
        """Let calls from now on read and write these, of T steps at least, contiguous, float32, anywhere.

        obs: (T, N, O); starts: (T, N); noise: (T, N, A) standard normal; action, mean: (T, N, A), of what robots do and
        might do; context: (T, sides, D, N), of what the policy read of a world model, None where it reads nothing.
        """
        self._read = obs, starts, noise
        self._written = (action, mean) if context is None else (action, mean, context)
        if self.graph and self.device.type == "cpu":
            apart = [[x[0].numel() * x.element_size() for x in of] for of in (self._read, self._written)]
            self._reading.between([x[0] for x in self._read], self.inputs, apart[0])
            self._writing.between(self.outputs, [x[0] for x in self._written], onward=apart[1])

    @torch.no_grad()
    def __call__(self, t: int) -> None:
        """Write what robots do at a step, and the mean of what they might; see begin()."""
        if self.graph and self.device.type == "cpu":
            self._reading.step(t)
            self._writing.step(t)
            self.graph.replay()
            return
        if self.graph:
            for buffer, x in zip(self.inputs, self._read, strict=True):
                buffer.copy_(x[t], non_blocking=True)
            self.graph.replay()
            found = self.outputs
        else:
            obs, starts, noise = (x[t].to(self.device, non_blocking=True) for x in self._read)
            action, mean, self.memory = self.creature.act(obs, self.memory, starts, noise)
            found = self._found(action, mean)
        for x, y in zip(self._written, found, strict=True):
            x[t].copy_(y)  # from a GPU: waits for it

    def _found(self, action: Tensor, mean: Tensor) -> tuple[Tensor, ...]:
        """Return what is written of a step, whose memory is there."""
        context = self.creature.context(self.memory)
        return (action, mean) if context is None else (action, mean, context)

    def step(self) -> None:
        """Act on the buffers: what the graph repeats."""
        on_cpu = self.device.type == "cpu"
        if on_cpu:
            self._reading()
        obs, starts, noise = self.inputs
        action, mean, memory = self.creature.act(obs, self.memory, starts, noise)
        self.remember(memory)
        self.outputs = self._found(action, mean)
        if on_cpu:
            self._writing()

    def record(self) -> None:
        """Make the graph, if there can be one, leaving no trace in the memory; not while another thread uses a GPU."""
        if self.device.type == "cpu" and not self.creature.is_recordable(self.num_envs):
            return
        before = self.memory.copy()
        graph = record(self.step, self.device)
        self.remember(before)
        self.graph = graph
