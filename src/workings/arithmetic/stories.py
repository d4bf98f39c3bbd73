"""Themes of word problems, as data: sentences that open a story, change its running value, and ask for it.

Holes: `%(n)s` is the operand of a step, `%(a)s` … `%(d)s` numbers of an opening, `%(m)s` the size of a ring; `name`
(with `he`, `him`, `his`), `stranger` and `passer` are three different people. Sentences are short, because small models
read them; each acts on the value the sentences before it left.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PEOPLE = (
    ("Ann", "she"), ("Ben", "he"), ("Cora", "she"), ("Dan", "he"), ("Eva", "she"), ("Finn", "he"), ("Gina", "she"),
    ("Hugo", "he"), ("Iris", "she"), ("Jack", "he"), ("Kate", "she"), ("Leo", "he"), ("Mia", "she"), ("Noah", "he"),
    ("Olga", "she"), ("Paul", "he"),
)  # fmt: skip
FORMS = {"he": {"he": "he", "He": "He", "him": "him", "his": "his"},
         "she": {"he": "she", "He": "She", "him": "her", "his": "her"}}  # fmt: skip
NUMBER_WORDS = {
    "half": 2, "halves": 2, "halved": 2, "double": 2, "doubles": 2, "doubled": 2, "twice": 2,
    "triple": 3, "triples": 3, "tripled": 3,
}  # fmt: skip
"""Every word that stands for the operand of a step."""

DISTRACTORS = (
    "%(passer)s has %(n)s %(others)s.",
    "%(passer)s is %(n)s years old.",
    "It is %(n)s degrees outside.",
)
"""Sentences about somebody or something else, with a number of their own that no step uses."""
OTHERS = ("kites", "spoons", "hats", "ropes")


@dataclass(frozen=True, slots=True)
class Opening:
    """The first sentences. `steps` such as `("a*b=e", "e+c=f")` are the chain they ask for by themselves; the running
    value is the last step's result, or `a` where there is none. A letter in `factors` is drawn from the multipliers."""

    text: str
    steps: tuple[str, ...] = ()
    factors: str = ""


@dataclass(frozen=True, slots=True)
class Theme:
    """One kind of story. `acts` maps an operation to its sentences; `words` maps `*2`, `*3` and `/2` to sentences that
    say the operand in a word of NUMBER_WORDS. `things` fill `%(things)s`."""

    openings: tuple[Opening, ...]
    acts: dict[str, tuple[str, ...]]
    questions: tuple[str, ...]
    words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    things: tuple[str, ...] = ("things",)
    ring: bool = False


def _openings(*texts: str) -> tuple[Opening, ...]:
    return tuple(Opening(text) for text in texts)


