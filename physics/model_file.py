"""An MJCF or URDF file, compiled by MuJoCo: the base and the four legs in it, in one pose and one frame.

MuJoCo's compiler knows defaults, includes, units and orders of rotation. Its model stands in the zero pose, every joint
coordinate 0, base at the origin and turned so that x is forward, y to the left and z up: there the frames of a Robot
are parallel to the world's, so constant rotations between the file's frames drop out. Meshes and pictures need not be
there. Joints that are none of a leg's three are locked, their bodies then being part of what bears them.
"""

import itertools
import math
import pathlib
import re
from typing import Any

import numpy as np

from physics.model_text import ModelText
from physics.robot import AXES, JOINTS, ImportOptions, RobotError

TOLERANCE = 1e-3  # of a direction [rad]: what files round off
ACROSS = 0.1  # component below which one axis counts as across another [1]
FRONT = {"fl", "fr", "lf", "rf", "front", "fore"}  # parts of names of front legs' bodies and joints
REAR = {"rl", "rr", "hl", "hr", "lh", "rh", "bl", "br", "lb", "rb", "rear", "hind", "back"}
DUST = 1e-12  # mass of a moving body that has none itself, for MuJoCo refuses it [kg]
NO_INERTIA = 1e-14  # what MuJoCo refuses too [kg m^2]

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


