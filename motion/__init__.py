"""Reference motion: clips of it, what is fitted to them, and generators for many robots at once."""
