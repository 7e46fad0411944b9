"""What a robot sees of the ground: heights on a grid about it, and about its feet, which only the critic may know.

Heights are those of the terrain's nearest nodes: a lookup each. Points are looked up a robot at a time, all else is a
loop over lanes.
"""

import numpy as np

from config import ScanCfg
from environments.contracts import Mirror
from environments.quadruped.fields import G, M, S
from environments.quadruped.terms import observation, randomisation
from physics import constants as C
from physics import layout as L
from physics import terrain as T
from physics.contact import per_metre
from physics.jit import LANES, inline, real, stage
from physics.layout import load3
from physics.random import robot_key, uniform

SCAN_SCALE = 5.0  # of heights in the observation
FARTHEST = 1.0  # height above or below the feet that is told from a greater one [m]
ROUND_FEET = 0.1  # how far from a foot its own points are [m]
MOST_NODES = 1 << 24  # of a terrain that is scanned: up to here float32 counts exactly
DRAW_SCAN = 512  # first draw of a robot's key that a scan takes

# Rows of the work buffer that are free between measuring and observing
AT = L.PATCH  # (2) where the base is among the terrain's nodes [cells]
HEADING = L.PATCH + 2  # (2) cosine and sine, times cells per metre
NODE = L.PATCH + 4  # number of a node, exact up to MOST_NODES; then its height [m]
BELOW = L.PATCH + 5  # what is added to heights [m]
DUE = L.KNEE_PATCH  # 1 for a robot that looks now, 2 for one whose episode begins
KEY = L.KNEE_PATCH + 1  # its key, a whole number


def places(cfg: ScanCfg, larger: float) -> np.ndarray:
    """Return where a scan's points are, (points, 2) forward and to the left of the base [m], float32.

    They go from right to left, row by row from behind to before. larger: the robot's height over a Go1's.
    """
    x, y = ((np.arange(n) - (n - 1) / 2) * cfg.spacing * larger for n in (cfg.length, cfg.width))
    return np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2).astype(np.float32)


@observation(columns=1, scale=SCAN_SCALE, mirror="points", node="ground")
def height_scan(scanned):
    """Ground above where it is under a robot that stands, at each point of a grid [m]."""
    return scanned


@observation(
    columns=16,
    scale=SCAN_SCALE,
    mirror=Mirror(tuple(4 * leg + k for leg in (1, 0, 3, 2) for k in (0, 1, 3, 2)), (1.0,) * 16),
)
def foot_scans(foot_ground):
    """Ground before, behind, left and right of each foot, above its centre [m]."""
    return foot_ground


@randomisation(sets=("scan_hold", "scan_shift"))
def scan_errors(key, scan_delay, scan_drift):
    """How old what a robot sees may get, and by how much it is off, of an episode."""
    d = scan_drift
    return uniform(key, 0, 0.0, scan_delay), (uniform(key, 1, -d, d), uniform(key, 2, -d, d), uniform(key, 3, -d, d))


@inline
def find_heading(work, terrain, cells, lane):
    """Set HEADING, and AT to where the base is among the nodes, half a cell on, so that floor() finds the nearest."""
    x, y = work[L.ROTATION * LANES + lane], work[(L.ROTATION + 3) * LANES + lane]
    h = cells / np.sqrt(x * x + y * y + real(1e-12))
    work[HEADING * LANES + lane], work[(HEADING + 1) * LANES + lane] = h * x, h * y
    if terrain is not None:
        whole = terrain[1][0]
        first = real(whole[T.FIRST_X]), real(whole[T.FIRST_Y])
        for axis in range(2):
            at, origin = work[(L.POSITION + axis) * LANES + lane], work[(L.ORIGIN + axis) * LANES + lane]
            work[(AT + axis) * LANES + lane] = cells * at + (cells * origin - first[axis] + real(0.5))


@inline
def heading_offset(work, lane, ahead, aside):
    """Return a horizontal offset of the heading frame [m] in the world's (2) [cells]."""
    c, s = work[HEADING * LANES + lane], work[(HEADING + 1) * LANES + lane]
    return c * ahead - s * aside, s * ahead + c * aside


@inline
def find_node(terrain, work, lane, offset):
    """Set NODE to the number of the node that is nearest to a place; offset: (2) from AT, world frame [cells]."""
    if terrain is not None:
        whole = terrain[1][0]
        i, j = work[AT * LANES + lane] + offset[0], work[(AT + 1) * LANES + lane] + offset[1]
        # in this order what is not a number becomes 0, and no node lies outside the field
        column = min(max(real(0.0), np.floor(i)), real(whole[T.NX] - 1))
        row = min(max(real(0.0), np.floor(j)), real(whole[T.NY] - 1))
        work[NODE * LANES + lane] = row * real(whole[T.NX]) + column


