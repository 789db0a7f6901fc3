"""The scanner: finds typed entities in texts, in linear time, and gives them canonical forms.

Drift compares what it finds, and a redactor replaces it: both read the same entities. It imports
nothing heavy; RE2 is imported by the first scan.
"""

from llmops_core.scanner.canonical import canonical, stem, words
from llmops_core.scanner.extract import TYPES, Entity, EntityExtractor, scan, scan_all
from llmops_core.scanner.skeleton import fold, normal, skeleton

__all__ = [
    "TYPES",
    "Entity",
    "EntityExtractor",
    "canonical",
    "fold",
    "normal",
    "scan",
    "scan_all",
    "skeleton",
    "stem",
    "words",
]
