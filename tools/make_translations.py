"""Make tx_course/data/en-fr.tsv and en-zh.tsv: sentences of software, as its own translators wrote them.

    pip download --no-deps --dest FOLDER django==5.2.19 wagtail==8.0.1 \\
        jupyterlab-language-pack-fr-FR==4.5.post3 jupyterlab-language-pack-zh-CN==4.5.post3
    python tools/make_translations.py FOLDER
"""

import gettext
import io
import re
import zipfile
from pathlib import Path

import click
from data_files import DATA, write_checksums

LANGUAGES = {"fr": ("fr", "fr_FR"), "zh": ("zh_Hans", "zh_CN")}  # the names of each in the catalogues
PLAIN_ENGLISH = re.compile(r"[A-Za-z0-9 ,.;:!?'’()/-]+")  # no markup, no placeholders to fill in
PLACEHOLDER = re.compile(r"[%{}<>\\_&|\n]")
HAN = re.compile(r"[\u4e00-\u9fff]")

Pairs = dict[str, tuple[str, str]]  # English → (translation, project)


def catalogues(wheel: Path, names: tuple[str, ...]):
    """Yield each compiled catalogue of ``wheel`` in the language called ``names``."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if any(f"/locale/{language}/" in name for language in names) and name.endswith(".mo"):
                yield gettext.GNUTranslations(io.BytesIO(archive.read(name)))


def project(wheel: Path) -> str:
    """Return the name of the project a wheel translates."""
    return wheel.name.split("-")[0].split("_language_pack")[0]


def tidy(text: str) -> str:
    """Put one plain space where there are several, or spaces of another kind."""
    return " ".join(text.split())


def suits(english: str, other: str, language: str) -> bool:
    """Say whether a pair is a plain sentence of 3 to 12 words that was really translated."""
    if not 3 <= len(english.split()) <= 12 or not PLAIN_ENGLISH.fullmatch(english):
        return False
    if PLACEHOLDER.search(other) or english == other:
        return False
    return bool(HAN.search(other)) if language == "zh" else len(other.split()) <= 20


def read_pairs(wheels: list[Path], language: str) -> Pairs:
    """Return the pairs of one language. Where projects disagree, the first to translate a sentence stays."""
    pairs: Pairs = {}
    for wheel in wheels:
        for catalogue in catalogues(wheel, LANGUAGES[language]):
            for message, translation in catalogue._catalog.items():  # gettext offers no other way to list it
                if not isinstance(message, str):
                    continue  # plural forms
                english, other = tidy(message.split("\x04")[-1]), tidy(translation)  # \x04 ends a context
                if suits(english, other, language):
                    pairs.setdefault(english, (other, project(wheel)))
    return pairs


def licences(wheels: list[Path]) -> str:
    """Return each project's licence, as it stands in its wheel, under the project's name."""
    texts = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            name = next(n for n in archive.namelist() if re.search(r"licenses/LICENSE(\.txt)?$", n))
            texts[project(wheel)] = archive.read(name).decode()
    intro = "en-fr.tsv and en-zh.tsv hold messages and translations of these projects (third column).\n"
    return intro + "".join(f"\n{'=' * 10} {project}\n\n{text}" for project, text in texts.items())


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Make the two files from the wheels in FOLDER, and put their licences beside them."""
    wheels = sorted(folder.glob("*.whl"))
    for language in LANGUAGES:
        pairs = read_pairs(wheels, language)
        lines = [f"{english}\t{other}\t{source}\n" for english, (other, source) in sorted(pairs.items())]
        (DATA / f"en-{language}.tsv").write_text("".join(lines), encoding="utf-8")
        print(f"en-{language}: {len(lines)} pairs")
    (DATA / "translations.LICENSE.txt").write_text(licences(wheels), encoding="utf-8")
    write_checksums()


if __name__ == "__main__":
    main()
