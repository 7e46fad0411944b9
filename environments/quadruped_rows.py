"""Names of the numbers that the quadruped's tasks keep, compute, observe and are set by."""

# Rows that the task keeps of a robot, after the state's
AGE = 0  # control steps since the start of the episode
ACTION = 1  # (12)
LAST_ACTION, OLDER_ACTION = 13, 25  # (12) the one before it, and the one before that
GOAL = 37  # (3) where the centre of mass should be, x and y from ORIGIN, z above the ground [m]
COM = 40  # (3) centre of mass, as GOAL [m]
COMMAND = 43  # (3) desired forward and sideways velocity, heading frame [m/s], and yaw rate [rad/s]
PUSH_IN, GOAL_IN, COMMAND_IN = 46, 47, 48  # time to the next push, goal and command [s]
PUSH = 49  # (3) velocity of the latest push, world frame [m/s]
PUSH_AGE = 52  # time since then [s]
GOALS = 53  # goals reached in this episode
ARRIVED = 54  # 1 if one was reached at this instant
RETURN = 55  # sum of rewards of this episode
SPAWN = 56  # (2) x, y in the world where episodes start [m]
NOISE_BIAS = 58  # (6) of this episode, on the observed angular velocity [rad/s] and direction of gravity
AIR_TIME = 64  # (4) how long each foot has been in the air, 0 on the ground [s]
LANDED = 68  # (4) how long each foot that touched down at this instant was, else 0 [s]
NEXT_PUSH = 72  # (6) velocity, world frame [m/s], and spin, base frame [rad/s], that the next push will add
HEADING = 78  # (2) where the robot should face at its goal, a horizontal unit vector, world frame
HEADING_ERROR = 80  # angle from the heading to that [rad]
AT_GOAL, MET = 81, 82  # 1 while near the goal and facing as it should; 1 once that was so
TERMS = 83  # latest reward, term by term, weighted, in the order of config.RewardCfg.weights
NUM_TERMS = 22
TASK_ROWS = TERMS + NUM_TERMS

# Columns of an observation
OBS_JOINT, OBS_SPEED, OBS_CONTACT, OBS_GRAVITY, OBS_SPIN, OBS_GOAL = 0, 12, 24, 28, 31, 34
NUM_OBS = 37
SPEED_SCALE = 0.05  # of joint velocities
SPIN_SCALE = 0.25  # of angular velocity
GOAL_SCALE = 5.0  # of a goal that is near
GOAL_SPAN = 1.5  # how a far goal's largest horizontal distance appears
COMMAND_SCALE, TURN_SCALE = 2.0, 1.0  # of a commanded velocity and yaw rate
CONTACT_THRESHOLD = 1.0  # [N]

# Columns of a privileged observation
PRIV_VELOCITY, PRIV_HEIGHT, PRIV_ACTION = 0, 3, 4
PRIV_FRICTION, PRIV_TRUNK_MASS = 16, 17
PRIV_FOOT_HEIGHT, PRIV_AIR_TIME, PRIV_FORCE = 18, 22, 26  # (4) each
PRIV_PUSH, PRIV_KICK, PRIV_PUSH_IN = 30, 33, 36
NUM_PRIVILEGED = 37
HEIGHT_SCALE = 10.0  # of base and feet

# Rows of the work buffer, after the physics'
OUT = 0  # observation and privileged observation, to be transposed
FEET = OUT + NUM_OBS + NUM_PRIVILEGED  # (2) middle of the feet, from the base origin [m]
LOWEST = FEET + 2  # lowest point of the feet above the ground [m]
FOOT_HEIGHT = LOWEST + 1  # (4) of each foot's lowest point above the ground [m]
ON_GROUND = FOOT_HEIGHT + 4  # (4) 1 where a foot is in contact
SUMS = ON_GROUND + 4  # over the joints: torque^2, joint speed^2, pose error^2, and how far they are near the ends of their ranges^2
FOOT_SUMS = SUMS + 4  # share of feet in contact, slip^2
ACTION_SUMS = FOOT_SUMS + 2  # first and second difference of actions^2
FIRST = ACTION_SUMS + 2  # (3) first moment of mass, base frame [kg m]
GROUND = FIRST + 3  # height of the ground below the base [m]
PER_WEIGHT = GROUND + 1  # one over the robot's weight [1/N]
TOTAL = PER_WEIGHT + 1  # reward of this step
ENDED = TOTAL + 1  # 1 where the episode ended by a fall, 2 by time
TASK_WORK_ROWS = ENDED + 1

# Constants of the task: quadruped.task_constants()
CONTROL_DT, EPISODE_STEPS, ACTION_SCALE, TORQUE_SCALE, HOLD_SHARE = 0, 1, 2, 3, 4
COS_FALL_TILT, FALL_HEIGHT = 5, 6
RESET_JOINT, RESET_SPEED, RESET_TILT, RESET_VELOCITY, RESET_SPIN = 7, 8, 9, 10, 11
PUSH_SPEED, PUSH_SPIN, PUSH_INTERVAL = 12, 14, 15
GOAL_DISTANCE, GOAL_HEIGHT, GOAL_INTERVAL = 17, 19, 20
GOAL_REACH, GOAL_REACHED = 22, 23  # shown at most; counts as reached below [m]
GOAL_LOW, GOAL_HIGH = 24, 26  # (2) x, y in the world that goals stay between [m]
COMMAND_FORWARD, COMMAND_SIDEWAYS, COMMAND_TURN, COMMAND_INTERVAL = 28, 30, 32, 34  # lowest, highest
COMMAND_STANDING, COMMAND_TURNING, COMMAND_LEAST = 36, 37, 38
PURSUIT, CRUISE, GAIN = 39, 40, 41  # 1 if commands lead to the goal, facing it, 2 if to stand there facing as asked; how
SENSE_GOAL, SENSE_COMMAND = 42, 44  # scale in the observation: of the goal's offset, horizontal, vertical; of the command's velocity, yaw rate
SENSE_HEADING = 46  # the same of the heading error
GOAL_FACING, STILL_HEADING = 47, 48  # heading error that counts as none at the goal; below which no turn is asked for [rad]
PUSH_LEVEL, COMMAND_LEVEL = 49, 50  # times the strength of pushes and of commands
SHARP, WIDE = 51, 52  # shape of tracking
WEIGHTS = 53
TASK_CONSTANTS = WEIGHTS + NUM_TERMS

# Noise of the observation, uniform +-: the fields of config.NoiseCfg
NOISE_JOINT, NOISE_SPEED, NOISE_SPIN, NOISE_GRAVITY = 0, 1, 2, 3  # [rad], [rad/s], [rad/s], [1]
NOISE_SPIN_BIAS, NOISE_GRAVITY_BIAS = 4, 5  # [rad/s], [1]
NOISE_CONSTANTS = 6

# Draws of a robot's key, one range per purpose; physics/vary.py draws from 256 on
DRAW_PUSH, DRAW_GOAL, DRAW_RESET, DRAW_AGE, DRAW_BIAS, DRAW_NOISE, DRAW_COMMAND = 0, 16, 32, 96, 112, 128, 160
