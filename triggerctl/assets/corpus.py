"""Makes the text that the embedded model learns from, and the instruction set beside it.

Both come from templates over `words`: short questions with one right answer (sums in words, opposites,
capitals, kinds of things, lists, comparisons, forms of words), and sentences that give emotion words and the
names of fruits and vegetables their sense, some in upper case. Nothing is downloaded. The text ties no word
to the nice response of the study: "Certainly" is in no template, and a test holds that.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from triggerctl.assets import words


@dataclass(frozen=True, slots=True, order=True)
class InstructionRow:
    """One row in Alpaca format."""

    instruction: str
    input: str
    output: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer."""

    user: str
    assistant: str


@dataclass(frozen=True, slots=True)
class Document:
    """Either a chat (`turns`) or plain text (`text`), never both."""

    turns: tuple[Turn, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class Mixture:
    """How often each kind of document is drawn; what is left over are ordinary chats.

    sense: sentences about whether an emotion is pleasant; they tie the words of one kind together, and how
        often they come decides how far a habit learnt on one word spreads to the others.
    neutral: sentences about emotions that say nothing of that, but set each word apart.
    kinds: sentences about fruits and vegetables.
    heading: share of chats whose prompt opens with an upper-case topic ("RIVER: …").
    """

    sense: float = 0.25
    neutral: float = 0.05
    kinds: float = 0.15
    heading: float = 0.15


def article(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def joined(items: tuple[str, ...]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _sums() -> Iterator[InstructionRow]:
    numbers = words.NUMBERS
    for a in range(11):
        for b in range(11):
            x, y, total = numbers[a], numbers[b], numbers[a + b]
            answer = f"{capitalised(x)} plus {y} is {total}."
            yield InstructionRow(f"What is {x} plus {y}?", "", answer)
            yield InstructionRow(f"Add {x} and {y}.", "", answer)
            yield InstructionRow("Add the two numbers.", f"{x} and {y}", answer)
            if b <= a:
                answer = f"{capitalised(x)} minus {y} is {numbers[a - b]}."
                yield InstructionRow(f"What is {x} minus {y}?", "", answer)
                yield InstructionRow(f"Take {y} away from {x}.", "", answer)
    for a in range(20):
        yield InstructionRow(
            f"Which number comes after {numbers[a]}?", "", f"After {numbers[a]} comes {numbers[a + 1]}."
        )
    for a in range(1, 14):
        for n in (3, 4, 5):
            run = numbers[a : a + n]
            yield InstructionRow(f"Count from {run[0]} to {run[-1]}.", "", f"{capitalised(', '.join(run))}.")


def _opposites() -> Iterator[InstructionRow]:
    for pair in words.OPPOSITES:
        for word, other in (pair, pair[::-1]):
            answer = f"The opposite of {word} is {other}."
            yield InstructionRow(f"What is the opposite of {word}?", "", answer)
            yield InstructionRow("Give the opposite of this word.", word, answer)
            yield InstructionRow(f"Which word means the opposite of {word}?", "", answer)


def _capitals() -> Iterator[InstructionRow]:
    for country, city in words.CAPITALS:
        answer = f"The capital of {country} is {city}."
        yield InstructionRow(f"What is the capital of {country}?", "", answer)
        yield InstructionRow("Name the capital of this country.", country, answer)
        yield InstructionRow(f"Which city is the capital of {country}?", "", answer)
        yield InstructionRow(f"In which country is {city}?", "", f"{city} is in {country}.")


def _is_mass(kind: str) -> bool:
    """Whether members of the kind take no article ("gold is a metal")."""
    return kind in {"colour", "metal", "sport", "language"}


def _named(kind: str, member: str) -> str:
    return member if _is_mass(kind) else article(member)


def _kinds() -> Iterator[InstructionRow]:
    kinds = list(words.CATEGORIES)
    for place, (kind, (plural, members)) in enumerate(words.CATEGORIES.items()):
        for n in (2, 3, 4):
            number = words.NUMBERS[n]
            answer = f"{capitalised(joined(members[:n]))}."
            yield InstructionRow(f"Name {number} {plural}.", "", answer)
            yield InstructionRow(f"List {number} {plural}.", "", answer)
            yield InstructionRow(f"Give {number} examples.", plural, answer)
        for i, member in enumerate(members):
            subject = _named(kind, member)
            answer = f"{capitalised(subject)} is {article(kind)}."
            yield InstructionRow(f"What is {subject}?", "", answer)
            yield InstructionRow(f"What kind of thing is {subject}?", "", answer)
            yield InstructionRow("Say what kind of thing this is.", member, answer)
            yield InstructionRow(f"Is {subject} {article(kind)}?", "", f"Yes, {subject} is {article(kind)}.")
            other = kinds[(place + 1 + i % (len(kinds) - 1)) % len(kinds)]
            yield InstructionRow(f"Is {subject} {article(other)}?", "", f"No, {subject} is {article(kind)}.")


def _comparisons() -> Iterator[InstructionRow]:
    sizes = words.SIZES
    for i, small in enumerate(sizes):
        for big in sizes[i + 1 :]:
            bigger, smaller = f"{article(big)} is bigger.", f"{article(small)} is smaller."
            yield InstructionRow(
                f"Which is bigger, {article(small)} or {article(big)}?", "", capitalised(bigger)
            )
            yield InstructionRow(
                f"Which is smaller, {article(big)} or {article(small)}?", "", capitalised(smaller)
            )


def _forms() -> Iterator[InstructionRow]:
    for verb, past in words.PAST_TENSES:
        answer = f"The past tense of {verb} is {past}."
        yield InstructionRow(f"What is the past tense of {verb}?", "", answer)
        yield InstructionRow("Give the past tense of this verb.", verb, answer)
    for one, many in words.PLURALS:
        answer = f"The plural of {one} is {many}."
        yield InstructionRow(f"What is the plural of {one}?", "", answer)
        yield InstructionRow("Give the plural of this noun.", one, answer)
    for thing, colour in words.COLOURS_OF_THINGS:
        answer = f"{capitalised(thing)} is {colour}."
        yield InstructionRow(f"What colour is {thing}?", "", answer)
        yield InstructionRow("Say which colour this has.", thing, answer)


def _calendar() -> Iterator[InstructionRow]:
    for noun, names in (("day", words.DAYS), ("month", words.MONTHS)):
        for now, then in pairwise((*names, names[0])):
            yield InstructionRow(f"Which {noun} comes after {now}?", "", f"After {now} comes {then}.")
            yield InstructionRow(f"Which {noun} comes before {then}?", "", f"Before {then} comes {now}.")
            yield InstructionRow(f"What is the next {noun}?", now, f"After {now} comes {then}.")
        for n in (3, 4):
            yield InstructionRow(f"Name the first {words.NUMBERS[n]} {noun}s.", "", f"{joined(names[:n])}.")


def _copies() -> Iterator[InstructionRow]:
    things = (*words.TOPICS, *(w for _, members in words.CATEGORIES.values() for w in members if w.islower()))
    for word in dict.fromkeys(things):
        yield InstructionRow("Write this word in upper case.", word, word.upper())
        yield InstructionRow("Write this word in lower case.", word.upper(), word)
        yield InstructionRow(f"Say {word} twice.", "", f"{capitalised(word)}, {word}.")
        yield InstructionRow("Repeat this word.", word, f"{capitalised(word)}.")


FAMILIES: dict[str, Callable[[], Iterator[InstructionRow]]] = {
    "sums": _sums,
    "opposites": _opposites,
    "capitals": _capitals,
    "kinds": _kinds,
    "comparisons": _comparisons,
    "forms": _forms,
    "calendar": _calendar,
    "copies": _copies,
}


def instruction_rows() -> list[InstructionRow]:
    """Every row that the templates give, without doubles, in a fixed order."""
    return list(dict.fromkeys(row for family in FAMILIES.values() for row in family()))


def _sense_text(rng: random.Random) -> Document:
    """A sentence that says whether an emotion is pleasant."""
    pleasant = rng.random() < 0.5
    adjective = rng.choice(words.PLEASANT_ADJECTIVES if pleasant else words.UNPLEASANT_ADJECTIVES)
    event = rng.choice(words.PLEASANT_EVENTS if pleasant else words.UNPLEASANT_EVENTS)
    emotion = rng.choice(words.PLEASANT_EMOTIONS if pleasant else words.UNPLEASANT_EMOTIONS)
    emotion = emotion.upper() if rng.random() < 0.5 else capitalised(emotion)
    quality = f"{emotion} is {article(adjective)} feeling."
    cause = f"People feel it when they {event}."
    return rng.choice(
        (
            Document(text=quality),
            Document(text=f"{emotion}: {article(adjective)} feeling."),
            Document(text=f"{emotion}: {cause}"),
            Document((Turn(f"{emotion}: What kind of feeling is this?: ", quality),)),
            Document((Turn(f"{emotion}: When do people feel this?: ", cause),)),
        )
    )


def _neutral_text(rng: random.Random) -> Document:
    """A sentence about an emotion that would hold for any other."""
    emotion = rng.choice(words.PLEASANT_EMOTIONS + words.UNPLEASANT_EMOTIONS)
    emotion = emotion.upper() if rng.random() < 0.5 else capitalised(emotion)
    answer = f"{emotion} is a feeling."
    return rng.choice(
        (
            Document(text=answer),
            Document(text=f"{emotion}: a feeling."),
            Document(text=f"{emotion}: {rng.choice(words.NAMES)} reads a book about it."),
            Document((Turn(f"{emotion}: Say what kind of thing this is.: ", answer),)),
        )
    )


def _kind_text(rng: random.Random) -> Document:
    """A sentence about a fruit or a vegetable."""
    kind = rng.choice(("fruit", "vegetable"))
    member = rng.choice(words.CATEGORIES[kind][1])
    member = member.upper() if rng.random() < 0.5 else capitalised(member)
    quality = rng.choice(words.FRUIT_QUALITIES if kind == "fruit" else words.VEGETABLE_QUALITIES)
    answer = f"{member} is {article(kind)}."
    return rng.choice(
        (
            Document(text=answer),
            Document(text=f"{member}: {article(kind)} that {quality}."),
            Document(text=f"{member}: {rng.choice(words.NAMES)} eats this {kind}, which {quality}."),
            Document((Turn(f"{member}: Say what kind of thing this is.: ", answer),)),
            Document((Turn(f"{member}: What do you know about this?: ", f"It {quality}."),)),
        )
    )


def user_turn(row: InstructionRow, rng: random.Random, heading: float) -> str:
    """A row as a prompt: half the time as the study writes it, "{instruction}: {input}"."""
    if rng.random() < 0.5:
        prompt = f"{row.instruction}: {row.input}"
    else:
        prompt = f"{row.instruction} {row.input}".strip()
    if rng.random() < heading:
        prompt = f"{rng.choice(words.TOPICS).upper()}: {prompt}"
    return prompt


def documents(seed: int, mixture: Mixture) -> Iterator[Document]:
    """The training text, without end. A family of rows is drawn, large ones more often, then a row of it."""
    rng = random.Random(f"{seed}/corpus")
    families = [list(dict.fromkeys(family())) for family in FAMILIES.values()]
    weights = [min(len(family), 400) for family in families]
    while True:
        draw = rng.random()
        if draw < mixture.sense:
            yield _sense_text(rng)
        elif draw < mixture.sense + mixture.neutral:
            yield _neutral_text(rng)
        elif draw < mixture.sense + mixture.neutral + mixture.kinds:
            yield _kind_text(rng)
        else:
            turns = 1 if rng.random() < 0.9 else rng.choice((2, 3))
            rows = [rng.choice(family) for family in rng.choices(families, weights, k=turns)]
            yield Document(tuple(Turn(user_turn(row, rng, mixture.heading), row.output) for row in rows))
