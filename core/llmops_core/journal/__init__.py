"""Finished spans on disk before any plugin sees them, and what is done with a dead writer's."""
