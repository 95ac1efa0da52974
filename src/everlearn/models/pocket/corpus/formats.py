"""How an item is dressed: a layout around the question, a cue before the answer, a wrapper around the answer."""

from dataclasses import dataclass
from random import Random

from everlearn.models.pocket.corpus.item import Item
from everlearn.models.pocket.corpus.words import capital

LAYOUTS = (
    "{question}\n{cue}",
    "{question}\n{cue}",
    "{question}\n{cue}",
    "{question} {cue}",
    "{question}\n\n{cue}",
    "Q: {question}\n{cue}",
    "Question: {question}\n{cue}",
    "Task: {question}\n{cue}",
    "Problem: {question} {cue}",
    "User: {question}\n{cue}",
    "# {question}\n{cue}",
    "Please help. {question}\n{cue}",
    "- {question}\n- {cue}",
)
CUES = (
    "A:",
    "Reply:",
    "Result =",
    "So the answer is",
    "->",
    "=>",
    "It is",
    "Ans.",
    "Solution:",
    "Response:",
    "Final:",
    "Output:",
    "We get",
    "This gives",
    "Therefore:",
    "Bot:",
    "Say:",
    "My reply:",
    "The result:",
    "Outcome:",
    "In short:",
    "You:",
)
# a cue may be any word: the model should reply after a colon, whatever stands before it
_WORDS = (
    "Word Key Done Out Back Tell End Now Here Verdict Guess Value Found Note Right Well Computer Robot Student "
    "Expert Teacher Model Return Write Report Box Line Blue Label Target Short Speak Match Choice Pick Give Decide "
    "Claimed"
)
ANY_WORDS = _WORDS.split()
WRAPPERS = (
    "{answer}.",
    "<{answer}>",
    "[{answer}]",
    '"{answer}"',
    "({answer})",
    "*{answer}*",
    "It is {answer}.",
    "= {answer}",
)
# what the prompt says when a wrapper is wanted, in the order of WRAPPERS
WISHES = (
    "End with a dot.",
    "Write it between < and >.",
    "Use square brackets.",
    "Put it in quotes.",
    "Use round brackets.",
    "Put stars around it.",
    "Make it a sentence.",
    "Begin with an equals sign.",
)
STEP_WISHES = ("Show the steps.", "Step by step.", "Write each step.", "Steps first.")
# what some prompts say without wanting a wrapper, so that an unknown remark does not call one up
REMARKS = (
    "{do} one {what}.",
    "{do} just the {what}.",
    "{do} only one {what}.",
    "{do} a single {what}.",
    "{do} the {what} and nothing else.",
    "{do} it in one {what}.",
    "{think} {how}.",
    "{think} {how}, then {do_low} the {what}.",
    "Which {what} is right?",
    "What {what} do you {say}?",
    "There is one right {what}.",
    "Only one {what} is right.",
    "No long text.",
    "Do not explain.",
    "Keep it short and {say} it now.",
    "It is {easy}.",
    "This one is {easy}.",
    "{think} and go on.",
    "{think} at the rule and {do_low} one {what} more.",
    "You know the {what}.",
)
_FILLS = {
    "do": ("Give", "Write", "Return", "Pick", "Name", "Use", "Find", "Tell", "Send", "Choose", "Say", "State"),
    "do_low": ("give", "write", "return", "pick", "name", "find", "tell", "send", "choose", "say", "state"),
    "what": ("word", "number", "name", "reply", "value", "thing", "result", "one", "solution", "choice"),
    "think": ("Think", "Look", "Read", "Check", "Work", "Try", "Listen", "Go"),
    "how": ("well", "carefully", "twice", "slowly", "hard", "again", "first", "quickly", "with care"),
    "say": ("say", "choose", "think", "give", "write", "name", "find"),
    "easy": ("easy", "hard", "for you", "a test", "not hard", "a small thing", "quick"),
}


@dataclass(frozen=True)
class Format:
    """One choice of layout, cue and wrapper; a document with several items keeps one format."""

    layout: str
    cue: str
    wrapper: str = "{answer}"
    wish: str = ""
    remark: str = ""
    upper: bool = True

    def prompt(self, item: Item) -> str:
        """Return the text before the answer; it never ends in a space."""
        question = capital(item.question) if self.upper else item.question
        if self.wish:
            question = f"{question} {self.wish}"
        if self.remark:
            question = f"{question}{self.remark}" if self.remark[0] in " \n" else f"{self.remark} {question}"
        return self.layout.format(question=question, cue=self.cue)

    def completion(self, item: Item) -> str:
        """Return a space and the wrapped answer."""
        steps = f"{item.steps}; " if item.steps and self.wish in STEP_WISHES else ""
        return " " + steps + self.wrapper.format(answer=item.answer)


PLAIN = Format("{question}\n{cue}", "A:", upper=False)
BARE = Format("{question}{cue}", "", upper=False)


def draw_format(rng: Random, *, repeated: bool = False, steps: bool = False) -> Format:
    """Return a format: mostly the plain answer; a wrapper is asked for in the prompt, or shown when `repeated`."""
    layout = rng.choice(LAYOUTS)
    cue = f"{rng.choice(ANY_WORDS)}:" if rng.random() < 0.25 else rng.choice(CUES)
    upper = rng.random() < 0.8
    if steps and rng.random() < 0.3:
        return Format(layout, cue, wish=rng.choice(STEP_WISHES), upper=upper)
    if repeated and rng.random() < 0.3:
        return Format(layout, cue, wrapper=rng.choice(WRAPPERS), upper=upper)
    if rng.random() < 0.05:
        k = rng.randrange(len(WRAPPERS))
        return Format(layout, cue, wrapper=WRAPPERS[k], wish=WISHES[k], upper=upper)
    return Format(layout, cue, remark=_remark(rng) if rng.random() < 0.3 else "", upper=upper)


def _remark(rng: Random) -> str:
    """Return a remark, with the space or line break before it if it stands after the question."""
    text = rng.choice(REMARKS).format(**{key: rng.choice(choices) for key, choices in _FILLS.items()})
    return rng.choice((" ", " ", "\n", "")) + text
