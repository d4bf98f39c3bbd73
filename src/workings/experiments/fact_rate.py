"""How often must a fact token have been seen before it helps, if it ever does?

Option B1 of seed 003: `digits` and `facts` at four shares of facts among the training tokens, reached with drills spread through
the training text; 1 % is about 950 times what the seeds' corpus held. Both vocabularies read the same raw documents at each rate,
so facts − digits is a paired difference there; between rates the text itself differs, and nothing is compared.

Prediction (2026-11-21, before any run): at 0.001 % and 0.1 % neither arm answers more probes than chance; where drills are frequent
enough that the digits learn the table at all, tokens help; no rate is found at which tokens know a product and digits do not.
Matched, measured and stopped as in `fact-tokens`.
"""

from __future__ import annotations

from dataclasses import replace

from workings.arithmetic.drills import DrillSpec
from workings.experiments import fact_tokens
from workings.experiments.fact_tokens import Config, Text, follow, inputs, run_arm

__all__ = ["ARMS", "RATES", "SCALES", "Config", "follow", "inputs", "run_arm"]

RATES = {"0.001%": 0.00001, "0.1%": 0.001, "1%": 0.01, "2%": 0.02}
"""Facts over training tokens, in the arm that has facts."""
# At the lowest rate one document of 12 facts would hold more than all of a small corpus may.
SPARSE = Text(drills=DrillSpec(facts_per_document=4.0))
ARMS = {
    f"{vocabulary}-{name}": replace(
        Config(), vocabulary=vocabulary, fact_rate=rate, text=SPARSE if rate < 1e-4 else Text()
    )
    for name, rate in RATES.items()
    for vocabulary in ("digits", "facts")
}
# The least text in which the lowest rate is one document of drills.
SCALES = fact_tokens.SCALES | {"smoke": fact_tokens.SCALES["smoke"] | {"text": {"bytes_limit": 1_200_000}}}
