"""A Robot from an MJCF or URDF file; ground, options, sensors and controllers of the file are left behind."""

import dataclasses
import math
import pathlib

import numpy as np

from physics.model_file import DUST, NO_INERTIA, ModelFile
from physics.robot import AXES, ImportOptions, Link, Robot

REACH = 0.8  # of a leg's full length, from thigh joint to foot, in the neutral stance
EVERY_ANGLE = (-math.pi, math.pi)  # range of a joint without one [rad]
LIMIT_WANTED = (
    "a torque limit, the same both ways (actuatorfrcrange, forcerange or a motor's ctrlrange; URDF: effort), "
    "or --robot.torque_limit"
)
USUAL_TORQUE = 0.8  # of what Unitree's, ANYbotics' and Boston Dynamics' motors do, over weight and thigh: 0.3 to 0.9
UNEVEN = 0.1  # of thigh and calf, by which feet of a home pose may differ in height
LYING = 0.35  # of thigh and calf, below which a base is too low over its feet to stand
NEAR = 0.1  # beyond its range, from where a home angle is brought back into it [rad]
ROD = 0.1  # radius of a rod over its length, whose inertia a link without one has
FOOT_SHARE = 0.1  # radius of a foot whose shape is not known, over the calf's length
FARTHER = 1.5  # times a fixed link's distance from the knee, from which on the calf's own geometry is the foot's
MOST_TORQUE = 10.0  # times weight and thigh, above which a torque limit is not a motor's
SETTLED = 1e-3  # a keyframe that puts the feet this close to the ground has them on it [m]
LEVEL = 1e-3  # components of a direction, below which a geom lies level [1]


def import_robot(path: pathlib.Path, options: ImportOptions | None = None) -> Robot:
    """Read a robot from an MJCF, URDF or xacro file.

    path: of the file, which holds a base with four legs of three hinges, the first about one axis, thigh and calf
    across it, at zero angles. Which end is the front, names of legs say (front, FL, LF, rear, hind, ...), else the
    file's x; up is the file's z, or, if that lies, away from the feet. Joints may turn either way. Bodies without
    joints become part of their parents, as do those of joints that are none of a leg's three: these are locked at
    options.lock, else at the home keyframe, else at 0 or what is nearest to it within their range. What was done is
    told in Robot.notes. What the file may leave open:

    - range: what stands there, enforced or not; else -pi to pi.
    - torque limit: options.torque_limit, else what a joint's actuators can give and its actuatorfrcrange (URDF:
      effort) lets through.
    - damping, armature, friction: 0. URDF has no armature.
    - foot: of the collision geometry of the last link that is fixed to the calf, else of the calf itself, what reaches
      lowest in the home pose, a sphere before others; of others the sphere of the same radius (a box: half its
      thickness) at the lowest point. A last link without such a geometry is a foot at its origin, of
      options.foot_radius, else of a tenth of the calf's length.
    - torque limits, where no joint has one: 0.8 times the robot's weight times the length of the thigh.
    - home: keyframe "home", else the only keyframe, if it stands in it on level feet, angles at most 0.1 rad beyond
      their range brought back; else hips at 0 and each foot below its thigh joint at 0.8 of
      the leg's length, knees bent as the ranges let them, backwards if both ways.
    - home height: the keyframe's if it puts the lowest foot on z = 0, to 1 mm; else the one that does, base level.
    - inertia of a link with mass whose numbers are all 0: of a box like the trunk, of a rod along the leg.
    - trunk: the bounding box of the base's collision geometry; without that, as long and wide as the hips lie from the
      base's origin, and as high as wide.

    Raises RobotError, naming the file and the element, for what is malformed or cannot be represented.
    """
    options = options or ImportOptions()
    m = ModelFile(path, options)
    offset = np.diff(m.origin, axis=1, prepend=0.0)
    joint_range = np.array([[_joint_range(m, i, j) for j in range(3)] for i in range(4)])
    if options.torque_limit:
        torque_limit = np.full((4, 3), options.torque_limit)
    else:
        torque_limit = np.array([[_torque_limit(m, j) for j in leg] for leg in m.joints])
    missing = m.joints[torque_limit == 0.0]
    if 0 < len(missing) < 12:
        raise m.fail(m.label("joint", missing[0]), f"{LIMIT_WANTED}, as other joints have, got none")
    if len(missing):
        weight = 9.81 * m.model.body_subtreemass[m.base]
        torque_limit[:] = float(f"{USUAL_TORQUE * weight * np.linalg.norm(offset[:, 2], axis=1).mean():.2g}")
        m.notes.append(f"no joint has a torque limit: {torque_limit[0, 0]:g} N m assumed, --robot.torque_limit sets it")
    damping, armature, friction = (_per_joint(m, name) for name in ("damping", "armature", "frictionloss"))
    height, home = _keyframe(m)
    home = _stance(m, offset, joint_range, home)
    feet, radii, home = _stand(m, offset, joint_range, home)
    trunk, middle = _trunk(m)
    ends = np.concatenate([offset[:, 1:], feet[:, None]], axis=1)  # of links, from their origins
    standing = -min(_foot_height(offset[i], feet[i], home[i]) - radii[i] for i in range(4))
    base = _link(m, m.base, np.zeros(3), 2 * trunk)
    links = tuple(tuple(_link(m, m.bodies[i, j], m.origin[i, j], _rod(ends[i, j])) for j in range(3)) for i in range(4))
    if m.bare:
        m.notes.append(f"no inertia, that of a box or rod of their size assumed: {m.labels('body', m.bare)}")
    if m.assumed_feet:
        radius = np.mean([*m.assumed_feet.values()])
        m.notes.append(
            f"no shape that is read, feet of radius {radius:.2g} m at their origins assumed, "
            f"--robot.foot_radius sets it: {m.labels('body', [*m.assumed_feet])}"
        )
    robot = Robot(
        name=path.stem,
        base=base,
        trunk_half_extents=trunk,
        trunk_centre=middle,
        links=links,
        offset=offset,
        foot_offset=feet,
        foot_radius=radii,
        damping=damping,
        armature=armature,
        friction=friction,
        torque_limit=torque_limit,
        joint_range=joint_range,
        home_height=height if height is not None and abs(height - standing) < SETTLED else standing,
        home_joints=home,
        joint_names=tuple(tuple(m.model.joint(j).name for j in leg) for leg in m.joints),
        joint_signs=m.sign,
        joint_order=tuple(np.argsort(m.joints.ravel()).tolist()),
        notes=tuple(m.notes),
    )
    robot.require_physical(str(path))
    return _with_warnings(robot)