class ModelFile:
    """A floating base with four legs of three hinges, the first about one axis, the others across it.

    model, data: MuJoCo's, in the zero pose, inertias but for those of inertia(); mj: the package; base: a body;
    bodies, joints: (4, 3) indices in the order of LEGS; sign: (4, 3) whether the file's joints turn about +x, +y and +y
    (1) or the other way (-1); origin: (4, 3, 3) joint origins, base frame [m]; turned: whether the file's base frame is
    another; paired: names of geoms that collide by a <pair>; spec: what model is compiled of; notes: what was
    done and assumed, for people.

    path: of the file; its root element says which of the two it is.

    Raises RobotError, naming the file and the element.
    """

    def __init__(self, path: pathlib.Path, options: ImportOptions) -> None:
        self.file = str(path)
        self.options = options
        self.notes: list[str] = []
        self.bare: list[int] = []  # bodies without inertia
        self.assumed_feet: dict[int, float] = {}  # radius by body [m]
        text = ModelText(path)
        root = text.root
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
            if root == "robot":
                spec = mujoco.MjSpec.from_string(text.bodies_alone())
            elif path.suffix == ".xml":  # from_file() refuses other endings in some versions
                spec = mujoco.MjSpec.from_file(self.file)
            else:
                spec = mujoco.MjSpec.from_string(text.data.decode(), include=text.included)
            self._strip(spec, urdf=root == "robot")
            self._keep_inertias(spec, text.turned)
            self._compile(spec)
            self._lock(spec, text.mimics)
        except RobotError:
            raise
        except (ValueError, mujoco.FatalError) as error:
            told = " ".join(str(error).split())
            element = re.search(r"[Ee]lement (?:name )?'([^']+)'", told)
            raise self.fail(element[1] if element else root, f"what MuJoCo can compile, got: {told}") from None
        self._refuse_foreign()
        self._turn()
        self._check_axes()

    def _compile(self, spec: Any) -> None:
        self.spec = spec
        self.model = spec.compile()
        self.data = self.mj.MjData(self.model)
        self.data.qpos[:] = 0
        for j in np.flatnonzero(self.model.jnt_type == self.mj.mjtJoint.mjJNT_FREE):
            self.data.qpos[self.model.jnt_qposadr[j] + 3] = 1
        self.mj.mj_kinematics(self.model, self.data)

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
        for what, elements in (("flex", spec.flexes), ("plugin", spec.plugins)):
            for element in elements:
                raise self.fail(f"{what} {element.name!r}", "a tree of bodies and hinges and no more")

        compiler.fusestatic = False  # keeps the names of bodies without joints
        if urdf and compiler.inertiafromgeom == inertia.mjINERTIAFROMGEOM_AUTO:
            compiler.inertiafromgeom = inertia.mjINERTIAFROMGEOM_FALSE  # a link without <inertial> has no mass
        tops = list(spec.worldbody.bodies)
        if urdf or not any(joint.type == mj.mjtJoint.mjJNT_FREE for joint in spec.joints):
            for body in tops if urdf else tops[:1] if len(tops) == 1 else ():
                if not len(body.joints):
                    body.add_freejoint()
                    if not urdf:
                        self.notes.append(f"body {body.name!r} has no free joint: it was given one")
                        for key in list(spec.keys):  # which know nothing of it
                            spec.delete(key)
        for joint in spec.joints:
            if joint.type == mj.mjtJoint.mjJNT_FREE:
                held = [name for name in ("damping", "armature", "frictionloss") if np.any(getattr(joint, name))]
                if held:
                    self.notes.append(f"joint {joint.name!r} is free: its {' and '.join(held)} was dropped")
                joint.damping, joint.armature, joint.frictionloss = np.zeros_like(joint.damping), 0.0, 0.0

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
        infers = spec.compiler.inertiafromgeom != mj.mjtInertiaFromGeom.mjINERTIAFROMGEOM_FALSE
        for k, body in enumerate(spec.bodies):
            xx, yy, zz, xy, xz, yz = body.fullinertia
            tensor = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
            given = body.explicitinertial
            if not np.isfinite(tensor).all():
                shaped = not given and infers and len(body.geoms)
                if np.any(body.inertia) or shaped or not (given or len(body.joints)):
                    continue
                tensor = np.zeros((3, 3))  # none is given, or one that is 0
                if not body.mass > 0 and len(body.joints):  # it bears others
                    body.mass = DUST
                body.explicitinertial = True
            if body.name in turned:
                mj.mju_euler2Quat(quaternion, np.array(turned[body.name].split(), float), "XYZ")
                mj.mju_quat2Mat(R, quaternion)
                tensor = R.reshape(3, 3) @ tensor @ R.reshape(3, 3).T
                body.iquat = 1, 0, 0, 0
                body.fullinertia = tensor[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
            low, middle, high = np.linalg.eigvalsh(tensor)
            sound = high >= NO_INERTIA and low >= 1e-9 * high and high <= (low + middle) * (1 - 1e-9)
            if not sound and not spec.compiler.balanceinertia:
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

    def _beyond(self) -> dict[int, list[int]]:
        """Return the bodies with joints, by the one that bears them, or the world (0)."""
        model = self.model
        found: dict[int, list[int]] = {}
        for b in range(1, model.nbody):
            if model.body_jntnum[b]:
                found.setdefault(int(model.body_weldid[model.body_parentid[b]]), []).append(b)
        return found

    def _find_base(self) -> dict[int, list[int]]:
        """Find the base; return _beyond()."""
        mj = self.mj
        model = self.model
        beyond = self._beyond()
        moving = [b for found in beyond.values() for b in found]
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
        return beyond

    def _legs(self, beyond: dict[int, list[int]]) -> list[list[int]]:
        """Return the joints of the four legs, three each, among the chains that the base bears.

        A leg's first three joints are hinges on bodies of their own, and what moves beyond or beside them is no part of
        it; the first are parallel in all legs, and so are the second and the third.
        """
        model = self.model
        hips = beyond.get(self.base, [])
        chains = [
            self._joints_of([hip, *more])
            for hip in hips
            for more in [(b, c) for b in beyond.get(hip, ()) for c in beyond.get(b, ())] or [beyond.get(hip, ())]
        ]
        hinge = self.mj.mjtJoint.mjJNT_HINGE
        whole = [
            joints
            for joints in chains
            if len(joints) == 3 and len(set(model.jnt_bodyid[joints])) == 3 and (model.jnt_type[joints] == hinge).all()
        ]

        def alike(one: list[int], other: list[int]) -> bool:
            axes = self.data.xaxis[one], self.data.xaxis[other]
            return bool((np.abs((axes[0] * axes[1]).sum(axis=1)) > 1.0 - ACROSS).all())

        # of paths that begin at the same hip, the first that is alike
        groups = [
            [*{other[0]: other for other in reversed(whole) if alike(joints, other)}.values()][::-1] for joints in whole
        ]
        four = [group for group in groups if len(group) == 4]
        if four:
            return four[0]
        if len(hips) == 4:
            for joints in chains:
                self._refuse_leg(joints)
        if len(whole) == 4:
            odd = min(range(4), key=lambda i: len(groups[i]))
            axes = ", ".join(f"{self.label('joint', j)} about {_text(self.data.xaxis[j])}" for j in whole[odd])
            raise self.fail(
                self.label("joint", whole[odd][0]), f"a leg whose joints turn about the axes of the others', got {axes}"
            )
        raise self.fail(self.label("body", self.base), f"four legs, got {len(hips)}: {self.labels('body', hips)}")

    def _joints_of(self, bodies: list[int]) -> list[int]:
        """Return the joints of bodies, in order."""
        adr, count = self.model.body_jntadr, self.model.body_jntnum
        return [j for b in bodies for j in range(adr[b], adr[b] + count[b])]

    def _refuse_leg(self, joints: list[int]) -> None:
        """Raise RobotError for a chain that is no leg of three hinges."""
        mj = self.mj
        model = self.model
        for j in joints:
            if model.jnt_type[j] != mj.mjtJoint.mjJNT_HINGE:
                kind = mj.mjtJoint(int(model.jnt_type[j])).name[6:].lower()
                raise self.fail(self.label("joint", j), f"a hinge, got a {kind} joint")
        bodies = sorted(set(model.jnt_bodyid[joints].tolist()))
        if len(joints) != 3 or len(bodies) != 3:
            found = f"{len(joints)} on {len(bodies)} bodies: {self.labels('joint', joints)}"
            raise self.fail(
                self.label("body", bodies[0]), f"a leg of three joints, each with a body of its own, got {found}"
            )

    def _lock(self, spec: Any, mimics: dict[str, str]) -> None:
        """Lock what moves and is no leg's, compile again, and find the legs by where they are in the zero pose."""
        mj = self.mj
        legs = self._legs(self._find_base())
        names = {self.model.joint(j).name for leg in legs for j in leg}
        angles = dict(self.options.lock)
        known = {joint.name for joint in spec.joints}
        for name in angles:
            if name not in known - names:
                others = ", ".join(sorted(x for x in known - names if x)) or "none"
                raise self.fail(f"robot.lock: joint {name!r}", f"a joint that is no leg's; there are {others}")
        extra = [
            joint
            for joint in spec.joints
            if joint.type != mj.mjtJoint.mjJNT_FREE and joint.parent.name != "world" and joint.name not in names
        ]
        locked = {joint.name for joint in extra}
        for name, other in mimics.items():
            if name in names:
                raise self.fail(f"joint {name!r}", f"a joint that moves by itself, got a mimic of {other!r}")
        for what, elements in (("equality constraint", list(spec.equalities)), ("tendon", list(spec.tendons))):
            for element in elements:
                ends = [x for x in (getattr(element, "name1", ""), getattr(element, "name2", "")) if x]
                if ends and set(ends) <= locked:
                    spec.delete(element)
                elif what == "tendon" or element.active:
                    name = element.name or " and ".join(ends)
                    raise self.fail(f"{what} {name!r}", "a tree of bodies and hinges and no more")
        if extra:
            told = []
            for joint in extra:
                angle = angles.get(joint.name, self._rest(joint.name))
                _fix(mj, joint, angle)
                told.append(f"{joint.name or joint.parent.name} at {angle:.3g}")
            for actuator in list(spec.actuators):
                if actuator.target in locked:
                    spec.delete(actuator)
            for key in list(spec.keys):
                key.qpos = self._without(key.qpos, locked)
                key.qvel = []
                key.act = []
                key.ctrl = []
            for joint in extra:
                spec.delete(joint)
            self.notes.append(f"locked, its mass kept: {', '.join(told)}")
            self._compile(spec)
            legs = self._legs(self._find_base())
        hips = self.data.xanchor[[leg[0] for leg in legs]]
        self.joints = np.array(legs)
        self.bodies = self.model.jnt_bodyid[self.joints]
        self.hips = hips

    def _rest(self, name: str) -> float:
        """Return the angle at which a joint rests: in the home keyframe, else 0, or what is nearest to it in range."""
        model = self.model
        j = model.joint(name).id
        key = self.home_key()
        if key is not None:
            return float(model.key_qpos[key][model.jnt_qposadr[j]])
        low, high = model.jnt_range[j]
        return float(np.clip(0.0, low, high)) if low < high else 0.0

    def home_key(self) -> int | None:
        """Return the number of the keyframe "home", or of the only one."""
        names = [self.mj.mj_id2name(self.model, self.mj.mjtObj.mjOBJ_KEY, key) for key in range(self.model.nkey)]
        if "home" not in names and len(names) != 1:
            return None
        return names.index("home") if "home" in names else 0

    def _without(self, qpos: np.ndarray, locked: set[str]) -> np.ndarray:
        """Return the coordinates of a keyframe of the joints that are not locked."""
        model = self.model
        if len(qpos) != model.nq:
            return qpos
        gone = [int(model.jnt_qposadr[j]) for j in range(model.njnt) if model.joint(j).name in locked]
        return np.delete(np.asarray(qpos), gone)

    def _turn(self) -> None:
        """Turn the base so that x is forward, y to the left and z up; put legs in their order."""
        mj = self.mj
        model = self.model
        data = self.data
        axes = data.xaxis[self.joints]
        for j, axis in zip(self.joints.flat, axes.reshape(-1, 3), strict=True):
            self.check_finite("joint", j, axis, data.xanchor[j])
        hip, thigh = axes[0, 0], axes[0, 1]
        if abs(hip @ thigh) > ACROSS or abs(axes[0, 2] @ thigh) < 1.0 - ACROSS:
            shown = ", ".join(_text(axis) for axis in axes[0])
            raise self.fail(
                self.label("joint", self.joints[0, 0]),
                f"legs that turn about one axis at the hip and across it at thigh and calf, got {shown}",
            )
        x, y = _axis(hip), _axis(thigh)
        # up: as the file has it, or away from the feet where it lies across that
        up = np.cross(x, y)
        lower = (data.xipos[self.bodies[:, 2]] - self.hips).mean(axis=0)
        y = y if (up[2] if abs(up[2]) > 0.5 else -(up @ lower)) > 0 else -y
        front = self._front()
        ahead = front if front is not None else x if max(x, -x, key=np.max)[np.argmax(np.abs(x))] > 0 else -x
        if x @ ahead < 0:
            x = -x
            y = -y
        R_FB = np.stack([x, y, np.cross(x, y)])  # rows: Foal's axes in the file's base frame
        self.turned = not np.allclose(R_FB, np.eye(3), atol=TOLERANCE)
        if self.turned:
            self.notes.append(f"base frame turned: forward is the file's {_text(x)}, up its {_text(np.cross(x, y))}")
            quaternion = np.zeros(4)
            mj.mju_mat2Quat(quaternion, R_FB.ravel())
            at = model.jnt_qposadr[model.body_jntadr[self.base]]
            data.qpos[at + 3 : at + 7] = quaternion
            mj.mj_kinematics(model, data)
        hips = data.xanchor[self.joints[:, 0]]
        place = (hips < hips.mean(axis=0))[:, :2] @ [2, 1]  # rear counts 2, right 1: the order of LEGS
        if sorted(place) != [0, 1, 2, 3]:
            found = ", ".join(
                f"{self.label('body', b)} at ({x:.4g}, {y:.4g})"
                for b, (x, y, _) in zip(self.bodies[:, 0], hips, strict=True)
            )
            raise self.fail(self.label("body", self.base), f"a hip at each of its four corners, got {found}")
        order = np.argsort(place)
        self.joints = self.joints[order]
        self.bodies = self.bodies[order]
        self.origin = data.xanchor[self.joints]

    def _front(self) -> np.ndarray | None:
        """Return the direction (3) from the rear hips to the front ones, by the names of legs, None without."""
        ends = []
        for words in (FRONT, REAR):
            legs = [
                i
                for i in range(4)
                if any(
                    words & set(re.split(r"[^a-z]+", name.lower()))
                    for name in (self.model.joint(self.joints[i, 0]).name, self.model.body(self.bodies[i, 0]).name)
                )
            ]
            ends.append(legs)
        if sorted(itertools.chain(*ends)) != [0, 1, 2, 3] or len(ends[0]) != 2:
            return None
        return self.hips[ends[0]].mean(axis=0) - self.hips[ends[1]].mean(axis=0)

    def _check_axes(self) -> None:
        """Find which way joints turn; raise RobotError where not about x, y and y."""
        self.sign = np.ones((4, 3))
        for (i, j), joint in np.ndenumerate(self.joints):
            wanted = np.array([AXES[j] == "x", AXES[j] == "y", False], float)
            found = self.data.xaxis[joint]
            self.sign[i, j] = 1.0 if found @ wanted > 0 else -1.0
            if np.abs(found - self.sign[i, j] * wanted).max() > TOLERANCE:
                raise self.fail(
                    self.label("joint", joint),
                    f"a {JOINTS[j]} about {AXES[j]} of the base, got the axis {_text(found)}",
                )
        if (self.sign < 0).any():
            names = self.labels("joint", self.joints[self.sign < 0].tolist())
            self.notes.append(f"turn the other way in the file: {names.replace('joint ', '')}")


def _text(axis: np.ndarray) -> str:
    return " ".join(f"{x:g}" for x in np.asarray(axis).round(4) + 0.0)


def _axis(found: np.ndarray) -> np.ndarray:
    """Return a direction of unit length, of what files round off cleared."""
    nearest = np.round(found)
    found = nearest if np.abs(found - nearest).max() <= TOLERANCE else found
    return found / np.linalg.norm(found)


def _fix(mj: Any, joint: Any, value: float) -> None:
    """Put the body of a joint where it is at a value of the joint [rad, m], before the joint is deleted."""
    body = joint.parent
    R = np.zeros(9)
    turn = np.zeros(4)
    quaternion = np.array(body.quat, float)
    mj.mju_quat2Mat(R, quaternion)
    axis = np.array(joint.axis, float) / np.linalg.norm(joint.axis)
    moved = value - joint.ref
    if joint.type == mj.mjtJoint.mjJNT_SLIDE:
        body.pos = body.pos + moved * R.reshape(3, 3) @ axis
        return
    mj.mju_axisAngle2Quat(turn, axis, moved)
    T = np.zeros(9)
    mj.mju_quat2Mat(T, turn)
    pivot = np.array(joint.pos, float)
    body.pos = body.pos + R.reshape(3, 3) @ (pivot - T.reshape(3, 3) @ pivot)
    mj.mju_mulQuat(quaternion, np.array(body.quat, float), turn)
    body.quat = quaternion
