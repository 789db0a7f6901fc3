"""Run the analyses over a labelled data set, and say how long each item takes.

    python benchmarks/analytics.py --data DIR --out DIR

For each part that is there (``drift``, ``handoff``) it reads ``PART.inputs.jsonl`` and writes
``PART.predictions.jsonl``. Where ``PART.gold.jsonl`` and ``score.py`` lie beside the inputs too, it
prints the scores, of the whole and of five folds: the cases of one template are in one fold, so a
rule that only knows one template shows as a fold that falls off.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from llmops_core.analysis.content import readable
from llmops_core.analysis.handoffs import handoffs_of, loops_of
from llmops_core.analysis.importers import events_from_records
from llmops_core.analysis.names import Aliases
from llmops_core.analysis.repair import repair
from llmops_core.analysis.texts import compare

FOLDS = 5


def drift(case: dict[str, Any]) -> dict[str, Any]:
    """Predict the drift of one pair of texts."""
    found = compare(readable(case["input"]), readable(case["output"]))
    issues = [("binding_swap", found.swaps), ("negation_flip", found.flips)]
    return {
        "id": case["id"],
        "lost": found.values("lost"),
        "altered": [[f.value, f.becomes] for f in found.fates if f.status == "altered"],
        "preserved": found.values("kept") + found.values("reformatted"),
        "added": found.values("added"),
        "drift": found.drift or 0.0,
        "high_drift": found.has_high_drift,
        "issues": [name for name, values in issues if values],
    }


def handoff(case: dict[str, Any]) -> dict[str, Any]:
    """Predict the handoffs, loops and agents of one log."""
    aliases = Aliases()
    partitions = repair(events_from_records(case["events"]), aliases)
    found = [(p, handoffs_of(p, aliases)) for p in partitions]
    return {
        "id": case["id"],
        "handoffs": [
            {
                "session": h.partition,
                "from": h.source,
                "to": h.target,
                "to_event": h.to_event,
                "status": h.status,
            }
            for _, handoffs in found
            for h in handoffs
        ],
        "loops": [
            {"session": loop.partition, "agents": list(loop.agents), "count": loop.turns}
            for _, handoffs in found
            for loop in loops_of(handoffs)
        ],
        "agents": sorted({aliases.shown(run.agent) for p, _ in found for run in p.runs}),
    }


PARTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"drift": drift, "handoff": handoff}


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)


def run(part: str, data: Path, out: Path) -> None:
    """Predict a part, write the predictions and print what it took."""
    cases = list(lines(data / f"{part}.inputs.jsonl"))
    PARTS[part](cases[0])  # imports and tables
    size = sum(len(json.dumps(case)) for case in cases)
    began = time.process_time()
    predictions = [PARTS[part](case) for case in cases]
    took = time.process_time() - began
    path = out / f"{part}.predictions.jsonl"
    path.write_text("".join(json.dumps(p) + "\n" for p in predictions), encoding="utf-8")
    print(
        f"{part}: {len(cases)} items, {took / len(cases) * 1e3:.2f} ms CPU an item"
        f" ({size / len(cases) / 1000:.1f} kB of JSON), {path}"
    )
    gold, scorer = data / f"{part}.gold.jsonl", data / "score.py"
    if gold.exists() and scorer.exists():
        report(part, {c["id"]: c for c in cases}, gold, predictions, load(scorer))


def load(path: Path) -> ModuleType:
    """Import the scorer from where it lies."""
    spec = importlib.util.spec_from_file_location("score", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def report(
    part: str,
    cases: dict[str, Any],
    gold: Path,
    predictions: list[dict[str, Any]],
    scorer: ModuleType,
) -> None:
    """Print the scores of the whole, and of each fold of templates."""
    answers = {g["id"]: g for g in lines(gold)}
    predicted = {p["id"]: p for p in predictions}
    score = getattr(scorer, part)
    folds: list[dict[str, Any]] = [{} for _ in range(FOLDS)]
    templates: dict[str, int] = {}
    for name, answer in answers.items():
        key = template(cases[name], answer)
        fold = templates.setdefault(key, int(hashlib.sha256(key.encode()).hexdigest(), 16) % FOLDS)
        folds[fold][name] = answer
    columns = [flat(score(answers, predicted))]
    columns += [flat(score(fold, predicted)) for fold in folds if fold]
    print(f"  {len(templates)} templates; the whole, then the folds")
    for name, value in columns[0].items():
        others = " ".join(f"{column.get(name, float('nan')):8.3f}" for column in columns[1:])
        print(f"  {name:42}{value:8.3f} |{others}")


def template(case: dict[str, Any], answer: dict[str, Any]) -> str:
    """Return what cases of one template share: their kind, or their text without its values."""
    if "mode" not in answer:
        return str(answer["kind"])
    source = answer["source"].split("-")[0]
    if answer["mode"] != "trap":
        return f"{source} {answer['mode']} {answer['profile']}"
    plain = re.sub(r"\S*[\d@_#]\S*|\b[A-Z]\w+", "", case["output"])
    return "trap " + " ".join(plain.split())


def flat(scores: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the figures of a report, F1 of what has one."""
    found: dict[str, float] = {}
    for name, value in scores.items():
        if isinstance(value, dict) and "F1" in value:
            if value["tp"] + value["fn"]:
                found[prefix + name] = value["F1"]
        elif isinstance(value, dict):
            if not name.startswith("by_") and not name.endswith("by_kind"):
                found |= flat(value, f"{prefix}{name} ")
        elif isinstance(value, int | float):
            found[prefix + name] = value
    return found


def main() -> None:
    """Predict every part that is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with PART.inputs.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="folder for the predictions")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    present = [part for part in PARTS if (arguments.data / f"{part}.inputs.jsonl").exists()]
    if not present:
        parser.error(f"{arguments.data} has no PART.inputs.jsonl for any of {', '.join(PARTS)}")
    for part in present:
        run(part, arguments.data, arguments.out)


if __name__ == "__main__":
    main()
