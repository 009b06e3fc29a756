"""Word vectors beside gensim: time, memory and quality on the same text.

    INKSTONE_DATA=… python benchmarks/vectors.py [--workers 2] [--epochs 5] [--small]

Both get the same lists of words (english_novels, paragraphs, lower case) and the same dimensions, window, negatives,
subsampling, epochs and number of workers; both keep their own learning rates. Each run is a process of its own. Its
time is from the lists in memory to the vectors (vocabulary and training, not the cutting into words); its CPU time and
its memory are those of the process and its workers together (of the largest, times their number), less what the lists
took. The quality is measured by one and the same code, WS-353, MEN and SimLex-999 by Spearman's correlation, and the
Google analogies whose words are known.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SETS = ("sim.en-ws-353-all.tsv", "sim.en-men-tr-3k.tsv", "sim.en-simlex-999.tsv", "analogy.en_google.tsv.gz")
# The share of the epochs: a pass of our CBOW takes longer than gensim's and learns more, so it is also given fewer.
RUNS = (
    ("inkstone", "skip-gram", 1.0),
    ("gensim", "skip-gram", 1.0),
    ("inkstone", "cbow", 1.0),
    ("inkstone", "cbow", 0.6),
    ("gensim", "cbow", 1.0),
    ("inkstone", "glove", 5.0),
)


def units(data: Path, small: bool) -> list[list[str]]:
    """The text as lists of words."""
    from inkstone.corpus.read import read_documents
    from inkstone.vectors.vocabulary import units_of

    files = [data / "english_novels" / f"{part}.jsonl.gz" for part in ("train", "heldout")]
    texts = (document.text for document in read_documents(files))
    if small:
        texts = (text for number, text in enumerate(texts) if number < 5)
    return list(units_of(texts, "en"))


def with_inkstone(text: list[list[str]], method: str, epochs: int, workers: int) -> Any:
    """Words and vectors."""
    from inkstone.vectors.cooccurrence import count_cooccurrences
    from inkstone.vectors.glove import Glove, train_glove
    from inkstone.vectors.vocabulary import encode
    from inkstone.vectors.word2vec import Word2Vec, train_word2vec

    vocabulary, corpus = encode(text)
    if method == "glove":
        counts = count_cooccurrences(corpus, len(vocabulary), 10)
        matrix_VD, _ = train_glove(counts, Glove(epochs=epochs), workers=workers)
    else:
        settings = Word2Vec(method, epochs=epochs)  # type: ignore[arg-type]
        matrix_VD = train_word2vec(vocabulary, corpus, settings, workers=workers)
    return vocabulary.words, matrix_VD


def with_gensim(text: list[list[str]], method: str, epochs: int, workers: int) -> Any:
    """Words and vectors; the settings that are gensim's defaults are said all the same."""
    from gensim.models import Word2Vec

    model = Word2Vec(
        text,
        vector_size=100,
        window=5,
        min_count=5,
        sg=int(method == "skip-gram"),
        negative=5,
        sample=1e-3,
        epochs=epochs,
        workers=workers,
        seed=1,
    )
    return tuple(model.wv.index_to_key), model.wv.vectors


def one_run(program: str, method: str, data: Path, epochs: int, workers: int, small: bool) -> dict[str, Any]:
    """Train once in this process and measure."""
    from inkstone.vectors.evaluation import evaluate, read_word_set
    from inkstone.vectors.store import WordVectors

    text = units(data, small)
    before, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    began = time.perf_counter()
    learn = with_inkstone if program == "inkstone" else with_gensim
    words, matrix_VD = learn(text, method, epochs, workers)
    seconds = time.perf_counter() - began
    own, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu = own.ru_utime + own.ru_stime - before.ru_utime - before.ru_stime
    cpu += theirs.ru_utime + theirs.ru_stime - children.ru_utime - children.ru_stime
    memory = own.ru_maxrss - before.ru_maxrss + workers * theirs.ru_maxrss
    result: dict[str, Any] = {
        "program": program,
        "method": method,
        "words": sum(map(len, text)),
        "epochs": epochs,
    }
    result |= {"seconds": seconds, "cpu_seconds": cpu, "megabytes": memory / 1024}
    vectors = WordVectors(words, matrix_VD)
    for name in SETS:
        found = evaluate(vectors, read_word_set(data / "embedding_eval" / name))
        result[name] = next(iter(found.metrics.values())).value if found.metrics else 0.0
    return result


def main() -> int:
    """All runs, one after another, as a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="five novels only, to see that it runs")
    parser.add_argument("--only", help="program,method of a single run, printed as JSON")
    asked = parser.parse_args()
    data = os.environ.get("INKSTONE_DATA")
    if not data:
        print(
            "Set INKSTONE_DATA to the folder that holds english_novels and embedding_eval.", file=sys.stderr
        )
        return 2
    if asked.only:
        program, method = asked.only.split(",")
        print(json.dumps(one_run(program, method, Path(data), asked.epochs, asked.workers, asked.small)))
        return 0
    print(
        "| | seconds | CPU seconds | words a CPU second | MB | WS-353 | MEN | SimLex | analogies |\n|---|"
        + "---:|" * 8
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for program, method, share in RUNS:
        epochs = max(1, round(share * asked.epochs))
        command = [sys.executable, __file__, "--only", f"{program},{method}"]
        command += [
            "--workers",
            str(asked.workers),
            "--epochs",
            str(epochs),
            *(["--small"] if asked.small else []),
        ]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"| {program} {method} | failed |")
            continue
        run = json.loads(done.stdout)
        figures = " | ".join(f"{run[name]:.3f}" for name in SETS)
        speed = run["words"] * run["epochs"] / run["cpu_seconds"]
        print(
            f"| {program} {method}, {epochs} epochs | {run['seconds']:.1f} | {run['cpu_seconds']:.1f} | {speed:,.0f} | "
            f"{run['megabytes']:.0f} | {figures} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