def _with_warnings(robot: Robot) -> Robot:
    """Return a robot with a note where its torque limits are more than legs of its size can need."""
    needed = MOST_TORQUE * 9.81 * robot.total_mass * np.linalg.norm(robot.offset[:, 2], axis=1).mean()
    beyond = robot.torque_limit.max()
    if beyond <= needed:
        return robot
    note = (
        f"torque limit of {beyond:g} N m is {beyond / needed * MOST_TORQUE:.0f} times weight times thigh: "
        "is it what the motors can do? --robot.torque_limit sets it"
    )
    return dataclasses.replace(robot, notes=(*robot.notes, note))


def _rod(end: np.ndarray) -> np.ndarray:
    """Return the edges (3) of a box like a rod from a link's origin to an end (3) [m]."""
    length = max(float(np.linalg.norm(end)), SETTLED)
    return np.maximum(np.abs(end), 2 * ROD * length)


def _link(m: ModelFile, body: int, origin: np.ndarray, edges: np.ndarray) -> Link:
    """Return a body and all that is fixed to it as one, about an origin (3) in the base frame [m].

    edges: (3) of the box whose inertia it has where the file gives it none [m].
    """
    parts = np.flatnonzero(m.model.body_weldid == body)
    masses = m.model.body_mass[parts]
    coms = m.data.xipos[parts]
    moments = m.model.body_inertia[parts]
    m.check_finite("body", body, masses, coms, moments)
    mass = masses.sum()
    if mass <= 2 * DUST:
        raise m.fail(m.label("body", body), "a mass above 0, got 0")
    com = masses @ coms / mass
    inertia = np.zeros((3, 3))
    for part, d in zip(parts, coms - com, strict=True):
        R_BI = m.data.ximat[part].reshape(3, 3)  # I: the frame in which the part's inertia is given
        # I + m (d.d 1 - d d^T)
        inertia += R_BI @ m.inertia(part) @ R_BI.T + m.model.body_mass[part] * (d @ d * np.eye(3) - np.outer(d, d))
    if np.abs(inertia).max() < NO_INERTIA:
        inertia = mass / 12 * np.diag((edges**2).sum() - edges**2)
        m.bare.append(body)
    moments = np.linalg.eigvalsh(inertia)
    if moments[0] <= 0 or moments[2] > (moments[0] + moments[1]) * (1 + 1e-6):
        raise m.fail(
            m.label("body", body),
            f"a positive definite inertia whose principal moments obey the triangle inequality, got moments {moments}",
        )
    return Link(float(mass), com - origin, inertia)


