"""The decorator for plain functions: what it records of a call, on the caller's thread."""
