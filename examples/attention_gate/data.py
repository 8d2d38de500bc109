#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Training text with free licences from Debian packages, as token ids; downloaded and unpacked once, nothing is
installed.

    data.py MODEL_DIR                  prints the file: documents of at least 1 537 tokens, every twelfth of a source
                                       held out
    data.py MODEL_DIR --held-out 24    prints the first 1 536 tokens of so many held-out documents, as JSON

    anarchism              An Anarchist FAQ: essays                                    GFDL
    debian-handbook        The Debian Administrator's Handbook (English pages)         GPL-2+ or CC-BY-SA
    developers-reference   Debian Developer's Reference                                GPL-2+
    git-doc                manual pages and guides of Git                              GPL-2
    python3.11-doc         Python's documentation (reStructuredText)                   PSF
    libpython3.11-stdlib   Python's standard library (source code)                     PSF
    perl-doc               Perl's manual (POD)                                         Artistic or GPL-1+

Licence texts are left out: the comparison reads them.
"""

import argparse, hashlib, html.parser, json, re, subprocess, sys, tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "engine"))
from prepare import cache_dir
from tokens import Tokens

SOURCES = {  # package: pattern of its documents
    "anarchism": "usr/share/doc/anarchism/html/*.html",
    "debian-handbook": "usr/share/doc/debian-handbook/html/en-US/*.html",
    "developers-reference": "usr/share/**/*.txt",
    "git-doc": "usr/share/doc/git*/**/*.txt",
    "python3.11-doc": "usr/share/doc/python3.11/html/_sources/**/*.txt",
    "libpython3.11-stdlib": "usr/lib/python3.11/**/*.py",
    "perl-doc": "usr/share/perl/**/*.pod",
}
LEAST = 1537  # tokens: a held-out document has 1 536 and one to predict
VERSION = 1  # raise it when the file below changes meaning


class Text(html.parser.HTMLParser):
    """What a page says, without markup, scripts and navigation."""

    def __init__(self):
        super().__init__()
        self.parts, self.muted = [], 0

    def handle_starttag(self, tag, attributes):
        self.muted += tag in ("script", "style", "nav", "head")
        if tag in ("p", "li", "h1", "h2", "h3", "h4", "pre", "div", "br", "tr"):
            self.parts.append("\n")

    def handle_endtag(self, tag):
        self.muted -= tag in ("script", "style", "nav", "head")

    def handle_data(self, data):
        if not self.muted:
            self.parts.append(data)


def read(path):
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".html":
        page = Text()
        page.feed(text)
        text = "".join(page.parts)
    return re.sub(r"\n\s*\n+", "\n\n", re.sub(r"[ \t]+\n", "\n", text)).strip()


def download(package, into):
    target = into / package
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=into) as scratch:
            done = subprocess.run(["apt-get", "download", package], cwd=scratch, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(
                    f"apt-get download {package} failed ({done.stderr.strip().splitlines()[-1:]}); "
                    "run: sudo apt-get update"
                )
            fresh = Path(scratch) / "tree"
            subprocess.run(["dpkg", "-x", str(next(Path(scratch).glob("*.deb"))), str(fresh)], check=True)
            fresh.rename(target)
    return target


def prepare(model_dir):
    """The .npz: tokens (all documents one after another), begin (documents+1), name, source, held (documents)."""
    root = cache_dir() / "text"
    target = (
        root / f"corpus-{VERSION}-{hashlib.sha1((Path(model_dir) / 'tokenizer.json').read_bytes()).hexdigest()[:8]}.npz"
    )
    if target.exists():
        return target
    root.mkdir(exist_ok=True)
    tokenizer = Tokens(model_dir).tokenizer
    documents, names, sources = [], [], []
    for package, pattern in SOURCES.items():
        tree = download(package, root)
        for path in sorted(tree.glob(pattern)):
            name = f"{package}/{path.relative_to(tree)}"
            if not path.is_file() or re.search(r"licen[sc]e|copying|gpl", name, re.I):
                continue
            ids = tokenizer.encode(read(path), add_special_tokens=False).ids
            if len(ids) >= LEAST:
                documents.append(ids), names.append(name), sources.append(package)
    held = [sources[:at].count(source) % 12 == 5 for at, source in enumerate(sources)]
    scratch = target.with_suffix(".new.npz")
    np.savez(
        scratch,
        tokens=np.concatenate(documents).astype(np.uint16),
        begin=np.cumsum([0] + [len(d) for d in documents]),
        name=names,
        source=sources,
        held=held,
    )
    scratch.rename(target)
    return target


class Corpus:
    def __init__(self, path):
        data = np.load(path)
        self.tokens, self.begin, self.name, self.source, self.held = (
            data[k] for k in ("tokens", "begin", "name", "source", "held")
        )

    def window(self, seed, index, length):
        """Training window `index`: a source, then one of its documents by length, then a place in it."""
        draw = np.random.default_rng((seed, index))
        chosen = np.flatnonzero(~self.held & (self.source == draw.choice(np.unique(self.source))))
        sizes = np.diff(self.begin)[chosen]
        at = draw.choice(len(chosen), p=sizes / sizes.sum())
        start = self.begin[chosen[at]] + draw.integers(0, sizes[at] - length)
        return self.tokens[start : start + length + 1].astype(np.int64)

    def held_out(self, count, length):
        """The beginnings of `count` held-out documents, the sources in turn: [(name, ids)]."""
        by_source = [list(np.flatnonzero(self.held & (self.source == s))) for s in np.unique(self.source)]
        order = [d for turn in range(max(map(len, by_source))) for docs in by_source for d in docs[turn : turn + 1]]
        return [
            (str(self.name[d]), self.tokens[self.begin[d] : self.begin[d] + length].astype(np.int64))
            for d in order[:count]
        ]


def describe(corpus):
    sizes = np.diff(corpus.begin)
    for source in SOURCES:
        here = corpus.source == source
        print(
            f"{source:22} "
            f"{np.sum(here & ~corpus.held):4} documents {sizes[here & ~corpus.held].sum():8} tokens to train, "
            f"{np.sum(here & corpus.held):3} documents {sizes[here & corpus.held].sum():7} tokens held out",
            file=sys.stderr,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir")
    parser.add_argument("--held-out", type=int, metavar="N")
    o = parser.parse_args()
    try:
        found = prepare(o.model_dir)
        corpus = Corpus(found)
        if o.held_out:
            print(
                json.dumps(
                    [{"name": name, "ids": ids.tolist()} for name, ids in corpus.held_out(o.held_out, LEAST - 1)]
                )
            )
        else:
            describe(corpus)
            print(found)
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        print(f"data.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
