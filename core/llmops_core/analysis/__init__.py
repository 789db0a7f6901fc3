"""Analysis of stored spans: pure functions, spans in and rows out, whichever storage they are from."""
