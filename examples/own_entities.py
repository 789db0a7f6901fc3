"""Follow the names of your own products from agent to agent: an entity extractor, unpackaged."""

import re

from llmops_core import Registry, Span, hookimpl
from llmops_core.analysis.multi_agent import MultiAgent


class Products:
    """Finds what is in a list: here three names, in yours those of your database."""

    def __init__(self, names: list[str]) -> None:
        self._pattern = re.compile("|".join(map(re.escape, names)), re.IGNORECASE)

    def extract(self, text: str) -> list[tuple[str, int, int]]:
        """Return type, start and end of each product in a text."""
        return [("product", *match.span()) for match in self._pattern.finditer(text)]


class Plugin:
    """What a package would register, to be named as `llmops analyze drift --extractor products`."""

    name = "products"

    @hookimpl
    def llmops_register(self, registry: Registry) -> None:
        """Register the extractor; the text after the colon names the list."""
        registry.entity_extractor("products", lambda names: Products(names.split(",")))


def main() -> None:
    """Analyse two agents, of which the second did not hear of the kettle."""
    start, trace = 1_767_225_600_000_000, {"trace_id": "0" * 31 + "1", "outcome": "ok"}
    spans = [
        Span(
            span_id=str(at), kind="agent", name=name, agent=name, input=given,
            start_time=start + at * 1000, end_time=start + at * 1000 + 900, **trace,
        )
        for at, (name, given) in enumerate(
            [
                ("triage", "the blue kettle and the garden hose are broken"),
                ("repairs", "a garden hose is broken"),
            ]
        )
    ]  # fmt: skip
    products = Products(["blue kettle", "garden hose"])
    for extractors in ([], [products]):
        found = MultiAgent(extractors=extractors).add_spans(spans)
        for row in found.drift:
            lost = [f"{item.type} {item.value}" for item in row.lost]
            print(f"{row.source} → {row.target}: {row.n} entities, lost: {lost}")


if __name__ == "__main__":
    main()
