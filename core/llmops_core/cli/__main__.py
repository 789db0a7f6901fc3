"""``python -m llmops_core.cli``: the same as ``llmops``, where scripts are not on the path."""

from llmops_core.cli import main

if __name__ == "__main__":
    main()
