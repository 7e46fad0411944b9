"""The networks in compiled code, as autograd functions for the CPU: body encoder, dense layers, LSTM, heads, losses.

Each is one call without the GIL, products included: what PyTorch does in dozens of passes over memory
is one here, and threads do not wait for one another. entity.py holds the same equations in plain
PyTorch: the reference, and what a GPU runs. Everything runs in the thread that calls it: training
gives each thread robots of its own.
"""

from fused.attention import BodyAttention
from fused.categorical import UNIFORM
from fused.descent import AdamSteps, Descent, Job, adapted_rate, weighted_sum
from fused.heads import Linear, PolicyHead, ValueHead
from fused.inputs import Gather, Join, Masked, Mirrored, Resized, at_least, of_sides, standardised, without
from fused.layers import Dense, LSTMSequence
from fused.losses import Deviation, Entropy, PolicyLoss, ValueLoss, advantages, drawn, estimates
from fused.normed import EPSILON, Normed
from fused.product import ROWS, filled
from fused.program import Program, Tape, assign, record, run
from fused.registers import HAS_PAIRS, WIDTH
from fused.sequences import read_sequences, write_latents
from fused.state_space import StateSpaceSequence
from fused.tiles import HAS_TILES
from fused.world_losses import LatentLosses, Mean, OutcomeLosses, Squares

__all__ = [
    "EPSILON", "HAS_PAIRS", "HAS_TILES", "ROWS", "UNIFORM", "WIDTH",
    "AdamSteps", "BodyAttention", "Dense", "Descent", "Deviation", "Entropy", "Gather", "Job", "Join", "LSTMSequence",
    "LatentLosses", "Linear", "Masked", "Mean", "Mirrored", "Normed", "OutcomeLosses", "PolicyHead", "PolicyLoss",
    "Program", "Resized", "Squares", "StateSpaceSequence", "Tape", "ValueHead", "ValueLoss", "adapted_rate",
    "advantages", "assign", "at_least", "drawn", "estimates", "filled", "of_sides", "read_sequences", "record", "run",
    "standardised", "weighted_sum", "without", "write_latents",
]  # fmt: skip
