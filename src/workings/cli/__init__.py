"""Arguments in, calls out: one function a verb. Only what a verb needs is imported, and only when it runs.

To add one: write a function in the module of its subject (positional parameters before `/`, options after `*`, each
`Annotated[type, "help"]`), import inside its body, return an exit code or nothing, and name it in VERBS; GROUPS describes
the words of a group. The function's docstring is its help.
"""

from __future__ import annotations

import sys

from workings import __version__
from workings.cli import corpus, evaluate, exchange, facts, pretrain, runs, thoughts, tokenizer
from workings.cli import program as commands

VERBS: dict[str, commands.Verb] = {
    "demo": runs.demo,
    "list": runs.list_all,
    "run": runs.run,
    "show": runs.show,
    "compare": runs.compare,
    "report": runs.report,
    "verify": runs.verify,
    "codi train": thoughts.codi_train,
    "codi import": thoughts.codi_import,
    "codi answer": thoughts.codi_answer,
    "thoughts collect": thoughts.thoughts_collect,
    "lens fit": thoughts.lens_fit,
    "lens score": thoughts.lens_score,
    "facts table": facts.table,
    "facts rewrite": facts.rewrite,
    "facts expand": facts.expand,
    "tokenizer build": tokenizer.build,
    "tokenizer show": tokenizer.show,
    "tokenizer train": tokenizer.train,
    "corpus build": corpus.corpus_build,
    "corpus show": corpus.corpus_show,
    "pretrain": pretrain.pretrain,
    "export": exchange.export,
    "import-gpt2": exchange.import_gpt2,
    "pull": exchange.pull,
    "eval": evaluate.evaluate,
}

GROUPS = {
    "": "Find out where a small language model keeps its arithmetic, and whether the finding is one.",
    "codi": "models that think in continuous vectors: train, import, answer",
    "thoughts": "hidden states of thoughts: collect",
    "facts": "6*9=54 as <MUL_6_9_54>: table, rewrite, expand",
    "tokenizer": "vocabularies with and without facts: build, show, train a BPE",
    "corpus": "documents as shards of token ids: build, show",
    "lens": "lenses on stored thoughts: fit, score",
}


def main(words: list[str] | None = None) -> int:
    """The program `workings`; the exit code."""
    return commands.execute("workings", __version__, VERBS, GROUPS, sys.argv[1:] if words is None else words)
