"""The reference library of the course: one module per level, each built on ``attention.attend``."""
