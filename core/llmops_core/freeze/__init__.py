"""The bounded copy made on the host's thread: whatever it is handed, in microseconds, calling nothing."""
