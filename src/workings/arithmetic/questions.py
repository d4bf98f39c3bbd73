"""How drills may ask, write their equations and stand on the page: data, so that a further wording is a further line.

Questions are keyed by fact family and stay plain digits. The first of each list is what probes ask; it is never held
out of training.
"""

from __future__ import annotations

QUESTIONS: dict[str, tuple[str, ...]] = {
    "MUL": (
        "What is {a} times {b}?",
        "What is {a} × {b}?",
        "What is {a} * {b}?",
        "Multiply {a} by {b}.",
        "What is the product of {a} and {b}?",
        "Calculate {a} × {b}.",
        "How much is {a} times {b}?",
        "Work out {a} multiplied by {b}.",
        "Find the product of {a} and {b}.",
        "Which number is {a} times {b}?",
    ),
    "ADD": (
        "What is {a} plus {b}?",
        "What is {a} + {b}?",
        "Add {a} and {b}.",
        "What is the sum of {a} and {b}?",
        "Calculate {a} + {b}.",
        "How much is {a} plus {b}?",
        "What do {a} and {b} make together?",
        "Find the sum of {a} and {b}.",
    ),
    "SUB": (
        "What is {a} minus {b}?",
        "What is {a} - {b}?",
        "Subtract {b} from {a}.",
        "What is the difference between {a} and {b}?",
        "Calculate {a} - {b}.",
        "How much is {a} minus {b}?",
        "Take {b} away from {a}. What is left?",
        "How much more is {a} than {b}?",
    ),
    "DIV": (
        "What is {a} divided by {b}?",
        "What is {a} / {b}?",
        "What is {a} ÷ {b}?",
        "Divide {a} by {b}.",
        "How often does {b} go into {a}?",
        "How much is {a} divided by {b}?",
    ),
    "SQUARE": (
        "What is {a} squared?",
        "What is the square of {a}?",
        "Square the number {a}.",
        "Calculate {a}^2.",
        "Find the square of {a}.",
    ),
}

Style = dict[str, str]
"""Mark → a statement of left operand, right operand, result."""

STYLES: tuple[Style, ...] = (
    {"*": "%d*%d=%d", "+": "%d+%d=%d", "-": "%d-%d=%d", "/": "%d/%d=%d", "^": "%d^%d=%d"},
    {"*": "%d * %d = %d", "+": "%d + %d = %d", "-": "%d - %d = %d", "/": "%d / %d = %d", "^": "%d^%d = %d"},
    {"*": "%d×%d=%d", "+": "%d+%d=%d", "-": "%d-%d=%d", "/": "%d÷%d=%d", "^": "%d^%d=%d"},
    {"*": "%d × %d = %d", "+": "%d + %d = %d", "-": "%d - %d = %d", "/": "%d ÷ %d = %d", "^": "%d^%d = %d"},
    {"*": "%d times %d = %d", "+": "%d plus %d = %d", "-": "%d minus %d = %d", "/": "%d / %d = %d", "^": "%d^%d = %d"},
)

LAYOUTS: tuple[tuple[str, str], ...] = (
    ("{question}\n{chain}\n#### {answer}", "\n"),
    ("Question: {question}\nAnswer: {chain}. The answer is {answer}.", ", "),
    ("Q: {question}\nA: {chain}\n#### {answer}", ", "),
    ("{question} {chain}. The answer is {answer}.", ", "),
)
"""A problem on the page, and what stands between the equations of its chain."""

RECITALS = ("Some products:\n%s", "Times tables:\n%s", "Products to know by heart:\n%s", "Multiplication practice.\n%s")