@inline
def look_up_node(terrain, work):
    """Replace the numbers of nodes by their heights."""
    rows = work[NODE * LANES : (NODE + 1) * LANES]
    if terrain is None:
        for lane in range(LANES):
            rows[lane] = real(0.0)
    else:
        heights = terrain[0]
        for lane in range(LANES):
            rows[lane] = heights[np.uint32(np.int32(rows[lane]))]


@inline
def within_reach(height):
    """Return a height that is told, at most FARTHEST [m]; that of what is not a number is some, too."""
    return min(max(real(-FARTHEST), height), real(FARTHEST))


@stage
def scan(task, work, extra, settings, model, points, at_scan, seed, clock, number, ended_only):
    """Look at the ground: at all points of the robots whose time it is, or of those alone whose episode ended.

    points: places(); at_scan: first row of fields.SCANNED among the task's.
    """
    terrain, cells, home = model.terrain, per_metre(model.terrain), model.base[C.HOME_HEIGHT]
    noise, dropped = settings[S.scan_noise], settings[S.scan_dropped]
    count = len(points)
    seen = task[at_scan * LANES : (at_scan + count) * LANES]
    rows = task[(at_scan + count) * LANES :]
    keys = work[KEY * LANES : (KEY + 1) * LANES].view(np.uint32)
    zero = real(0.0)
    due = zero
    for lane in range(LANES):
        i = G.scan_age * LANES + lane
        begins = extra[M.ended * LANES + lane] > zero
        older = rows[i] + settings[S.ctrl_dt]
        now = begins if ended_only == 1 else older > rows[G.scan_hold * LANES + lane]
        rows[i] = zero if now else rows[i] if ended_only == 1 else older
        mark = real(2.0) if begins else real(1.0)
        work[DUE * LANES + lane] = mark if now else zero
        due += mark if now else zero
        keys[lane] = robot_key(seed, clock, number + lane)
        find_heading(work, terrain, cells, lane)
        x, y, z = load3(rows, G.scan_shift, lane)
        x, y = heading_offset(work, lane, x, y)
        work[AT * LANES + lane] += x
        work[(AT + 1) * LANES + lane] += y
        work[BELOW * LANES + lane] = home - work[(L.POSITION + 2) * LANES + lane] + z
    if due == zero:
        return
    exact = noise == zero and dropped == zero
    for p in range(count):
        ahead, aside = points[p, 0], points[p, 1]
        for lane in range(LANES):
            find_node(terrain, work, lane, heading_offset(work, lane, ahead, aside))
        look_up_node(terrain, work)
        row = seen[p * LANES : (p + 1) * LANES]
        if exact:
            for lane in range(LANES):
                height = within_reach(work[NODE * LANES + lane] + work[BELOW * LANES + lane])
                row[lane] = height if work[DUE * LANES + lane] > zero else row[lane]
        else:
            for lane in range(LANES):
                bits = bits_of_point(keys[lane], p)
                error = noise * (real(np.int32(bits & np.uint32(1023))) * real(2.0 / 1023.0) - real(1.0))
                chance = real(np.int32(bits >> np.uint32(10))) * real(2.0**-22)
                height = within_reach(work[NODE * LANES + lane] + work[BELOW * LANES + lane] + error)
                mark = work[DUE * LANES + lane]
                row[lane] = height if (mark > real(1.5)) | ((mark > zero) & (chance >= dropped)) else row[lane]


@inline
def bits_of_point(key, point):
    """Return 32 random bits of a robot's point: one round of the hash on top of what made its key."""
    x = np.uint32(key + np.uint32(np.uint32(DRAW_SCAN + point) * np.uint32(0x9E3779B9)))
    x = np.uint32(np.uint32(x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B))
    return np.uint32(x ^ (x >> np.uint32(16)))


@stage
def scan_feet(task, work, extra, model, at_scan):
    """Look at the ground about the feet, just as it is."""
    terrain, cells = model.terrain, per_metre(model.terrain)
    for lane in range(LANES):
        find_heading(work, terrain, cells, lane)
    for leg in range(4):
        foot = extra[(M.foot_offset + 3 * leg) * LANES :]
        for k in range(4):
            row = task[(at_scan + 4 * leg + k) * LANES :]
            ahead = real(ROUND_FEET) * (real(1.0) if k == 0 else real(-1.0) if k == 1 else real(0.0))
            aside = real(ROUND_FEET) * (real(1.0) if k == 2 else real(-1.0) if k == 3 else real(0.0))
            for lane in range(LANES):
                (x, y, _), (more_x, more_y) = load3(foot, 0, lane), heading_offset(work, lane, ahead, aside)
                find_node(terrain, work, lane, (cells * x + more_x, cells * y + more_y))
            look_up_node(terrain, work)
            for lane in range(LANES):
                z = work[(L.POSITION + 2) * LANES + lane] + foot[2 * LANES + lane]
                row[lane] = within_reach(work[NODE * LANES + lane] - z)