def _per_joint(m: ModelFile, name: str) -> np.ndarray:
    """Return damping [N m s/rad], armature [kg m^2] or frictionloss [N m] of the joints, (4, 3)."""
    values = getattr(m.model, f"dof_{name}")[m.model.jnt_dofadr[m.joints]]
    for j, value in zip(m.joints.flat, values.flat, strict=True):
        m.check_finite("joint", j, value)
        if value < 0:
            raise m.fail(m.label("joint", j), f"{name} of at least 0, got {value:g}")
    return values


def _joint_range(m: ModelFile, leg: int, joint: int) -> tuple[float, float]:
    """Return a joint's lowest and highest angle, as Foal's turns [rad]."""
    j = m.joints[leg, joint]
    low, high = m.model.jnt_range[j]
    m.check_finite("joint", j, low, high)
    if not low < high:
        return EVERY_ANGLE
    low, high = sorted((m.sign[leg, joint] * low, m.sign[leg, joint] * high))
    return float(low), float(high)


def _torque_limit(m: ModelFile, j: int) -> float:
    """Return the largest torque about a joint, the same in both directions, 0 where the file sets none [N m]."""
    mj = m.mj
    model = m.model
    low = 0.0
    high = 0.0
    driven = False
    for a, way in enumerate(model.actuator_trntype):
        if (way != mj.mjtTrn.mjTRN_JOINT and way != mj.mjtTrn.mjTRN_JOINTINPARENT) or model.actuator_trnid[
            a, 0
        ] not in m.joints:
            raise m.fail(m.label("actuator", a), "an actuator of a leg's joint, got one of something else")
        if model.actuator_trnid[a, 0] != j:
            continue
        least, most = model.actuator_forcerange[a] if model.actuator_forcelimited[a] else (-math.inf, math.inf)
        motor = (
            model.actuator_gaintype[a] == mj.mjtGain.mjGAIN_FIXED
            and model.actuator_biastype[a] == mj.mjtBias.mjBIAS_NONE
        )
        if motor and model.actuator_dyntype[a] == mj.mjtDyn.mjDYN_NONE and model.actuator_ctrllimited[a]:
            forces = sorted(model.actuator_ctrlrange[a] * model.actuator_gainprm[a, 0])
            least = max(least, forces[0])
            most = min(most, forces[1])
        torques = sorted((least * model.actuator_gear[a, 0], most * model.actuator_gear[a, 0]))
        low = low + torques[0]
        high = high + torques[1]
        driven = True
    if not driven:
        low = -math.inf
        high = math.inf
    if model.jnt_actfrclimited[j]:
        low = max(low, model.jnt_actfrcrange[j, 0])
        high = min(high, model.jnt_actfrcrange[j, 1])
    if high in (0.0, math.inf) and low == -high:
        return 0.0
    if not (0 < high < math.inf and abs(low + high) <= 1e-6 * high):
        raise m.fail(m.label("joint", j), f"{LIMIT_WANTED}, got [{low:g}, {high:g}] N m")
    return float(high)


def _keyframe(m: ModelFile) -> tuple[float | None, np.ndarray | None]:
    """Return base height [m] and joint angles (4, 3) [rad] of the home keyframe, if there is one."""
    model = m.model
    key = m.home_key()
    if key is None:
        return None, None
    qpos = model.key_qpos[key]
    m.check_finite("key", key, qpos)
    height = float(qpos[model.jnt_qposadr[model.body_jntadr[m.base]] + 2])
    return None if m.turned else height, m.sign * qpos[model.jnt_qposadr[m.joints]]


def _stance(m: ModelFile, offset: np.ndarray, joint_range: np.ndarray, home: np.ndarray | None) -> np.ndarray | None:
    """Return the angles (4, 3) of a keyframe within their ranges, None where feet are not level, or the robot lies."""
    if home is None:
        return None
    low, high = np.moveaxis(joint_range, -1, 0)
    beyond = np.maximum(low - home, home - high)
    if beyond.max() > 1e-6 and beyond.max() <= NEAR:
        home = np.clip(home, low, high)
        m.notes.append(f"home angles up to {beyond.max():.2g} rad beyond their range were brought back into it")
    feet = [_foot(m, i, home[i])[0] for i in range(4)]
    heights = [_foot_height(offset[i], feet[i], home[i]) for i in range(4)]
    leg = np.linalg.norm(offset[:, 2], axis=1).mean() + np.linalg.norm(feet, axis=1).mean()
    uneven = max(heights) - min(heights)
    if uneven <= UNEVEN * leg and -min(heights) >= LYING * leg:
        return home
    told = (
        f"are {uneven:.2g} m apart in height" if uneven > UNEVEN * leg else f"are {-min(heights):.2g} m below its base"
    )
    m.notes.append(f"feet of its keyframe {told}: it stands in the neutral stance")
    return None