_THINGS = ("marbles", "stamps", "shells", "coins", "cards", "beads", "buttons", "stickers", "pencils", "books")
_COLLECTION = Theme(
    openings=_openings("%(name)s has %(a)s %(things)s.", "%(name)s finds %(a)s %(things)s.",
                       "%(name)s starts with %(a)s %(things)s."),
    acts={
        "+": ("Then %(he)s buys %(n)s more.", "A friend gives %(him)s %(n)s more.", "%(He)s finds %(n)s more."),
        "-": ("Then %(he)s sells %(n)s of them.", "%(He)s loses %(n)s of them.", "%(He)s gives away %(n)s."),
        "*": ("Then %(he)s has %(n)s times as many.", "The pile grows to %(n)s times that."),
        "/": ("%(He)s keeps one of %(n)s equal shares.", "Of %(n)s equal piles one is kept."),
    },
    words={
        "*2": ("Then %(he)s has twice as many.", "The pile is doubled."),
        "*3": ("The pile is tripled.",),
        "/2": ("Half of them are lost.", "Then %(he)s sells half of them."),
    },
    questions=("How many %(things)s does %(name)s have now?", "How many %(things)s are there in the end?"),
    things=_THINGS,
)  # fmt: skip
_BUS = Theme(
    openings=_openings("A %(things)s leaves with %(a)s people.", "There are %(a)s people on a %(things)s."),
    acts={
        "+": ("Then %(n)s people get on.", "At the stop %(n)s more get on."),
        "-": ("Then %(n)s people get off.", "At the stop %(n)s of them get off."),
        "*": ("Then there are %(n)s times as many.",),
        "/": ("Then one in %(n)s people stays on.",),
    },
    words={
        "*2": ("Then there are twice as many.", "At the stop their number doubles."),
        "*3": ("At the stop their number triples.",),
        "/2": ("Half of the people get off.", "Then half of them get off."),
    },
    questions=("How many people are on the %(things)s now?",),
    things=("bus", "train", "tram", "boat", "plane"),
)
_TANK = Theme(
    openings=_openings("A %(things)s holds %(a)s litres of water.", "There are %(a)s litres in a %(things)s."),
    acts={
        "+": ("Then %(n)s litres are poured in.", "Rain adds %(n)s litres."),
        "-": ("Then %(n)s litres leak out.", "A plant takes %(n)s litres."),
        "*": ("Then it is filled to %(n)s times that.",),
        "/": ("Then only one part in %(n)s stays.",),
    },
    words={
        "*2": ("Rain doubles the water.",),
        "*3": ("Rain triples the water.",),
        "/2": ("Then half of the water leaks out.", "The sun halves the water."),
    },
    questions=("How many litres are in the %(things)s now?", "How many litres does the %(things)s hold?"),
    things=("tank", "barrel", "pool", "pond"),
)
_MONEY_ACTS = {
    "+": ("Then %(he)s earns $%(n)s.", "A friend pays %(him)s $%(n)s."),
    "-": ("Then %(he)s spends $%(n)s.", "%(He)s pays $%(n)s for lunch."),
    "*": ("Luck turns it into %(n)s times as much.",),
    "/": ("%(He)s keeps one part in %(n)s.",),
}
_MONEY_WORDS = {
    "*2": ("Luck doubles the money.", "Then %(he)s has twice as much."),
    "*3": ("Luck triples the money.",),
    "/2": ("Then %(he)s spends half of it.",),
}
_MONEY_QUESTIONS = ("How many dollars does %(name)s have now?", "How many dollars are left?")
_MONEY = Theme(
    openings=_openings("%(name)s has $%(a)s.", "%(name)s starts with $%(a)s."),
    acts=_MONEY_ACTS,
    words=_MONEY_WORDS,
    questions=_MONEY_QUESTIONS,
)
_GAME = Theme(
    openings=_openings("In a game %(name)s has %(a)s points.", "%(name)s starts a game with %(a)s points."),
    acts={
        "+": ("Then %(he)s wins %(n)s points.", "A card adds %(n)s points."),
        "-": ("Then %(he)s loses %(n)s points.", "A card takes %(n)s points."),
        "*": ("A star turns them into %(n)s times as many.",),
        "/": ("%(He)s keeps one point in %(n)s.",),
    },
    words={
        "*2": ("A star doubles the points.",),
        "*3": ("A star triples the points.",),
        "/2": ("A trap halves the points.", "Then %(he)s loses half of them."),
    },
    questions=("How many points does %(name)s have now?",),
)
_PLAIN = Theme(
    openings=_openings("Start with %(a)s."),
    acts={"+": ("Add %(n)s.",), "-": ("Take away %(n)s.",), "*": ("Multiply by %(n)s.",), "/": ("Divide by %(n)s.",)},
    questions=("What is the result?",),
)

_BOXES = Theme(
    openings=(
        Opening("%(name)s has %(a)s boxes of %(b)s %(things)s.", ("a*b=c",), "a"),
        Opening("%(name)s has %(a)s boxes of %(b)s %(things)s and %(c)s loose %(things)s.", ("a*b=d", "d+c=e"), "a"),
        Opening("%(name)s has %(a)s boxes of %(b)s %(things)s and %(c)s bags of %(d)s.",
                ("a*b=e", "c*d=f", "e+f=g"), "ac"),
    ),
    acts=_COLLECTION.acts,
    words=_COLLECTION.words,
    questions=("How many %(things)s does %(name)s have in all?",),
    things=_THINGS,
)  # fmt: skip
_TOGETHER = Theme(
    openings=(
        Opening("%(name)s has %(a)s %(things)s. %(stranger)s gives %(him)s %(b)s more.", ("a+b=c",)),
        Opening("%(name)s has %(a)s %(things)s. %(stranger)s has %(b)s more. They share one pile.", ("a+b=c", "a+c=d")),
        Opening("%(name)s has %(a)s %(things)s. %(stranger)s has twice as many. They share one pile.",
                ("a*2=b", "a+b=c")),
        Opening("%(name)s has %(a)s %(things)s. %(stranger)s has half as many. They share one pile.",
                ("a/2=b", "a+b=c")),
    ),
    acts={
        "+": ("Then %(n)s more are found.", "They buy %(n)s more."),
        "-": ("Then %(n)s of them are lost.", "They sell %(n)s of them."),
        "*": ("The pile grows to %(n)s times that.",),
        "/": ("Of %(n)s equal piles one is kept.",),
    },
    words={"*2": ("The pile is doubled.",), "*3": ("The pile is tripled.",), "/2": ("Half of them are lost.",)},
    questions=("How many %(things)s are in the pile?",),
    things=_THINGS,
)  # fmt: skip
_SHOPPING = Theme(
    openings=(
        Opening("%(name)s has $%(a)s. A book costs $%(b)s and %(he)s buys one.", ("a-b=c",)),
        Opening("%(name)s has $%(a)s. %(He)s buys %(b)s books at $%(c)s each.", ("b*c=d", "a-d=e"), "b"),
        Opening("%(name)s sells %(a)s %(things)s at $%(b)s each and buys a book for $%(c)s.", ("a*b=d", "d-c=e"), "a"),
        Opening("%(name)s sells %(a)s %(things)s at $%(b)s each and then %(c)s books at $%(d)s each.",
                ("a*b=e", "c*d=f", "e+f=g"), "ac"),
    ),
    acts=_MONEY_ACTS,
    words=_MONEY_WORDS,
    questions=_MONEY_QUESTIONS,
    things=("marbles", "stamps", "shells", "cards", "beads"),
)  # fmt: skip

