"""An MJCF or URDF file, compiled by MuJoCo: the base and the four legs in it, in one pose.

MuJoCo's compiler knows defaults, includes, units and orders of rotation. Its model stands in the zero pose, base
at the origin and every joint coordinate 0: there the frames of a Robot are parallel to the base's, so constant
rotations between the file's frames drop out. Meshes and pictures need not be there.
"""

import math
import pathlib
import re
from typing import Any
from xml.parsers import expat

import numpy as np

from physics.robot import AXES, JOINTS, RobotError

TOLERANCE = 1e-3  # of a direction [rad]: what files round off

# What a Robot has no place for: array of the compiled model (MuJoCo's versions differ in them), element, meaning.
FOREIGN = (
    ("jnt_stiffness", "joint", "a spring"),
    ("jnt_stiffnesspoly", "joint", "a spring"),
    ("dof_dampingpoly", "joint", "damping that is not linear"),
    ("actuator_damping", "actuator", "damping beside the joint's"),
    ("actuator_dampingpoly", "actuator", "damping beside the joint's"),
    ("actuator_armature", "actuator", "armature beside the joint's"),
    ("body_gravcomp", "body", "compensation of gravity"),
)
DRAWN = ("skins", "lights", "meshes", "hfields", "materials", "textures")  # what needs other files
REFERRING = ("pairs", "excludes", "sensors", "tuples")  # what may refer to a dropped mesh


def _finite_or_text(token: str) -> bool:
    try:
        return math.isfinite(float(token))
    except ValueError:
        return True


