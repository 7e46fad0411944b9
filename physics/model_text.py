"""The text of an MJCF, URDF or xacro file, before MuJoCo compiles it.

Looked at is what MuJoCo, or a version of it, passes over, and dropped of a URDF is what is only seen, for which MuJoCo
refuses files that every other reader takes: a material twice, meshes that are not there.
"""

import io
import math
import pathlib
import xml.sax
from xml.parsers import expat
from xml.sax.saxutils import XMLFilterBase, XMLGenerator

from physics.robot import RobotError

SEEN = {"visual", "material", "gazebo", "transmission", "ros2_control", "sensor"}  # of a URDF, no part of its bodies


def expanded(path: pathlib.Path) -> bytes:
    """Return the URDF that a xacro file stands for, by the package xacro.

    Raises RobotError if that is not installed, or refuses the file.
    """
    try:
        import xacro
    except ImportError:
        raise RobotError(
            f"{path}: xacro: expected the package that expands this file, got none: pip install xacro"
        ) from None
    try:
        return xacro.process_file(str(path)).toxml().encode()
    except Exception as error:  # whatever it raises: its classes differ between versions
        text = " ".join(str(error).split()) or type(error).__name__
        raise RobotError(f"{path}: xacro: expected what xacro can expand, got: {text:.200}") from None


def _finite_or_text(token: str) -> bool:
    try:
        return math.isfinite(float(token))
    except ValueError:
        return True


def _three_numbers(text: str) -> bool:
    """Return whether a text is three numbers."""
    try:
        return len([float(token) for token in text.split()]) == 3
    except ValueError:
        return False


class ModelText:
    """What is to be known of a file before MuJoCo reads it.

    root: its first tag; data: its contents, expanded; included: contents of the files that it includes, by name;
    turned: the rpy of the inertials of a URDF, by link; mimics: of its joints that follow others, which.

    Raises RobotError if a file cannot be read or is no XML, and for numbers that are not finite.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.folder = path.parent
        self.root = ""
        self.included: dict[str, bytes] = {}
        self.turned: dict[str, str] = {}
        self.mimics: dict[str, str] = {}
        self.data = self._read(path)

    def _read(self, path: pathlib.Path) -> bytes:
        opened: list[tuple[str, str, str]] = []  # tags, names, labels; without a name, those of what encloses it
        problems: list[str] = []

        def open_element(tag: str, attributes: dict[str, str]) -> None:
            self.root = self.root or tag
            around, name, label = opened[-1] if opened else ("", "", tag)
            if "name" in attributes:
                name = attributes["name"]
                label = f"{tag} {attributes['name']!r}"
            opened.append((tag, name, label))
            for key, value in attributes.items():
                if key != "name" and not all(map(_finite_or_text, value.split())):
                    problems.append(f"{label}: expected finite numbers as {tag} {key}, got {value!r}")
            if tag == "mimic":
                self.mimics[name] = attributes.get("joint", "")
            for key in {"xyz", "rpy"} & set(attributes) if tag == "origin" else ():
                if not _three_numbers(attributes[key]):
                    problems.append(f"{label}: expected three numbers as {tag} {key}, got {attributes[key]!r:.40}")
            if tag == "origin" and around == "inertial":
                self.turned[name] = attributes.get("rpy", "0 0 0")
            file = attributes.get("file", "")
            if tag == "include" and file not in self.included and (self.folder / file).is_file():
                self.included[file] = (self.folder / file).read_bytes()
                self._read(self.folder / file)

        parser = expat.ParserCreate()  # of no namespaces: URDF files use prefixes that they do not declare
        parser.StartElementHandler = open_element
        parser.EndElementHandler = lambda tag: opened.pop()
        try:
            data = expanded(path) if path.suffix.lower() == ".xacro" else path.read_bytes()
            parser.Parse(data, True)
        except OSError as error:
            raise RobotError(f"{path}: expected a file that can be read, got: {error.strerror}") from None
        except RobotError:
            raise
        except (expat.ExpatError, LookupError, ValueError) as error:
            raise RobotError(f"{path}: expected XML, got: {error}") from None
        if problems:
            raise RobotError(f"{path}: {problems[0]}")
        return data

    def bodies_alone(self) -> str:
        """Return a URDF without what is only seen."""
        out = io.StringIO()
        reader = _Without(xml.sax.make_parser())
        reader.setContentHandler(XMLGenerator(out, "utf-8"))
        reader.parse(io.BytesIO(self.data))
        return out.getvalue()


class _Without(XMLFilterBase):
    """Passes on what a parser reads, but for elements of SEEN and what is in them."""

    depth = 0

    def startElement(self, name: str, attrs: object) -> None:  # noqa: N802 (the base's name)
        if self.depth or name in SEEN:
            self.depth += 1
        else:
            super().startElement(name, attrs)

    def endElement(self, name: str) -> None:  # noqa: N802
        if self.depth:
            self.depth -= 1
        else:
            super().endElement(name)

    def characters(self, content: str) -> None:
        if not self.depth:
            super().characters(content)
