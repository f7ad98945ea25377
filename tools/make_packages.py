"""Make tx_course/data/packages.npz: which Debian packages need which, from the archive's own metadata.

    python tools/make_packages.py

Run it on a Debian machine after ``apt-get update``; the graph is that machine's release.
"""

import platform
import re
import subprocess
from collections import Counter

import click
import numpy as np
from data_files import DATA, write_checksums

SECTIONS = ("games", "graphics", "mail", "math", "science", "sound", "video", "web")
RELATIONS = ("Depends", "Recommends", "Suggests")
SAYS_NOTHING = re.compile(
    "a|an|and|are|as|at|by|for|from|in|into|is|it|its|of|on|or|other|that|the|this|to|using|via|with|you|your"
)
RARE = 8  # a word in fewer descriptions than this says little
NOTICE = """\
packages.npz holds facts about {release}, taken from the archive's own index of packages:
names, sections, which package's Depends, Recommends or Suggests names which other, and which words occur in
the one-line descriptions. Neither the descriptions nor anything else of the packages is included. Debian is a
registered trademark of Software in the Public Interest, Inc., which has no part in this course.
"""

Package = dict[str, str]


def read_archive() -> dict[str, Package]:
    """Return the one-line fields of every package apt knows, by the package's name."""
    listing = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    fields = (dict(re.findall(r"^([\w-]+): (.*)$", entry, re.MULTILINE)) for entry in listing.split("\n\n"))
    return {package["Package"]: package for package in fields if "Package" in package}


def section(package: Package) -> str:
    """Return the package's section without the archive area, ``sound`` for ``contrib/sound``."""
    return package["Section"].split("/")[-1]


def needs(package: Package) -> set[str]:
    """Return the names of all packages that ``package`` mentions, alternatives included."""
    mentioned = ",".join(package.get(relation, "") for relation in RELATIONS)
    return {re.split(r"[\s:(]", name.strip())[0] for name in re.split(r"[,|]", mentioned)} - {""}


def words(package: Package) -> set[str]:
    """Return the distinct words of the one-line description."""
    found = re.findall(r"[a-z]{2,}", package["Description"].lower())
    return {word for word in found if not SAYS_NOTHING.fullmatch(word)}


@click.command()
def main() -> None:
    """Make the graph from this machine's index: every package of the sections that has a neighbour there."""
    archive = {name: p for name, p in read_archive().items() if section(p) in SECTIONS}
    directed = [(one, other) for one, p in archive.items() for other in needs(p) & archive.keys()]
    pairs = sorted({(min(pair), max(pair)) for pair in directed if pair[0] != pair[1]})
    names = sorted({name for pair in pairs for name in pair})
    place = {name: i for i, name in enumerate(names)}
    count = Counter(word for name in names for word in words(archive[name]))
    vocabulary = sorted(word for word, times in count.items() if times >= RARE)
    known = {word: i for i, word in enumerate(vocabulary)}
    has = [(place[n], known[w]) for n in names for w in sorted(words(archive[n]) & known.keys())]
    release = platform.freedesktop_os_release()["PRETTY_NAME"]
    np.savez_compressed(
        DATA / "packages.npz",
        pairs=np.array([[place[one], place[other]] for one, other in pairs], np.uint16).T,  # (2, pairs)
        has_word=np.array(has, np.uint16).T,  # (2, words said): package, word
        labels=np.array([SECTIONS.index(section(archive[name])) for name in names], np.uint8),
        names=np.array("\n".join(names)),
        words=np.array("\n".join(vocabulary)),
        sections=np.array("\n".join(SECTIONS)),
    )
    (DATA / "packages.LICENSE.txt").write_text(NOTICE.format(release=release))
    write_checksums()
    print(f"{release}: {len(names)} packages, {len(pairs)} pairs, {len(vocabulary)} words")


if __name__ == "__main__":
    main()
