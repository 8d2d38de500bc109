# SPDX-License-Identifier: Apache-2.0
"""The lab's documents: from Debian packages, four genres, each document in one split."""

import gzip, hashlib, re, subprocess, sys
from pathlib import Path

LICENCES = "/usr/share/common-licenses/"
PYTHON, CXX, PERL = "/usr/lib/python3.*/", "/usr/include/c++/[0-9]*/", "/usr/share/perl/5.*.*/pod/"
# split: genre: {name: file, or what bible(1) is asked for}
DOCUMENTS = {
    "selection": {
        "law": {"gpl3": LICENCES + "GPL-3", "mpl2": LICENCES + "MPL-2.0", "apache2": LICENCES + "Apache-2.0"},
        "scripture": {
            "ecclesiastes": "Ecclesiastes1:1-12:14",
            "genesis": "Genesis1:1-20:18",
            "proverbs": "Proverbs1:1-20:30",
        },
        "technical": {
            "fhs": "/usr/share/doc/debian-policy/fhs/fhs-3.0.txt.gz",
            "debconf": "/usr/share/doc/debian-policy/debconf_specification.txt.gz",
            "perlre": PERL + "perlre.pod",
        },
        "source": {
            "argparse": PYTHON + "argparse.py",
            "tarfile": PYTHON + "tarfile.py",
            "vector": CXX + "bits/stl_vector.h",
        },
    },
    "report": {
        "law": {
            "constitution": "/usr/share/doc/debian/constitution.txt.gz",
            "lgpl21": LICENCES + "LGPL-2.1",
            "gpl2": LICENCES + "GPL-2",
        },
        "scripture": {"romans": "Romans1:1-16:27", "job": "Job1:1-20:29", "isaiah": "Isaiah1:1-20:6"},
        "technical": {
            "policy": "/usr/share/doc/debian-policy/policy.txt.gz",
            "perlipc": PERL + "perlipc.pod",
            "perldata": PERL + "perldata.pod",
        },
        "source": {"ast": PYTHON + "ast.py", "shutil": PYTHON + "shutil.py", "tree": CXX + "bits/stl_tree.h"},
    },
}
PACKAGES = "bible-kjv bible-kjv-text debian-policy doc-debian perl-doc".split()


def text_of(source):
    """A document's text. What a package does not hold is refused with the command that installs it."""
    if re.fullmatch(r"[A-Z]\w+:\d+-\d+:\d+", source):
        lines = subprocess.run(["bible", source], capture_output=True, text=True, check=True).stdout.splitlines()
        verses = [line for line in lines if not re.fullmatch(r"(\w+ )+\d+|\s*", line)]
        return re.sub(r"^ *\d+ ", "", "\n".join(verses), flags=re.MULTILINE)
    folder, name = source.rsplit("/", 1)
    found = sorted(Path("/").glob(f"{folder}/{name}".lstrip("/")))
    if not found:
        sys.exit(f"quality: no {source}; run: sudo apt-get install -y {' '.join(PACKAGES)} libpython3-stdlib g++")
    bytes_ = found[0].read_bytes()
    return (gzip.decompress(bytes_) if name.endswith(".gz") else bytes_).decode("utf-8")


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def each(split, genres=None):
    """(genre, name, text) of a split's documents: one of every genre, then the next of every genre."""
    lists = [[(g, *item) for item in d.items()] for g, d in DOCUMENTS[split].items() if genres is None or g in genres]
    for genre, name, source in (document for turn in zip(*lists, strict=True) for document in turn):
        yield genre, name, text_of(source)


if __name__ == "__main__":
    for split in DOCUMENTS:
        for genre, name, text in each(split):
            print(f"{split:10} {genre:10} {name:14} {len(text):8} characters  {digest(text)}")
