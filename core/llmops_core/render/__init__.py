"""Spans drawn for people: a trace as a tree with a waterfall, as text."""
