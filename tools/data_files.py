"""Where the course's data files lie, and the list of their SHA-256 sums, which a test re-checks."""

import hashlib
from pathlib import Path

DATA = Path(__file__).resolve().parents[1] / "tx_course" / "data"


def write_checksums() -> None:
    """List every data file and licence with its sum, in the format of ``sha256sum --check``."""
    files = sorted(path for path in DATA.iterdir() if path.suffix in {".npz", ".tsv", ".txt"})
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in files]
    (DATA / "SHA256SUMS").write_text("\n".join(lines) + "\n")
