"""Little stories that take one or two facts to understand, after tasks 1 and 2 of bAbI (Weston et al. 2015).

They are generated here, word by word, together with the lines a reader needs: the supporting facts.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tx_course.data.text import Vocabulary

PEOPLE = ("daniel", "john", "mary", "sandra")
PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
THINGS = ("apple", "football", "milk")
LINES = 12  # the longest story

OTHER_WORDS = ("is", "the", "to", "took", "went", "where")
VOCABULARY = Vocabulary.of([(*PEOPLE, *PLACES, *THINGS, *OTHER_WORDS)])
"""Every word a story can hold."""


@dataclass(frozen=True)
class Story:
    """A story for people.

    ``lines`` are in the order of time; ``support`` numbers the lines that hold the answer, in the order a
    reader jumps to them.
    """

    lines: tuple[str, ...]
    question: str
    answer: str
    support: tuple[int, ...]


@dataclass(frozen=True)
class Stories:
    """Stories as numbers, the newest line first, because how long ago is what a reader needs to know.

    ``lines`` (b, 12, 5) and ``questions`` (b, 4) are words of ``VOCABULARY``, 0 where there is none;
    ``answers`` (b) number ``PLACES``; ``support`` (b, facts) numbers the lines. All int64.
    """

    lines: Tensor
    questions: Tensor
    answers: Tensor
    support: Tensor


def one_fact(generator: random.Random) -> Story:
    """Return a story of people who walk about, and the question where one of them is.

    >>> story = one_fact(random.Random(0))
    >>> story.lines[story.support[0]], story.question, story.answer
    ('sandra went to the kitchen', 'where is sandra', 'kitchen')
    """
    lines, moved = [], {}
    for time in range(generator.randint(2, LINES)):
        person = generator.choice(PEOPLE)
        place = generator.choice([p for p in PLACES if p != moved.get(person, (None, 0))[0]])
        moved[person] = (place, time)
        lines.append(f"{person} went to the {place}")
    person = generator.choice(sorted(moved))
    place, time = moved[person]
    return Story(tuple(lines), f"where is {person}", place, (time,))


def two_facts(generator: random.Random) -> Story:
    """Return a story of people who walk about with things, and the question where one of the things is.

    Nobody puts a thing down. Its holder has moved since taking it, so that one line says who has it and a
    later one where that person is.

    >>> story = two_facts(random.Random(0))
    >>> [story.lines[i] for i in story.support], story.question, story.answer
    (['sandra took the apple', 'sandra went to the office'], 'where is the apple', 'office')
    """
    while True:
        lines, moved, taken = [], {}, {}  # person → (place, time), thing → (person, time)
        for time in range(generator.randint(6, LINES)):
            person = generator.choice(PEOPLE)
            free = [thing for thing in THINGS if thing not in taken]
            if person in moved and free and generator.random() < 0.35:
                thing = generator.choice(free)
                taken[thing] = (person, time)
                lines.append(f"{person} took the {thing}")
            else:
                place = generator.choice([p for p in PLACES if p != moved.get(person, (None, 0))[0]])
                moved[person] = (place, time)
                lines.append(f"{person} went to the {place}")
        carried = sorted(thing for thing, (person, time) in taken.items() if moved[person][1] > time)
        if carried:
            thing = generator.choice(carried)
            person, grabbed = taken[thing]
            place, arrived = moved[person]
            return Story(tuple(lines), f"where is the {thing}", place, (grabbed, arrived))


def encode(stories: list[Story]) -> Stories:
    """Turn stories that need equally many facts into numbers.

    >>> encode([two_facts(random.Random(0))]).lines.shape
    torch.Size([1, 12, 5])
    """
    newest_first = [
        line.split() for s in stories for line in (*reversed(s.lines), *[""] * (LINES - len(s.lines)))
    ]
    return Stories(
        lines=VOCABULARY.encode(newest_first, length=5).unflatten(0, (-1, LINES)),
        questions=VOCABULARY.encode([s.question.split() for s in stories], length=4),
        answers=torch.tensor([PLACES.index(s.answer) for s in stories]),
        support=torch.tensor([[len(s.lines) - 1 - fact for fact in s.support] for s in stories]),
    )


def load_stories(
    write: Callable[[random.Random], Story] = two_facts, count: int = 10_000, seed: int = 0
) -> Stories:
    """Return ``count`` stories written by ``one_fact`` or ``two_facts``; another seed, other stories.

    >>> load_stories(one_fact, count=3).support.shape
    torch.Size([3, 1])
    """
    generator = random.Random(seed)
    return encode([write(generator) for _ in range(count)])
