"""Learning: rollouts, PPO, the world model's training, evaluation, checkpoints and logs."""
