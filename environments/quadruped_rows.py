"""Names of the numbers that the quadruped's task keeps, computes, observes and is set by."""

# Rows that the task keeps of a robot, after the state's
AGE = 0  # control steps since the start of the episode
ACTION = 1  # (12)
LAST_ACTION = 13  # (12)
GOAL = 25  # (3) where the centre of mass should be, x and y from ORIGIN, z above the ground [m]
PUSH_IN, GOAL_IN = 28, 29  # time to the next push and goal [s]
PUSH = 30  # (3) velocity of the latest push, world frame [m/s]
PUSH_AGE = 33  # time since then [s]
RETURN = 34  # sum of rewards of this episode
COM = 35  # (3) centre of mass, as GOAL [m]
SPAWN = 38  # (2) x, y in the world where episodes start [m]
NOISE_BIAS = 40  # (6) of this episode, on the observed angular velocity [rad/s] and direction of gravity
TERMS = 46  # latest reward, term by term, weighted, in the order of config.RewardCfg
NUM_TERMS = 13
TASK_ROWS = TERMS + NUM_TERMS

# Rows of the work buffer, after the physics'
OUT = 0  # observation and privileged observation, to be transposed
NUM_OBS = 37
NUM_PRIVILEGED = 16
FEET = OUT + NUM_OBS + NUM_PRIVILEGED  # (2) middle of the feet, from the base origin [m]
LOWEST = FEET + 2  # lowest point of the feet above the ground [m]
SUMS = FEET + 3  # torque^2, joint speed^2, pose error^2, share of feet in contact, action rate^2
FIRST = SUMS + 5  # (3) first moment of mass, base frame [kg m]
GROUND = FIRST + 3  # height of the ground below the base [m]
ENDED = GROUND + 1  # 1 where the episode ended
TASK_WORK_ROWS = ENDED + 1

# Columns of an observation
OBS_JOINT, OBS_SPEED, OBS_CONTACT, OBS_GRAVITY, OBS_SPIN, OBS_GOAL = 0, 12, 24, 28, 31, 34
SPEED_SCALE = 0.05  # of joint velocities
SPIN_SCALE = 0.25  # of angular velocity
GOAL_SCALE = 5.0  # of the goal
CONTACT_THRESHOLD = 1.0  # [N]

# Constants of the task: quadruped.task_constants()
CONTROL_DT, EPISODE_STEPS, ACTION_SCALE, TORQUE_SCALE, HOLD_SHARE = 0, 1, 2, 3, 4
COS_FALL_TILT, FALL_HEIGHT = 5, 6
RESET_JOINT, RESET_SPEED, RESET_TILT, RESET_VELOCITY, RESET_SPIN = 7, 8, 9, 10, 11
PUSH_SPEED, PUSH_SPIN, PUSH_INTERVAL = 12, 14, 15
GOAL_RADIUS, GOAL_HEIGHT, GOAL_INTERVAL, GOAL_REACH = 17, 18, 19, 21
WEIGHTS = 22
TASK_CONSTANTS = WEIGHTS + NUM_TERMS

# Noise of the observation, uniform +-: quadruped.noise_constants()
NOISE_JOINT, NOISE_SPEED, NOISE_SPIN, NOISE_GRAVITY = 0, 1, 2, 3  # [rad], [rad/s], [rad/s], [1]
NOISE_SPIN_BIAS, NOISE_GRAVITY_BIAS = 4, 5  # [rad/s], [1]
NOISE_CONSTANTS = 6

# Draws of a robot's key, one range per purpose; physics/vary.py draws from 256 on
DRAW_PUSH, DRAW_GOAL, DRAW_RESET, DRAW_AGE, DRAW_BIAS, DRAW_NOISE = 0, 16, 32, 96, 112, 128
