"""Foal, installed: ``import foal`` lets its modules be imported by the names that they have in the repository.

They lie in this package's folder, or beside it in a clone, so that no name such as config or physics stands among
other packages; that folder comes first on the path of who imports this.
"""

import pathlib
import sys

_PACKAGE = pathlib.Path(__file__).resolve().parent
FOLDER = _PACKAGE if (_PACKAGE / "simulate.py").exists() else _PACKAGE.parent


def _require_names_free() -> None:
    """Raise ImportError, naming it, if a module of another's was imported under a name that one of Foal's has."""
    for path in (*FOLDER.glob("[!_]*.py"), *FOLDER.glob("*/__init__.py")):
        name = path.parent.name if path.name == "__init__.py" else path.stem
        found = getattr(sys.modules.get(name), "__file__", None)
        if name != __name__ and found and not path.samefile(found):
            raise ImportError(f"foal: expected no other module of the name {name}, got {found}")


_require_names_free()
sys.path.insert(0, str(FOLDER))


def main() -> int:
    """Run the command line; return the exit code."""
    import simulate

    return simulate.main()
