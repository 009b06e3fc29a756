"""What is wrong with the data and the surroundings of a training, looked at before its first step.

What makes a training pointless is refused, all of it at once (`Collected`); what only makes it worse is a finding: a
sentence with a number, said before the training, kept in the run's folder and in the report. Numbers below are where a
person would look twice, not laws.

What the training itself will take is rehearsed by `learn.preflight`.
"""

from __future__ import annotations

import re
import shutil
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

from inkstone.corpus.rules import Settings, held_out_keys, key_of, language, make_rules, sides
from inkstone.ground.errors import Collected, DataError, InkstoneError, OutputError
from inkstone.ground.progress import say
from inkstone.ground.records import Labelled, Pair, Record
from inkstone.recipes.run import short_path

R = TypeVar("R")
SHARE = 0.05  # of the records: a rule that drops more is worth a word
LOOKED_AT = 500  # pairs whose languages are told
OUTLIER, LENGTHS = 10, 20  # times the median length; with fewer records there is no usual length
IMBALANCE = 10  # times as many texts of one label as of another
FEW = 5  # texts of a label from which little can be learnt
NAMED = 5  # names in a sentence
READ_ANYHOW = 1 << 26  # bytes of data that are read to look for more problems, when there is one already

# Bytes on disk for each parameter, float32: the run keeps the best weights and the last with two moments, and writes a
# new one before the old one goes; the bundle has the weights, an engine in int8, and while that is proved one in float32.
RUN_BYTES, BUNDLE_BYTES = 4 + 12 + 12, 4 + 1 + 4
MOMENT_BYTES = 8 + 8  # of them, two moments twice
_BRACES = re.compile(r"\{[^}]*\}")
BESIDES = 16 << 20  # logs, tokenizer, report


def dropped_findings(dropped: Counter[str], kept: int, what: str) -> list[str]:
    """What cleaning took away, where it is much, and what of the held-out data stood in the training data."""
    total = kept + sum(dropped.values())
    found = []
    for rule, count in dropped.most_common():
        if count and (rule == "overlap" or count > SHARE * total):
            meaning = _MEANINGS.get(rule, "are dropped by this rule")
            found.append(f"{rule}: {count:,} of {total:,} {what} ({count / total:.1%}) {meaning}")
    return found


_MEANINGS = {
    "overlap": "stand in the validation or test data, and are left out of the training",
    "duplicate": "say what another one says, and are left out",
    "too many tokens": "are longer than max_length, and are left out",
    "unreadable line": "cannot be read",
    "unreadable record": "cannot be read",
}


def length_findings(records: Sequence[Record], what: str) -> list[str]:
    """Records far longer than is usual: they decide how large a batch must be."""
    sizes = [sum(len(side) for side in sides(record)) for record in records]
    if len(sizes) < LENGTHS:
        return []
    usual = statistics.median(sizes)
    longest = max(range(len(sizes)), key=sizes.__getitem__)
    count = sum(size > OUTLIER * usual for size in sizes)
    if not count:
        return []
    where = f" ({short_path(records[longest].origin)})" if records[longest].origin else ""
    return [
        f"length outliers: {count:,} of {len(sizes):,} {what} are more than {OUTLIER} times as long as the median of"
        f" {usual:,.0f} characters; the longest has {sizes[longest]:,}{where}"
    ]


def cut_findings(cut: int, total: int, what: str, most: int) -> list[str]:
    """Texts of which only the beginning is learnt from."""
    if not cut:
        return []
    share = f"{cut:,} of {total:,} {what} ({cut / total:.1%})"
    return [f"truncated: {share} have more than {most:,} tokens: their beginnings are learnt from"]


