"""Who may import whom: every import points down."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
LEARNING = {
    "environments",
    "training",
    "entity",
    "world_model",
    "ensemble",
    "observation",
    "fused",
    "motion",
    "simulate",
}
FORBIDDEN = {
    "host.py": {"config", "settings", "physics", "renderer", "torch", "numpy", "numba", *LEARNING},
    "config.py": {"physics", "renderer", "torch", "numpy", "numba", *LEARNING},
    "physics": {"torch", "renderer", *LEARNING},
    "renderer": {"torch", *LEARNING},
    "environments": {"torch", "renderer", *(LEARNING - {"environments"})},
    "entity.py": {"renderer", *(LEARNING - {"entity", "world_model", "ensemble", "observation", "fused"})},
    "ensemble.py": {"renderer", *(LEARNING - {"world_model", "observation", "fused"})},
    "world_model.py": {"renderer", *(LEARNING - {"observation", "fused"})},
    "observation.py": {"renderer", *(LEARNING - {"fused"})},
    "fused": {"renderer", *(LEARNING - {"fused"})},
    "training": {"simulate", "motion"},
    "motion": {"simulate", "renderer"},
}
ALLOWED = {"environments/gymnasium.py": {"renderer"}}  # where others' programs come in, nothing of Foal is above it


def sources(place):
    path = ROOT / place
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def imported(source):
    """Return the top-level names that a source imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            names |= {argument.value.split(".")[0] for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    return names


@pytest.mark.parametrize("place", FORBIDDEN)
def test_imports_point_down(place):
    files = sources(place)
    assert files
    for file in files:
        forbidden = FORBIDDEN[place] - ALLOWED.get(str(file.relative_to(ROOT)), set())
        wrong = imported(file.read_text()) & forbidden
        assert not wrong, f"{file.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


def test_the_search_finds_every_way_to_import():
    source = (
        "import torch.nn as nn\ndef f():\n    from renderer.window import Window\n"
        "    import_module('training.ppo')\nfrom . import entity\n"
    )
    assert imported(source) == {"torch", "renderer", "training"}


def test_kernels_are_compiled_with_the_two_decorators_only():
    for file in sources("physics") + sources("environments") + sources("fused"):
        if file.name == "jit.py":
            continue
        text = file.read_text()
        assert "njit" not in text, file
        assert "fastmath" not in text, file
