"""Measuring what a span read and wrote: text, tokens, images. Runs where the collectors run."""