class _Scan:
    """What is to be known of an XML file before MuJoCo reads it.

    root: its first tag; included: contents of the files that it includes, by name; turned: the rpy of the
    inertials of a URDF, by link.

    Raises RobotError if a file cannot be read or is no XML, and for what MuJoCo, or a version of it, passes over:
    numbers that are not finite, and joints that mimic others.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.folder = path.parent
        self.root = ""
        self.included: dict[str, bytes] = {}
        self.turned: dict[str, str] = {}
        self._read(path)

    def _read(self, path: pathlib.Path) -> None:
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
                problems.append(
                    f"{label}: expected a joint that moves by itself, got a mimic of {attributes.get('joint')!r}"
                )
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
            parser.Parse(path.read_bytes(), True)
        except OSError as error:
            raise RobotError(f"{path}: expected a file that can be read, got: {error.strerror}") from None
        except RobotError:
            raise
        except (expat.ExpatError, LookupError, ValueError) as error:
            raise RobotError(f"{path}: expected XML, got: {error}") from None
        if problems:
            raise RobotError(f"{path}: {problems[0]}")


def _three_numbers(text: str) -> bool:
    """Return whether a text is three numbers."""
    try:
        return len([float(token) for token in text.split()]) == 3
    except ValueError:
        return False


class ModelFile:
    """A floating base with four legs of three hinges, about +x, +y and +y of the base; everything else is refused.

    model, data: MuJoCo's, in the zero pose, inertias but for those of inertia(); mj: the package; base: a body;
    bodies, joints: (4, 3) indices in the order of LEGS; origin: (4, 3, 3) joint origins, base frame [m]; paired:
    names of geoms that collide by a <pair>.

    path: of the file; its root element says which of the two it is.

    Raises RobotError, naming the file and the element.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.file = str(path)
        scan = _Scan(path)
        root = scan.root
        if root not in ("mujoco", "robot"):
            raise self.fail(root, f"<mujoco> or <robot> as the root, got <{root}>")
        try:
            import mujoco
        except ImportError:
            raise self.fail(
                "mujoco", "the package that compiles this file, got none: pip install 'mujoco>=3.4'"
            ) from None
        self.mj = mujoco
        try:
            # from_file() refuses other endings, in some versions URDF's too
            spec = (
                mujoco.MjSpec.from_file(self.file)
                if path.suffix == ".xml"
                else mujoco.MjSpec.from_string(path.read_text("utf-8"), include=scan.included)
            )
            self._strip(spec, urdf=root == "robot")
            self._keep_inertias(spec, scan.turned)
            self.model = spec.compile()
        except RobotError:
            raise
        except (ValueError, mujoco.FatalError) as error:
            text = " ".join(str(error).split())
            element = re.search(r"[Ee]lement (?:name )?'([^']+)'", text)
            raise self.fail(element[1] if element else root, f"what MuJoCo can compile, got: {text}") from None
        self.data = mujoco.MjData(self.model)
        self._refuse_foreign()
        self._find_legs()
        self._check_axes()

    def fail(self, element: str, expected: str) -> RobotError:
        """Return the error about an element."""
        return RobotError(f"{self.file}: {element}: expected {expected}")

    def label(self, kind: str, i: int) -> str:
        """Return what to call element i of a kind: body, joint, actuator or key."""
        name = self.mj.mj_id2name(self.model, getattr(self.mj.mjtObj, f"mjOBJ_{kind.upper()}"), int(i))
        if not name and kind == "joint":
            return f"joint of {self.label('body', self.model.jnt_bodyid[i])}"
        return f"{kind} {name!r}" if name else f"{kind} {int(i)} (without a name)"

    def labels(self, kind: str, elements: list[int]) -> str:
        """Return what to call several elements."""
        return ", ".join(self.label(kind, i) for i in elements) or "none"

    def check_finite(self, kind: str, i: int, *values: Any) -> None:
        """Raise RobotError if a value of an element is not finite."""
        if not all(np.isfinite(value).all() for value in values):
            raise self.fail(self.label(kind, i), "finite numbers, got some that are not")

    def inertia(self, body: int) -> np.ndarray:
        """Return the inertia (3, 3) of a body by itself, about its com and along its inertial frame [kg m^2]."""
        return self.tensors.get(self.model.body(body).name, np.diag(self.model.body_inertia[body]))

    def _strip(self, spec: Any, urdf: bool) -> None:
        """Refuse what is no tree, take away what needs other files, let a URDF's root float."""
        mj = self.mj
        compiler = spec.compiler
        inertia = self.mj.mjtInertiaFromGeom
        ties = [element for element in spec.equalities if element.active]
        for what, elements in (
            ("equality constraint", ties),
            ("tendon", spec.tendons),
            ("flex", spec.flexes),
            ("plugin", spec.plugins),
        ):
            for element in elements:
                name = element.name or " and ".join(
                    filter(None, (getattr(element, "name1", ""), getattr(element, "name2", "")))
                )
                raise self.fail(f"{what} {name!r}", "a tree of bodies and hinges and no more")

        compiler.fusestatic = False  # keeps the names of bodies without joints
        if urdf:
            if compiler.inertiafromgeom == inertia.mjINERTIAFROMGEOM_AUTO:
                compiler.inertiafromgeom = inertia.mjINERTIAFROMGEOM_FALSE  # a link without <inertial> has no mass
            for body in spec.worldbody.bodies:
                if not len(body.joints):
                    body.add_freejoint()

        least, most = compiler.inertiagrouprange
        for geom in list(spec.geoms):
            geom.material = ""
            if not geom.meshname and geom.type not in (
                mj.mjtGeom.mjGEOM_MESH,
                mj.mjtGeom.mjGEOM_SDF,
                mj.mjtGeom.mjGEOM_HFIELD,
            ):
                continue
            body = geom.parent
            weighs = least <= geom.group <= most and (geom.density if math.isnan(geom.mass) else geom.mass) != 0
            choice = compiler.inertiafromgeom
            inferred = choice == inertia.mjINERTIAFROMGEOM_TRUE or (
                choice == inertia.mjINERTIAFROMGEOM_AUTO and not body.explicitinertial
            )
            if weighs and inferred and body.name != "world":
                raise self.fail(f"body {body.name!r}", "an inertial, got a mesh to take the inertia from")
            spec.delete(geom)
        for site in spec.sites:
            site.material = ""
        self.paired = {name for pair in spec.pairs for name in (pair.geomname1, pair.geomname2)}
        for kind in REFERRING + DRAWN:
            for element in list(getattr(spec, kind)):
                spec.delete(element)

    def _keep_inertias(self, spec: Any, turned: dict[str, str]) -> None:
        """Turn the inertias of a URDF into the frames of their links, put aside those that MuJoCo would not take.

        turned: rpy by link; MuJoCo 3.4 to at least 3.12 forgets it beside an inertia that is not diagonal. No version
        takes an inertia that is not physical, as dummies and sensors often have; only that of a whole link counts.
        """
        mj = self.mj
        R = np.zeros(9)
        quaternion = np.zeros(4)
        self.tensors: dict[str, np.ndarray] = {}
        for k, body in enumerate(spec.bodies):
            xx, yy, zz, xy, xz, yz = body.fullinertia
            tensor = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
            if not np.isfinite(tensor).all():
                continue
            if body.name in turned:
                mj.mju_euler2Quat(quaternion, np.array(turned[body.name].split(), float), "XYZ")
                mj.mju_quat2Mat(R, quaternion)
                tensor = R.reshape(3, 3) @ tensor @ R.reshape(3, 3).T
                body.iquat = 1, 0, 0, 0
                body.fullinertia = tensor[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
            low, middle, high = np.linalg.eigvalsh(tensor)
            if (low < 1e-9 * high or high > (low + middle) * (1 - 1e-9)) and not spec.compiler.balanceinertia:
                body.name = body.name or f"without a name, {k}"
                self.tensors[body.name] = tensor
                body.fullinertia = np.full(6, math.nan)
                body.inertia = np.ones(3)

    def _refuse_foreign(self) -> None:
        for name, kind, meaning in FOREIGN:
            for i, row in enumerate(getattr(self.model, name, ())):
                if np.any(row):
                    i = self.model.dof_jntid[i] if name.startswith("dof") else i
                    raise self.fail(self.label(kind, i), f"what a Robot can represent, got {meaning}")

    def _find_legs(self) -> None:
        """Find the base and the legs' bodies and joints, by where they are in the zero pose."""
        mj = self.mj
        model = self.model
        data = self.data
        moving = [b for b in range(1, model.nbody) if model.body_jntnum[b]]
        beyond: dict[int, list[int]] = {}  # bodies with joints, by the one that bears them, or the world (0)
        for b in moving:
            beyond.setdefault(int(model.body_weldid[model.body_parentid[b]]), []).append(b)
        free = [int(model.jnt_bodyid[j]) for j in np.flatnonzero(model.jnt_type == mj.mjtJoint.mjJNT_FREE)]
        if not free:
            top = self.label("body", model.body_rootid[(moving or [1])[0]]) if model.nbody > 1 else "worldbody"
            raise self.fail(top, "a base with a free joint, got none")
        self.base = free[0]
        for b in beyond[0]:
            if b != self.base:
                raise self.fail(
                    self.label("body", b),
                    f"{self.label('body', self.base)} alone to move in the world, got another body with a joint",
                )

        chains = []
        for hip in beyond.get(self.base, []):
            chain = [hip]
            while chain[-1] in beyond:
                if len(beyond[chain[-1]]) > 1:
                    raise self.fail(
                        self.label("body", chain[-1]),
                        f"one body with a joint beyond it, got {self.labels('body', beyond[chain[-1]])}",
                    )
                chain += beyond[chain[-1]]
            chains.append(chain)
        if len(chains) != 4:
            raise self.fail(
                self.label("body", self.base),
                f"four legs, got {len(chains)}: {self.labels('body', [chain[0] for chain in chains])}",
            )
        for chain in chains:
            joints = [
                j for b in chain for j in range(model.body_jntadr[b], model.body_jntadr[b] + model.body_jntnum[b])
            ]
            for j in joints:
                if model.jnt_type[j] != mj.mjtJoint.mjJNT_HINGE:
                    raise self.fail(
                        self.label("joint", j),
                        f"a hinge, got a {mj.mjtJoint(int(model.jnt_type[j])).name[6:].lower()} joint",
                    )
            if len(joints) != 3 or len(chain) != 3:
                found = f"{len(joints)} on {len(chain)} bodies: {self.labels('joint', joints)}"
                raise self.fail(
                    self.label("body", chain[0]), f"a leg of three joints, each with a body of its own, got {found}"
                )

        data.qpos[:] = 0
        data.qpos[model.jnt_qposadr[model.body_jntadr[self.base]] + 3] = 1
        mj.mj_kinematics(model, data)
        hips = data.xanchor[model.body_jntadr[[chain[0] for chain in chains]]]
        place = (hips < hips.mean(axis=0))[:, :2] @ [2, 1]  # rear counts 2, right 1: the order of LEGS
        if sorted(place) != [0, 1, 2, 3]:
            found = ", ".join(
                f"{self.label('body', chain[0])} at ({x:.4g}, {y:.4g})"
                for chain, (x, y, _) in zip(chains, hips, strict=True)
            )
            raise self.fail(self.label("body", self.base), f"a hip at each of its four corners, got {found}")
        self.bodies = np.array(chains)[np.argsort(place)]
        self.joints = model.body_jntadr[self.bodies]
        self.origin = data.xanchor[self.joints]

    def _check_axes(self) -> None:
        model = self.model
        root = self.model.body_jntadr[self.base]
        for name in ("damping", "armature", "frictionloss"):
            if getattr(model, f"dof_{name}")[model.jnt_dofadr[root] :][:6].any():
                raise self.fail(self.label("joint", root), f"a base that nothing holds, got {name}")
        for j, name, axis in zip(self.joints.flat, JOINTS * 4, AXES * 4, strict=True):
            wanted = np.array([axis == "x", axis == "y", False], float)
            found = self.data.xaxis[j]
            self.check_finite("joint", j, found, self.data.xanchor[j])
            if np.abs(found - wanted).max() > TOLERANCE:
                hint = "; turn the axis round, and range and keyframes with it" if found @ wanted < -0.9 else ""
                text = " ".join(f"{x:g}" for x in found.round(4) + 0.0)
                raise self.fail(
                    self.label("joint", j), f"a {name} about +{axis} of the base, got the axis {text}{hint}"
                )
