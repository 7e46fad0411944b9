"""The networks in compiled code, as autograd functions for the CPU: body encoder, dense layers, LSTM, heads, losses.

Each is one call without the GIL, products included: what PyTorch does in dozens of passes over memory
is one here, and threads do not wait for one another. entity.py holds the same equations in plain
PyTorch: the reference, and what a GPU runs. Everything runs in the thread that calls it: training
gives each thread robots of its own.
"""

from fused.attention import BodyAttention
from fused.heads import PolicyHead, PolicyLoss, ValueHead
from fused.layers import Dense, LSTMSequence
from fused.product import ROWS
from fused.vectors import HAS_PAIRS, WIDTH

__all__ = ["HAS_PAIRS", "ROWS", "WIDTH", "BodyAttention", "Dense", "LSTMSequence", "PolicyHead", "PolicyLoss", "ValueHead"]
