"""Make tx_course/data/garments.npz: an extract of Fashion-MNIST with as many images of every class.

apt-get download dataset-fashion-mnist
dpkg-deb --extract dataset-fashion-mnist_*.deb FOLDER
python tools/make_garments.py FOLDER
"""

import gzip
from pathlib import Path

import click
import numpy as np
from data_files import DATA, write_checksums

TRAIN, TEST = 450, 50  # images of each class


def read(path: Path, header: int) -> np.ndarray:
    """Read the bytes of an IDX file after its header."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def extract(folder: Path, part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first ``count`` images of every class, in the file's order, and their labels."""
    labels = read(folder / f"{part}-labels-idx1-ubyte.gz", header=8)
    images = read(folder / f"{part}-images-idx3-ubyte.gz", header=16).reshape(-1, 28, 28)
    rows = np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label in range(10)]))
    return images[rows], labels[rows]


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Make the extract from FOLDER, the unpacked Debian package, and put its licence beside it."""
    idx = folder / "usr/share/datasets/fashion-mnist"
    train_images, train_labels = extract(idx, "train", TRAIN)
    test_images, test_labels = extract(idx, "t10k", TEST)
    np.savez_compressed(
        DATA / "garments.npz",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
    )
    licence = (folder / "usr/share/doc/dataset-fashion-mnist/copyright").read_text()
    (DATA / "garments.LICENSE.txt").write_text(licence)
    write_checksums()


if __name__ == "__main__":
    main()
