"""Files that are whole or not there, whatever happens while they are written."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO

from settings import ConfigError


@contextlib.contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Give a file to write that takes a path's place in one move, once it is on the disk; until then the old one stays.

    Raises OSError, the old file being as it was and nothing left beside it, where writing fails.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: pathlib.Path) -> None:
    """Have the names in a folder on the disk too, where the system can."""
    with contextlib.suppress(OSError):  # no folder can be opened on Windows, none synchronised on some file systems
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def reason(error: OSError) -> str:
    """Return what went wrong with a file, in words."""
    return error.strerror or str(error)


def require_writable(folder: pathlib.Path, what: str) -> None:
    """Raise ConfigError, naming what the folder is given by, unless files can be written to it; create it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write-test"
        probe.touch()
        probe.unlink()
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{what}: expected a folder that can be written, got {folder} ({why})") from None


def require_file(path: pathlib.Path, what: str) -> None:
    """Raise ConfigError, naming what the file is given by, unless a file of that name can be written."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        if path.is_dir():
            raise ConfigError(f"{what}: expected a file, {path} is a folder")
        partial.touch()
        partial.unlink()
    except OSError as error:
        why = reason(error)
        raise ConfigError(f"{what}: expected a file that can be written, got {path!s:.80} ({why})") from None


def require_new(path: pathlib.Path, what: str) -> None:
    """Raise ConfigError, naming what the file is given by, unless a new file of that name can be written."""
    try:
        if path.exists():
            raise ConfigError(f"{what}: expected a new file, {path} is there already")
        if not path.parent.is_dir():
            raise ConfigError(f"{what}: expected a file in a folder that is there, got {path}")
    except OSError as error:
        raise ConfigError(f"{what}: expected a file that can be written, got {path!s:.80} ({reason(error)})") from None
    require_file(path, what)
