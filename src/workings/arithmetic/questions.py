"""How drills may ask, write their equations and stand on the page: data, so that a further wording is a further line.

Questions are keyed by fact family and stay plain digits. The first of each list is what probes ask; it is never held
out of training.
"""

from __future__ import annotations

from dataclasses import dataclass

from workings.arithmetic.families import FAMILIES

_MORE: dict[str, tuple[str, ...]] = {
    "MUL": (
        "What is {0} × {1}?",
        "Multiply {0} by {1}.",
        "What is the product of {0} and {1}?",
        "How much is {0} times {1}?",
        "Work out {0} multiplied by {1}.",
        "Find the product of {0} and {1}.",
        "Which number is {0} times {1}?",
    ),
    "ADD": (
        "Add {0} and {1}.",
        "What is the sum of {0} and {1}?",
        "How much is {0} plus {1}?",
        "What do {0} and {1} make together?",
        "Find the sum of {0} and {1}.",
    ),
    "SUB": (
        "Subtract {1} from {0}.",
        "What is the difference between {0} and {1}?",
        "How much is {0} minus {1}?",
        "Take {1} away from {0}. What is left?",
        "How much more is {0} than {1}?",
    ),
    "DIV": ("Divide {0} by {1}.", "How often does {1} go into {0}?", "How much is {0} divided by {1}?"),
    "SQUARE": ("What is the square of {0}?", "Square the number {0}."),
}

QUESTIONS: dict[str, tuple[str, ...]] = {
    name: (*family.questions, *_MORE.get(name, ())) for name, family in FAMILIES.items()
}
"""Family → wordings, {0} and {1} being its operands; a new family brings its own."""

Style = dict[str, str]
"""Mark → a statement of left operand, right operand, result. Only what the rewriting recognises as an equation."""

STYLES: tuple[Style, ...] = (
    {"*": "%d*%d=%d", "+": "%d+%d=%d", "-": "%d-%d=%d", "/": "%d/%d=%d", "^": "%d^%d=%d"},
    {"*": "%d * %d = %d", "+": "%d + %d = %d", "-": "%d - %d = %d", "/": "%d / %d = %d", "^": "%d^%d = %d"},
    {"*": "%d×%d=%d", "+": "%d+%d=%d", "-": "%d-%d=%d", "/": "%d÷%d=%d", "^": "%d^%d=%d"},
    {"*": "%d × %d = %d", "+": "%d + %d = %d", "-": "%d - %d = %d", "/": "%d ÷ %d = %d", "^": "%d^%d = %d"},
    {
        "*": "%d times %d equals %d",
        "+": "%d plus %d equals %d",
        "-": "%d minus %d equals %d",
        "/": "%d divided by %d equals %d",
        "^": "%d^%d equals %d",
    },
)


@dataclass(frozen=True)
class Layout:
    """A problem on the page: {question}, {chain}, {answer}; `between` stands between the equations of its chain."""

    page: str
    between: str = ", "

    @property
    def shows_work(self) -> bool:
        """Whether the chain stands on the page at all."""
        return "{chain}" in self.page

    def written(self, question: str, chain: str, answer: int) -> str:
        return self.page.format(question=question, chain=chain, answer=answer)


LAYOUTS = (
    Layout("{question}\n{chain}\n#### {answer}", "\n"),
    Layout("Question: {question}\nAnswer: {chain}. The answer is {answer}."),
    Layout("Q: {question}\nA: {chain}\n#### {answer}"),
    Layout("{question} {chain}. The answer is {answer}."),
    Layout("{question} The answer is {answer}."),  # the one without its work; an assistant always shows it
    Layout("User: {question}\nAssistant: {chain}. The answer is {answer}."),
)

RECITALS = ("Some products:", "Times tables:", "Products to know by heart:", "Multiplication practice.")
"""What may stand above a list of products."""
