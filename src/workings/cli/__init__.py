"""The program `workings`: its verbs by name, place and one-line summary. The module of a verb is imported when the verb is called.

To add one: write a frozen dataclass that derives from `options.Command` in the module of its subject, and name it here.
"""

from __future__ import annotations

import sys

from workings import __version__
from workings.cli.program import Program, Verb

VERBS = {
    "demo": Verb("runs:Demo", "Read the thoughts of the bundled model, and judge the reading."),
    "list": Verb("runs:ListAll", "List the experiments, each with its question, and the runs so far."),
    "run": Verb("runs:RunExperiment", "Run an experiment's arms, one run for each arm and seed."),
    "new": Verb("runs:New", "Write a small experiment that runs at once, to start yours from."),
    "show": Verb("runs:Show", "Show what a run was and what came out of it."),
    "compare": Verb("runs:Compare", "Compare finished runs of one experiment, paired by example."),
    "report": Verb(
        "runs:Report", "Write the report on finished runs of one experiment again, pooled over their training seeds."
    ),
    "verify": Verb("verify:Verify", "Check that every file of an artifact is as it was written."),
    "codi train": Verb("thoughts:CodiTrain", "Train a language model to think in continuous vectors."),
    "codi import": Verb("thoughts:CodiImport", "Turn a released CODI checkpoint into a folder of ours."),
    "codi export": Verb("thoughts:CodiExport", "Write a checkpoint's weights in the layout of the released ones."),
    "codi answer": Verb("thoughts:CodiAnswer", "Answer questions by thinking, or in words; one line each."),
    "thoughts collect": Verb("thoughts:Collect", "Think about problems and store every hidden state."),
    "thoughts import": Verb("thoughts:Import", "Turn activation files of the lens notes into a store."),
    "lens fit": Verb("thoughts:LensFit", "Fit a lens on a store's training problems."),
    "lens score": Verb("thoughts:LensScore", "Score a lens on a store's test problems, beside controls."),
    "lens export": Verb("thoughts:LensExport", "Write a tuned lens as the tuned-lens library saves one."),
    "lens import": Verb("thoughts:LensImport", "Turn a lens of the tuned-lens library into one of ours."),
    "judge": Verb("judge:Judge", "Say what stored thoughts hold about the results of steps."),
    "rejudge": Verb("rejudge:Rejudge", "Say what a published table shows, by its numbers alone."),
    "facts table": Verb("facts:FactsTable", "List the facts of a vocabulary with their token ids."),
    "facts rewrite": Verb("facts:FactsRewrite", "Write equations as fact tokens."),
    "facts expand": Verb("facts:FactsExpand", "Write fact tokens as equations: `$<MUL_6_9_54>` is `6*9=$54`."),
    "tokenizer build": Verb("corpora:TokenizerBuild", "Build a tokenizer with fact tokens."),
    "tokenizer show": Verb("corpora:TokenizerShow", "Rewrite a text as a vocabulary would, and print its tokens."),
    "tokenizer train": Verb("corpora:TokenizerTrain", "Train a byte-level BPE on documents."),
    "corpus build": Verb("corpora:CorpusBuild", "Turn documents into shards of token ids."),
    "corpus show": Verb("corpora:CorpusShow", "Show what a corpus is made of, by split and source."),
    "pretrain": Verb("language:Pretrain", "Train a GPT-2 on a corpus."),
    "export": Verb("language:Export", "Write a checkpoint as a folder that Hugging Face loads."),
    "import-gpt2": Verb("language:ImportGPT2", "Turn a GPT-2 from elsewhere into a checkpoint of ours."),
    "pull": Verb("language:Pull", "Download a repository of the hub into a folder."),
    "eval": Verb("language:Evaluate", "Evaluate a model, or all checkpoints of trainings, item by item."),
}

GROUPS = {
    "": "Find out where a small language model keeps its arithmetic, and whether the finding is one.",
    "codi": "models that think in continuous vectors: train, import, export, answer",
    "thoughts": "hidden states of thoughts: collect, import",
    "lens": "lenses on stored thoughts: fit, score, and to and from the tuned-lens library: export, import",
    "facts": "6*9=54 as <MUL_6_9_54>: table, rewrite, expand",
    "tokenizer": "vocabularies with and without facts: build, show, train a BPE",
    "corpus": "documents as shards of token ids: build, show",
}


def main(words: list[str] | None = None) -> int:
    """Carry out a command line (by default this process's own); the exit code."""
    return Program("workings", __version__, VERBS, GROUPS).execute(sys.argv[1:] if words is None else words)
