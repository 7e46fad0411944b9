"""Trees of state: nested dicts and lists of tensors, numbers and texts, as a checkpoint holds them."""

import hashlib
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from settings import ConfigError

PLAIN = str, int, float, bool, type(None)


def digest(tree: Any) -> str:
    """Return the SHA-256 of a tree's contents, types, shapes and order included, in hexadecimal digits.

    Raises ConfigError for what does not belong into a tree, such as a tensor that is not laid out in one piece.
    """
    found = hashlib.sha256()
    _feed(found, tree, "contents")
    return found.hexdigest()


def _feed(found: Any, tree: Any, name: str) -> None:
    if isinstance(tree, Tensor):
        if type(tree) is not Tensor or tree.layout != torch.strided or not tree.is_contiguous():
            raise ConfigError(f"{name}: expected a plain tensor in one piece")
        found.update(f"{tree.dtype} {tuple(tree.shape)};".encode())
        found.update(tree.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    elif isinstance(tree, dict):
        found.update(f"dict {len(tree)};".encode())
        for key, value in tree.items():
            if not isinstance(key, str):
                raise ConfigError(f"{name}: expected texts as keys, got {key!r}")
            _feed(found, key, name)
            _feed(found, value, f"{name}.{key}")
    elif isinstance(tree, list | tuple):
        found.update(f"list {len(tree)};".encode())
        for i, value in enumerate(tree):
            _feed(found, value, f"{name}[{i}]")
    elif type(tree) in PLAIN:
        text = repr(tree).encode()
        found.update(f"{type(tree).__name__} {len(text)} ".encode() + text)
    else:
        raise ConfigError(f"{name}: expected tensors, numbers and texts, got {type(tree).__name__}")


def require_like(expected: Any, got: Any, name: str, finite: bool = True) -> None:
    """Raise ConfigError, naming the place, unless a tree has the keys, types and shapes of another.

    finite: and finite numbers.
    """
    if isinstance(expected, Tensor):
        if not isinstance(got, Tensor) or got.shape != expected.shape or got.dtype != expected.dtype:
            found = f"{got.dtype} {tuple(got.shape)}" if isinstance(got, Tensor) else type(got).__name__
            raise ConfigError(f"{name}: expected {expected.dtype} {tuple(expected.shape)}, got {found}")
        if finite and got.is_floating_point() and not torch.isfinite(got).all():
            raise ConfigError(f"{name}: expected finite numbers")
    elif isinstance(expected, dict):
        if not isinstance(got, dict) or list(expected) != list(got):
            found = ", ".join(map(str, got)) if isinstance(got, dict) else type(got).__name__
            raise ConfigError(f"{name}: expected {', '.join(expected)}, got {found}")
        for key, value in expected.items():
            require_like(value, got[key], f"{name}.{key}", finite)
    elif isinstance(expected, list | tuple):
        if not isinstance(got, list | tuple) or len(expected) != len(got):
            raise ConfigError(f"{name}: expected {len(expected)} entries, got {got!r:.40}")
        for i, (value, other) in enumerate(zip(expected, got, strict=True)):
            require_like(value, other, f"{name}[{i}]", finite)
    elif type(got) is not type(expected) or (finite and isinstance(got, float) and not math.isfinite(got)):
        raise ConfigError(f"{name}: expected a {type(expected).__name__}, got {got!r:.40}")


def to(tree: Any, device: torch.device) -> Any:
    """Return a tree with copies of its tensors on a device."""
    if isinstance(tree, Tensor):
        return tree.to(device, copy=True)
    if isinstance(tree, dict):
        return {key: to(value, device) for key, value in tree.items()}
    return [to(value, device) for value in tree] if isinstance(tree, list | tuple) else tree


def tensors(tree: Any) -> Any:
    """Return a tree with its NumPy arrays as tensors, which share their memory if it is in one piece."""
    if isinstance(tree, np.ndarray):
        return torch.from_numpy(np.asarray(tree, order="C"))
    if isinstance(tree, np.generic):
        return tree.item()
    return {key: tensors(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


def arrays(tree: Any) -> Any:
    """Return a tree with its tensors as NumPy arrays."""
    if isinstance(tree, Tensor):
        return tree.cpu().numpy()
    return {key: arrays(value) for key, value in tree.items()} if isinstance(tree, dict) else tree
