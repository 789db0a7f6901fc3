"""From a handler's event to a journaled span: recorder, queue, tracer, finish, and the thread."""