def language_findings(pairs: Sequence[Pair], where: str = "training") -> list[str]:
    """Pairs that are surely in other languages than they claim, by as many as `LOOKED_AT` of them."""
    looked_at = list(pairs[:: -(-len(pairs) // LOOKED_AT)]) if pairs else []
    rule = language(Settings())
    wrong = [(one, reason) for one in looked_at if (reason := rule(one))]
    if len(wrong) <= SHARE * len(looked_at):
        return []
    first, reason = wrong[0]
    place = f"{short_path(first.origin)}: " if first.origin else ""
    return [
        f"language: {len(wrong):,} of {len(looked_at):,} {where} pairs looked at are in another language than they claim"
        f" (the first: {place}{reason})"
    ]


def shared_findings(valid: Sequence[Record], test: Sequence[Record], what: str) -> list[str]:
    """Test records that stand in the validation data too: the model is chosen by what it is judged by."""
    keys = held_out_keys(valid)
    count = sum(all(key_of(side) in keys for side in sides(record)) for record in test)
    return (
        [f"test overlap: {count:,} of {len(test):,} test {what} stand in the validation data too"]
        if count
        else []
    )


def label_findings(train: Sequence[Labelled], test: Sequence[Labelled]) -> list[str]:
    """Labels with far more texts than others, with few, or with none in the test set."""
    counts = Counter(label for record in train for label in record.labels)
    if not counts:
        return []
    found = []
    (most, many), (least, few) = counts.most_common(1)[0], counts.most_common()[-1]
    if many > IMBALANCE * few:
        found.append(f'label imbalance: "{most}" has {many:,} texts, "{least}" {few:,}')
    rare = sorted(label for label, count in counts.items() if count < FEW)
    if rare:
        found.append(f"rare labels: {_named(rare)} with fewer than {FEW} texts")
    unmeasured = sorted(set(counts) - {label for record in test for label in record.labels})
    if unmeasured:
        found.append(f"labels without a test text: {_named(unmeasured)}; nothing will be known of them")
    return found


def contradictions(records: Sequence[Labelled]) -> list[str]:
    """Texts that stand more than once with other labels: whatever is answered, one of them is wrong."""
    known: dict[str, tuple[str, ...]] = {}
    seen: set[str] = set()
    first = ""
    for record in records:
        key = key_of(record.text)
        if tuple(sorted(known.setdefault(key, tuple(sorted(record.labels))))) != tuple(sorted(record.labels)):
            seen.add(key)
            first = first or short_path(record.origin)
    if not seen:
        return []
    where = f" (the first: {first})" if first else ""
    return [f"contradictions: {len(seen):,} texts stand in the data with different labels{where}"]


def label_problems(
    train: Sequence[Labelled], valid: Sequence[Labelled], test: Sequence[Labelled]
) -> list[str]:
    """Labels that validation or test texts have and no training text, and labels without a validation text."""
    known = {label for record in train for label in record.labels}
    found = []
    for records, which in ((valid, "validation"), (test, "test")):
        unknown = sorted({label for record in records for label in record.labels} - known)
        if unknown:
            found.append(f"labels of the {which} set that no training text has: {_named(unknown)}")
    unseen = sorted(known - {label for record in valid for label in record.labels}) if valid else []
    if unseen:
        found.append(
            f"labels without a text in the validation set, which chooses the model: {_named(unseen)}"
        )
    return found


def refuse_labels(train: Sequence[Labelled], valid: Sequence[Labelled], test: Sequence[Labelled]) -> None:
    """Raise DataError for labels that one set has and another lacks."""
    problems = label_problems(train, valid, test)
    if problems:
        advice = (
            "Add such texts, correct the labels, leave --valid out (a tenth is then held out, of every label), or go on"
            " all the same: --set unmatched_labels=accept."
        )
        error = DataError("; ".join(problems) + f". {advice}")
        error.problems = (*problems[:-1], f"{problems[-1]}. {advice}")
        raise error


def disk_need_bytes(parameters: int, moments: bool = True) -> int:
    """What a run and its bundle take at most, before the bundle is done and the run's checkpoints go.

    moments: False where next to nothing of the model learns, as with an adapter.
    """
    return (RUN_BYTES + BUNDLE_BYTES - (0 if moments else MOMENT_BYTES)) * parameters + BESIDES


def refuse_small_disk(out: Path, parameters: int, mode: str, *, moments: bool = True) -> None:
    """Raise OutputError where the disk has less room than the run and the bundle need.

    mode: of the preflight; "force" and "skip" try it all the same. moments: as in `disk_need_bytes`.
    """
    if mode in ("force", "skip"):
        return
    nearest = next((folder for folder in out.absolute().parents if folder.is_dir()), Path("/"))
    disk, needed = shutil.disk_usage(nearest), disk_need_bytes(parameters, moments)
    if disk.total and disk.free < needed:  # a file system without a size does not say
        raise OutputError(
            f"the disk of {nearest} has {disk.free / 1e9:.2f} GB free, and a model of {parameters:,} parameters needs"
            f" {needed / 1e9:.2f} GB for its run and its bundle. Free some space, choose another --out, or a smaller"
            " --size. To try it all the same: --set training.preflight=force."
        )


def readable(recipe: R) -> R:
    """The recipe with rules that exist, so that its data can be read; that the others do not exist is said elsewhere."""
    given: Any = recipe
    try:
        make_rules(given.cleaning, given.rules)
    except InkstoneError:
        return cast(R, replace(given, rules=("overlap", "duplicate")))
    return recipe


def parameters_of(config: Any) -> int:
    """How many numbers a model of this configuration has; none of them is made."""
    import torch

    from inkstone.model.checkpoint import build_model

    with torch.device("meta"):
        return sum(one.numel() for one in build_model(config, torch.Generator()).parameters())


def check_all(
    found: Collected,
    recipe: Any,
    *checks: Callable[[], Any],
    read: Callable[[], Any],
) -> None:
    """Every check; where one of them finds something, the data is looked at as well before all is said.

    read: reads and cleans the data. Very large data is not read for that: a slip of the pen is answered at once.
    """
    for check in checks:
        with found.check():
            check()
    if found.errors and _size(recipe) <= READ_ANYHOW:
        with found.check():
            read()
    found.raise_all()


def _size(recipe: Any) -> int:
    """Bytes of the files that the recipe names, as far as they are there."""
    named: list[str] = []
    for use in ("data", "valid", "test"):
        value = getattr(recipe, use)
        named += [path for paths in value.values() for path in paths] if isinstance(value, Mapping) else value
    paths = [
        Path(_BRACES.sub("*", str(getattr(name, "file", name)))) for name in named
    ]  # {en,de}: parallel files
    files = [file for path in paths for file in path.parent.glob(path.name)]
    return sum(file.stat().st_size for file in files if file.is_file())


def tell(findings: Sequence[str]) -> None:
    """Say what was found in the data."""
    for finding in findings:
        say(f"  data    {finding}")


@contextmanager
def with_findings(findings: Sequence[str]) -> Iterator[None]:
    """A dry run that ends inside the block reports these too."""
    from inkstone.learn.preflight import DryRun

    try:
        yield
    except DryRun as done:
        done.report["data"] = [*findings, *done.report.get("data", [])]
        raise


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(f'"{name}"' for name in names[:NAMED]) + more
