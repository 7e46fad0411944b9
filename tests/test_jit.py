"""Where compiled code is kept, and what becomes of it when it is damaged."""

import importlib.util

import numba
import pytest

from physics import jit

SOURCE = "import numba\n\n\n@numba.njit(cache=True)\ndef f(x):\n    return x + 1\n"


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", [lambda data: b"garbage", lambda data: data[:20], lambda data: b""])
def test_a_damaged_file_of_compiled_code_is_compiled_anew(tmp_path, monkeypatch, ending, damage):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "tiny.py").write_text(SOURCE)

    def hits():
        spec = importlib.util.spec_from_file_location("tiny", tmp_path / "tiny.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.f(1) == 2
        return sum(module.f.stats.cache_hits.values())

    assert [hits(), hits()] == [0, 1]
    (path,) = (tmp_path / "cache").rglob(f"*.{ending}")
    path.write_bytes(damage(path.read_bytes()))
    assert [hits(), hits()] == [0, 1]


def test_a_user_without_a_home_has_a_cache_too(tmp_path, monkeypatch):
    (tmp_path / ".cache").write_text("in the way")

    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(jit, "ROOT", tmp_path)
    monkeypatch.setattr(jit.tempfile, "mkdtemp", lambda prefix: str(tmp_path / prefix))
    monkeypatch.setattr(jit.pathlib.PosixPath, "expanduser", homeless)
    assert jit._cache_directory() == tmp_path / "foal-"
