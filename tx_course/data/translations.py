"""Real sentences of software and their translations, English to French and English to Chinese.

They come from the catalogues of Django, Wagtail and JupyterLab (BSD licences).
"""

import random
import re
from dataclasses import dataclass
from importlib.resources import files

Pair = tuple[str, str]


@dataclass(frozen=True)
class Translations:
    """Pairs (English, translation), split at random.

    No English sentence, its case and punctuation aside, is in two parts.
    """

    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    test: tuple[Pair, ...]


def load_translations(language: str, seed: int = 0) -> Translations:
    """Return the pairs of English and ``language``, "fr" or "zh": 200 to test, 200 to validate, the rest to
    train.

    Raises ValueError for another language.

    >>> translations = load_translations("fr")
    >>> len(translations.train), len(translations.test)
    (1811, 200)
    """
    if language not in ("fr", "zh"):
        raise ValueError(f'expected the language "fr" or "zh", got {language!r}')
    lines = (files(__package__) / f"en-{language}.tsv").read_text(encoding="utf-8").splitlines()
    by_words: dict[tuple[str, ...], list[Pair]] = {}
    for line in lines:
        english, other, _ = line.split("\t")
        by_words.setdefault(tuple(re.findall(r"\w+", english.lower())), []).append((english, other))
    groups = list(by_words.values())
    random.Random(seed).shuffle(groups)
    test, validation, train = groups[:200], groups[200:400], groups[400:]
    held_back = [tuple(group[0] for group in part) for part in (test, validation)]
    return Translations(tuple(pair for group in train for pair in group), held_back[1], held_back[0])


def split_words(sentence: str) -> list[str]:
    """Return the lower-case words and marks of an English or French sentence; an elided article stands alone.

    >>> split_words("Erreur lors de l'enregistrement.")
    ['erreur', 'lors', 'de', "l'", 'enregistrement', '.']
    """
    return re.findall(r"\w+'|\w+|[^\w\s]", sentence.lower().replace("’", "'"))


def split_characters(sentence: str) -> list[str]:
    """Return the characters of a Chinese sentence; a word or number in Latin letters stays whole.

    >>> split_characters("信任HTML文件")
    ['信', '任', 'html', '文', '件']
    """
    return re.findall(r"[a-z0-9]+|\S", sentence.lower())