_RING_TRAM = Theme(
    openings=_openings("A ring line has %(m)s stops counted from zero. A %(things)s starts at stop %(a)s."),
    acts={
        "+": ("Then it goes %(n)s stops forward.", "It goes on by %(n)s stops."),
        "-": ("Then it goes %(n)s stops back.", "It goes back by %(n)s stops."),
        "*": ("Then its stop number is multiplied by %(n)s.", "It jumps to %(n)s times its stop number."),
    },
    words={"*2": ("Then its stop number is doubled.",), "*3": ("Then its stop number is tripled.",)},
    questions=("At which stop is the %(things)s now?",),
    things=("tram", "bus", "train"),
    ring=True,
)
_RING_DIAL = Theme(
    openings=_openings("A %(things)s has %(m)s marks counted from zero. Its hand points at %(a)s."),
    acts={
        "+": ("Then it turns %(n)s marks forward.", "It turns on by %(n)s marks."),
        "-": ("Then it turns %(n)s marks back.", "It turns back by %(n)s marks."),
        "*": ("Then its mark is multiplied by %(n)s.", "It jumps to %(n)s times its mark."),
    },
    words={"*2": ("Then its mark is doubled.",), "*3": ("Then its mark is tripled.",)},
    questions=("Where does the hand point now?",),
    things=("dial", "clock", "lock"),
    ring=True,
)
_RING_BOARD = Theme(
    openings=_openings("A round board has %(m)s fields counted from zero. %(name)s stands on field %(a)s."),
    acts={
        "+": ("Then %(he)s goes %(n)s fields forward.", "%(He)s goes on by %(n)s fields."),
        "-": ("Then %(he)s goes %(n)s fields back.", "%(He)s goes back by %(n)s fields."),
        "*": ("Then %(his)s field number is multiplied by %(n)s.", "%(He)s jumps to %(n)s times that field."),
    },
    words={"*2": ("Then %(his)s field number is doubled.",), "*3": ("Then %(his)s field number is tripled.",)},
    questions=("On which field is %(name)s now?",),
    ring=True,
)
_RING_PLAIN = Theme(
    openings=_openings("Count modulo %(m)s. Start with %(a)s."),
    acts={"+": ("Add %(n)s.",), "-": ("Take away %(n)s.",), "*": ("Multiply by %(n)s.",)},
    questions=("What is the result?",),
    ring=True,
)

THEMES: dict[str, Theme] = {
    "collection": _COLLECTION,
    "bus": _BUS,
    "tank": _TANK,
    "money": _MONEY,
    "game": _GAME,
    "plain": _PLAIN,
    "boxes": _BOXES,
    "together": _TOGETHER,
    "shopping": _SHOPPING,
    "ring tram": _RING_TRAM,
    "ring dial": _RING_DIAL,
    "ring board": _RING_BOARD,
    "ring plain": _RING_PLAIN,
}
RUNNING = ("collection", "bus", "tank", "money", "game")
STRUCTURED = ("boxes", "together", "shopping")
RINGS = ("ring tram", "ring dial", "ring board")