def _stand(
    m: ModelFile, offset: np.ndarray, joint_range: np.ndarray, keyed: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return foot centres (4, 3) in the calves' frames [m], foot radii (4) [m] and home angles (4, 3) [rad].

    offset: (4, 3, 3) [m]; joint_range: (4, 3, 2) [rad]; keyed: (4, 3) home angles of the file [rad], or None.
    """
    home = np.zeros((4, 3)) if keyed is None else keyed
    # which point of a calf is the lowest depends on the pose, and the neutral stance on that point: they settle soon
    for _ in range(1 if keyed is not None else 8):
        found = [_foot(m, i, home[i]) for i in range(4)]
        feet = np.array([centre for centre, _ in found])
        radii = np.array([radius for _, radius in found])
        if keyed is None:
            home = np.array([_neutral(m, i, offset[i], feet[i], joint_range[i]) for i in range(4)])
    for i, j in np.ndindex(4, 3):
        low, high = joint_range[i, j]
        if not low - 1e-6 <= home[i, j] <= high + 1e-6:
            raise m.fail(
                m.label("joint", m.joints[i, j]), f"a home angle within [{low:g}, {high:g}], got {home[i, j]:g}"
            )
    return feet, radii, home


def _rotation(axis: str, angle: float) -> np.ndarray:
    """Return the rotation (3, 3) about x or y by an angle [rad]."""
    s = math.sin(angle)
    c = math.cos(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]] if axis == "x" else [[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _foot_height(offset: np.ndarray, foot: np.ndarray, angles: np.ndarray) -> float:
    """Return the height above the base origin of a foot [m].

    offset: the leg's (3, 3) [m]; foot: (3) in the calf's frame [m]; angles: of the leg's joints (3) [rad].
    """
    for j in (2, 1, 0):
        foot = offset[j] + _rotation(AXES[j], angles[j]) @ foot
    return float(foot[2])


def _foot(m: ModelFile, i: int, angles: np.ndarray) -> tuple[np.ndarray, float]:
    """Return centre (3), calf frame, and radius [m] of leg i's foot at joint angles (3)."""
    calf = m.bodies[i, 2]
    down = _rotation("y", -angles[1] - angles[2]) @ _rotation("x", -angles[0]) @ [0, 0, -1.0]
    best = -math.inf
    foot = None
    last = _last_link(m, i)
    solids = _solids(m, calf)
    of_last = [g for g in solids if m.model.geom_bodyid[g] == last]
    if last is not None and not of_last and not _reaches_farther(m, i, solids, last):
        place = m.data.xpos[last] - m.origin[i, 2]
        radius = m.options.foot_radius or FOOT_SHARE * float(np.linalg.norm(place))
        m.assumed_feet[last] = radius
        return place, radius
    for g in of_last or solids:
        tip, radius = _tip(m, g, down)
        # a sphere is preferred to what reaches at most its radius lower
        reach = tip @ down + radius * (m.model.geom_type[g] == m.mj.mjtGeom.mjGEOM_SPHERE)
        if reach > best:
            best = reach
            foot = (tip - radius * down - m.origin[i, 2], radius)
    if foot is None:
        raise m.fail(
            m.label("body", calf),
            "a foot (a sphere, capsule, cylinder or box that collides, or a link fixed to its end), got none",
        )
    m.check_finite("body", calf, *foot)
    centre, radius = foot
    if m.options.foot_radius:
        centre = centre + (radius - m.options.foot_radius) * down
        radius = m.options.foot_radius
    return centre, radius


def _last_link(m: ModelFile, i: int) -> int | None:
    """Return the body farthest from the knee of those fixed to leg i's calf, if there is one at some distance."""
    calf = m.bodies[i, 2]
    fixed = [b for b in np.flatnonzero(m.model.body_weldid == calf) if b != calf]
    away = {int(b): float(np.linalg.norm(m.data.xpos[b] - m.origin[i, 2])) for b in fixed}
    last = max(away, key=lambda b: away[b], default=None)
    return last if last is not None and away[last] > SETTLED else None


def _reaches_farther(m: ModelFile, i: int, solids: list[int], last: int) -> bool:
    """Return whether the calf's own geometry reaches so much farther from the knee that another link is no foot."""
    knee = m.origin[i, 2]
    away = np.linalg.norm(m.data.xpos[last] - knee)
    way = (m.data.xpos[last] - knee) / away
    return any((_tip(m, g, way)[0] - knee) @ way > FARTHER * away for g in solids)


def _neutral(m: ModelFile, i: int, offset: np.ndarray, foot: np.ndarray, joint_range: np.ndarray) -> np.ndarray:
    """Return angles (3) at which leg i's foot, (3) in the calf's frame, stands below the thigh joint."""
    # lengths and bearings in the leg's plane; a bearing counts from up to forward, and a joint's angle adds to it
    thigh, calf = (math.hypot(x, z) for x, _, z in (offset[2], foot))
    if min(thigh, calf) < SETTLED:
        raise m.fail(
            m.label("body", m.bodies[i, 1]), f"a thigh and a calf of some length, got {thigh:g} m and {calf:g} m"
        )
    straight = math.atan2(offset[2, 0], offset[2, 2]) - math.atan2(foot[0], foot[2])
    # reach^2 = thigh^2 + calf^2 + 2 thigh calf cos(bend)
    bend = math.acos(np.clip(((REACH * (thigh + calf)) ** 2 - thigh**2 - calf**2) / (2 * thigh * calf), -1, 1))

    def turned(angle: float, j: int) -> float:
        """Return an angle with the whole turns that bring it closest to the middle of joint j's range."""
        return angle + 2 * math.pi * round((joint_range[j].mean() - angle) / (2 * math.pi))

    ways = [turned(straight - bend, 2), turned(straight + bend, 2)]  # knee backwards, forwards
    knee = min(ways, key=lambda angle: abs(angle - np.clip(angle, *joint_range[2])))
    knee = float(np.clip(knee, *joint_range[2]))
    x, _, z = offset[2] + _rotation("y", knee) @ foot
    return np.array([np.clip(0.0, *joint_range[0]), turned(math.pi - math.atan2(x, z), 1), knee])


def _trunk(m: ModelFile) -> tuple[np.ndarray, np.ndarray]:
    """Return the half extents (3) and the middle (3) of the trunk's box, base frame [m]."""
    solids = _solids(m, m.base)
    if not solids:
        x, y, _ = np.abs(m.origin[:, 0]).max(axis=0)
        return np.array([x, y, y]), np.zeros(3)
    sides = np.concatenate([np.eye(3), -np.eye(3)])
    reach = np.array([max(_tip(m, g, side)[0] @ side for g in solids) for side in sides])
    m.check_finite("body", m.base, reach)
    return (reach[:3] + reach[3:]) / 2, (reach[:3] - reach[3:]) / 2


def _solids(m: ModelFile, body: int) -> list[int]:
    """Return the geoms fixed to a body that collide and whose shape is known."""
    model = m.model
    t = m.mj.mjtGeom
    known = np.isin(
        model.geom_type, [int(kind) for kind in (t.mjGEOM_SPHERE, t.mjGEOM_CAPSULE, t.mjGEOM_CYLINDER, t.mjGEOM_BOX)]
    )
    paired = np.array([model.geom(g).name in m.paired for g in range(model.ngeom)], bool)
    collides = (model.geom_contype != 0) | (model.geom_conaffinity != 0) | paired
    return np.flatnonzero((model.body_weldid[model.geom_bodyid] == body) & known & collides).tolist()


def _tip(m: ModelFile, g: int, way: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the point of a geom farthest in a direction, (3) both in the base frame, and its radius there [m]."""
    t = m.mj.mjtGeom
    kind = m.model.geom_type[g]
    size = m.model.geom_size[g]
    R_BG = m.data.geom_xmat[g].reshape(3, 3)
    d = R_BG.T @ way
    d[np.abs(d) < LEVEL] = 0.0  # of what is equally far, the middle: a lying cylinder, a level box
    if kind == t.mjGEOM_BOX:
        tip = np.sign(d) * size
        radius = size.min()
    else:
        radius = size[0]
        side = d[:2] / (math.hypot(*d[:2]) or 1.0) if kind == t.mjGEOM_CYLINDER else d[:2]
        along = 0.0 if kind == t.mjGEOM_SPHERE else np.sign(d[2]) * size[1]
        tip = np.array([*(radius * side), along + (0.0 if kind == t.mjGEOM_CYLINDER else radius * d[2])])
    return m.data.geom_xpos[g] + R_BG @ tip, float(radius)
