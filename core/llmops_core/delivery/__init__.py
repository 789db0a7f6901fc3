"""From the journal to collectors, storage and exporters, each on a lane that may hang alone."""
