"""Every format, told by content; every bad line named; every bad file refused."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from inkstone.corpus.lines import LINE_LIMIT, Problem
from inkstone.corpus.read import read_documents, read_labelled, read_pairs, task_of
from inkstone.ground.errors import ConfigError, DataError

PAIRS = [
    ("The weather is good today, isn't it?", "今天天气很好，不是吗？"),
    ('He said "no", then left.', "他说“不”，然后走了。"),
    ("Semi;colons, and commas.", "分号；和逗号，都有。"),
]


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode("utf-8") if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def jsonl(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def quoted(cells: tuple[str, ...], delimiter: str) -> str:
    return delimiter.join('"' + cell.replace('"', '""') + '"' for cell in cells) + "\r\n"


def the_same_pairs() -> dict[str, str]:
    codes = [{"en": en, "zh": zh, "id": at} for at, (en, zh) in enumerate(PAIRS)]
    return {
        "a.jsonl": jsonl(codes),
        "a.jsonl.gz": jsonl(codes),
        "without_a_name": jsonl([{"source": en, "target": zh} for en, zh in PAIRS]),
        "wrong_name.txt": jsonl(codes),
        "a.csv": quoted(("id", "en", "zh"), ",") + "".join(quoted(("1", *pair), ",") for pair in PAIRS),
        "semicolon.csv": quoted(("source", "target"), ";") + "".join(quoted(pair, ";") for pair in PAIRS),
        "header.tsv": "EN-us\tzh-CN\n" + "".join("\t".join(pair) + "\n" for pair in PAIRS),
        "plain.tsv": "".join("\t".join(pair) + "\n" for pair in PAIRS),
        "plain.tsv.gz": "".join("\t".join(pair) + "\r\n" for pair in PAIRS),
        "tabs.txt": "\ufeff" + "\n".join("\t".join(pair) for pair in PAIRS),
    }


@pytest.mark.parametrize("name", the_same_pairs())
def test_every_format_gives_the_same_pairs(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, the_same_pairs()[name])
    reading = read_pairs([path])
    pairs = list(reading)
    assert [(pair.source, pair.target) for pair in pairs] == PAIRS
    assert {(pair.source_language, pair.target_language) for pair in pairs} == {("en", "zh")}
    source = reading.sources[0]
    assert (source.records, source.problems, reading.problem_count) == (3, 0, 0)
    assert source.compression == ("gzip" if name.endswith(".gz") else "")
    assert source.format in source.describe() and "3 records" in source.describe()
    assert task_of([path]) == "pairs"
    assert [pair.origin for pair in reading] == [pair.origin for pair in pairs]  # read again, read the same


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"en": [en for en, _ in PAIRS], "zh": [zh for _, zh in PAIRS]}), path)
    assert [(pair.source, pair.target) for pair in read_pairs([path])] == PAIRS
    labelled = tmp_path / "noname"
    parquet.write_table(pyarrow.table({"text": ["a", "b"], "labels": [["x", "y"], []]}), labelled)
    assert [record.labels for record in read_labelled([labelled])] == [("x", "y"), ()]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="damaged Parquet"):
        read_pairs([path])


def test_directions_and_fields(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", jsonl([{"en": "Hello there", "zh": "你好", "de": "Hallo"}]))
    pair = next(iter(read_pairs([path], source_language="zh", target_language="de")))
    assert (pair.source, pair.target, pair.source_language, pair.target_language) == (
        "你好",
        "Hallo",
        "zh",
        "de",
    )
    pair = next(iter(read_pairs([path], fields={"source": "de", "target": "en"})))
    assert (pair.source_language, pair.target_language) == ("de", "en")
    with pytest.raises(DataError, match="en, zh, de"):
        read_pairs([path])
    with pytest.raises(DataError, match=r'"fr" is not known.*Valid: en, zh, de'):
        read_pairs([path], fields={"source": "fr", "target": "en"})
    with pytest.raises(ConfigError, match="klingon"):
        read_pairs([path], source_language="klingon")
    with pytest.raises(ConfigError, match="both en"):
        read_pairs([path], source_language="en", target_language="en-US")
    with pytest.raises(ConfigError, match="Valid: source, target"):
        read_pairs([path], fields={"text": "en"})
    two = write(tmp_path / "two.jsonl", jsonl([{"en": "Hello", "zh": "你好"}]))
    assert next(iter(read_pairs([two], source_language="zh"))).source == "你好"
    with pytest.raises(DataError, match="columns en, zh"):
        read_pairs([two], source_language="en", target_language="fr")


def test_languages_are_told_from_the_text_and_reported(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "".join(f"{zh}\t{en}\n" for en, zh in PAIRS))
    reading = read_pairs([path])
    assert reading.sources[0].languages == ("zh", "en")
    assert "told from the text" in reading.sources[0].describe()
    mute = write(tmp_path / "mute.tsv", "1\t2\n3\t4\n")
    with pytest.raises(ConfigError, match="--from and --to"):
        read_pairs([mute])
    assert len(list(read_pairs([mute], source_language="en", target_language="zh"))) == 2


def test_aligned_files(tmp_path: Path) -> None:
    write(tmp_path / "c.en.gz", "one\n\ntwo\nthree\n")
    write(tmp_path / "c.de.gz", b"eins\n\nzw\xffei\ndrei")
    reading = read_pairs([tmp_path / "c.{en,de}.gz"])
    assert [(pair.source, pair.target) for pair in reading] == [("one", "eins"), ("three", "drei")]
    assert [problem.line for problem in reading.problems] == [3]
    assert reading.sources[0].languages == ("en", "de")
    back = next(iter(read_pairs([tmp_path / "c.{en,de}.gz"], source_language="de", target_language="en")))
    assert (back.source, back.target) == ("eins", "one")
    assert task_of([tmp_path / "c.{en,de}.gz"]) == "pairs"
    with pytest.raises(DataError, match="Valid: en, de"):
        read_pairs([tmp_path / "c.{en,de}.gz"], source_language="fr")
    with pytest.raises(DataError, match=r"c\.fr\.gz does not exist"):
        read_pairs([tmp_path / "c.{en,fr}.gz"])
    write(tmp_path / "c.de.gz", "eins\n\nzwei\n")
    with pytest.raises(DataError, match=r"4 lines but .* 3"):
        read_pairs([tmp_path / "c.{en,de}.gz"])
    with pytest.raises(DataError, match="plain text without columns"):
        read_pairs([tmp_path / "c.en.gz"])


def test_labelled_texts(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": "good", "label": "pos"}, {"text": "坏", "label": 0}]
    assert [r.labels for r in read_labelled([write(tmp_path / "a.jsonl", jsonl(rows))])] == [("pos",), ("0",)]
    many: list[dict[str, object]] = [{"text": "x", "labels": ["a", "b", "a"]}, {"text": "y", "labels": []}]
    assert [r.labels for r in read_labelled([write(tmp_path / "b.jsonl", jsonl(many))])] == [("a", "b"), ()]
    path = write(tmp_path / "c.csv", 'text,label\n"two\nlines, one field",pos\nplain,neg\n')
    records = list(read_labelled([path]))
    assert [(r.text, r.labels) for r in records] == [("two\nlines, one field", ("pos",)), ("plain", ("neg",))]
    assert [r.origin.rsplit(":", 1)[1] for r in records] == ["2", "4"]
    path = write(tmp_path / "d.csv", "text,labels\nx,a|b\ny,\n")
    assert [r.labels for r in read_labelled([path])] == [("a", "b"), ()]
    path = write(tmp_path / "e.jsonl", jsonl([{"body": "x", "topic": "t"}]))
    assert task_of([path], {"text": "body", "label": "topic"}) == "labelled"
    assert next(iter(read_labelled([path], fields={"text": "body", "label": "topic"}))).labels == ("t",)
    with pytest.raises(DataError, match="columns body, topic"):
        read_labelled([path])
    with pytest.raises(ConfigError, match="must name text and label"):
        read_labelled([path], fields={"text": "body"})


@pytest.mark.parametrize("first", [True, False])
def test_two_columns_without_header_may_hold_labels(tmp_path: Path, first: bool) -> None:
    rows = [(f"this is the text number {at}", "spam" if at % 3 else "ham") for at in range(12)]
    text = "".join("\t".join(reversed(row) if first else row) + "\n" for row in rows)
    path = write(tmp_path / "a.tsv", text)
    reading = read_labelled([path])
    assert [(r.text, r.labels[0]) for r in reading] == rows
    assert "taken for the label" in reading.sources[0].describe()
    assert task_of([path]) == "labelled"


def test_documents(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.txt", "First, a line.\n\n第二行，有逗号。\n")
    reading = read_documents([plain])
    assert [(d.text, d.origin) for d in reading] == [
        ("First, a line.", f"{plain}:1"),
        ("第二行，有逗号。", f"{plain}:3"),
    ]
    assert reading.problem_count == 0
    assert task_of([plain]) == "documents"
    path = write(tmp_path / "b.jsonl", jsonl([{"text": "x\ny", "title": "t"}]))
    assert [d.text for d in read_documents([path, plain])][:2] == ["x\ny", "First, a line."]
    with pytest.raises(DataError, match="`text` field"):
        read_documents([write(tmp_path / "c.jsonl", jsonl([{"body": "x"}]))])


def test_bad_lines_are_named_and_passed_over(tmp_path: Path) -> None:
    lines = [
        b'{"en": "one", "zh": "\xe4\xb8\x80"}',
        b'{"en": "broken',
        b'{"en": "no target"}',
        b'{"en": 5, "zh": "x"}',
        b'{"en": "", "zh": "x"}',
        b"[1, 2]",
        b'{"en": "bad \xff byte", "zh": "x"}',
        b'{"en": "nul \x00 byte", "zh": "x"}',
        b"",
        b"[" * 100000,
        b'{"en": "two", "zh": "\xe4\xba\x8c"}',
    ]
    path = write(tmp_path / "a.jsonl", b"\n".join(lines))
    reading = read_pairs([path])
    assert [pair.source for pair in reading] == ["one", "two"]
    assert [problem.line for problem in reading.problems] == [2, 3, 4, 5, 6, 7, 8, 10]
    wrong = {problem.line: problem.what for problem in reading.problems}
    for line, words in {
        2: "is not JSON",
        3: 'has no field "zh"',
        4: "not a text but 5",
        5: '"en" is empty',
        6: "not a JSON object but a list",
        7: "not valid UTF-8: byte 0xff",
        8: "NUL",
        10: "not",
    }.items():
        assert words in wrong[line]
    assert str(reading.problems[0]).startswith(f"{path}:2: ")
    assert reading.sources[0].problems == reading.problem_count == 8
    with pytest.raises(DataError, match=r"a\.jsonl:2: .*--strict"):
        list(read_pairs([path], strict=True))


def test_bad_rows_of_tables(tmp_path: Path) -> None:
    tsv = write(
        tmp_path / "a.tsv",
        "source\ttarget\n" + "\t".join(PAIRS[0]) + "\none\ntoo\tmany\there\n" + "\t".join(PAIRS[1]),
    )
    reading = read_pairs([tsv])
    assert [pair.source for pair in reading] == [PAIRS[0][0], PAIRS[1][0]]
    assert [str(problem) for problem in reading.problems] == [
        f"{tsv}:3: has 1 fields, not 2 (source, target)",
        f"{tsv}:4: has 3 fields, not 2 (source, target)",
    ]
    labelled = write(
        tmp_path / "a.jsonl",
        jsonl([{"text": "a", "label": "x"}, {"text": "b", "label": None}, {"text": "c", "label": {"a": 1}}]),
    )
    bad = read_labelled([labelled])
    assert len(list(bad)) == 1
    assert "not a label but null" in bad.problems[0].what


def test_a_huge_line_is_passed_over_without_being_held(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "huge.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"text": "before"}\n{"text": "')
        for _ in range(200):
            file.write(b"a" * (1 << 20))
        file.write(b'"}\n{"text": "after"}\n')
    tracemalloc.start()
    reading = read_documents([path])
    texts = [document.text for document in reading]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert texts == ["before", "after"]
    assert reading.problems == [Problem(str(path), 2, reading.problems[0].what)]
    assert "too long: 209,715,212 bytes" in reading.problems[0].what
    assert peak < 16 * LINE_LIMIT


def test_a_file_that_is_one_huge_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "x" * (3 * LINE_LIMIT))
    with pytest.raises(DataError, match=r"no usable record: 1 bad lines.*too long"):
        list(read_documents([path]))


def test_an_unclosed_quotation_mark_is_a_problem(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv", 'text,label\ngood,x\n"never closed,y\n' + "filler words here,z\n" * 10000
    )
    reading = read_labelled([path])
    records = list(reading)
    assert records[0].text == "good"
    assert reading.problem_count >= 1 and "quotation mark" in reading.problems[0].what
    assert reading.problems[0].line == 3


REFUSED = {
    "empty.jsonl": (b"", "is empty"),
    "blank.txt": (b" \n\n\t\n", "only white space"),
    "image.jsonl": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "PNG image"),
    "word.csv": (b"PK\x03\x04" + bytes(200), "ZIP archive"),
    "binary": (bytes(range(256)) * 20, "binary file"),
    "wide.tsv": ("source\ttarget\n".encode("utf-16"), "UTF-16.*iconv"),
    "latin.txt": ("café crème\nnoël été\n".encode("latin-1") * 20, "unknown encoding.*iconv"),
    "array.json": (b'[{"text": "a", "label": "b"}]', "one JSON document.*jq"),
    "notjson.jsonl": (b"hello\nworld\n", "not JSON Lines"),
    "zstd.jsonl": (b"\x28\xb5\x2f\xfd" + bytes(40), "zstd"),
    "cut.jsonl.gz": (gzip.compress(b'{"text": "a", "label": "b"}\n' * 1000)[:40], "damaged gzip"),
    "columns.jsonl": (b'{"a": 1, "b": 2}\n', "columns a, b, where"),
    "twice.csv": (b"text,label,text\na,b,c\n", "twice: text"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_file_is_refused_with_advice(tmp_path: Path, name: str) -> None:
    content, words = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_labelled([path])
    assert name.split(".")[0] in str(caught.value)


def test_missing_folder_and_forbidden(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_documents([tmp_path / "none"])
    with pytest.raises(DataError, match="is a folder"):
        read_documents([tmp_path])
    with pytest.raises(ConfigError, match="no file"):
        read_documents([])
    if os.geteuid() != 0:
        path = write(tmp_path / "a.txt", "x")
        path.chmod(0)
        with pytest.raises(DataError, match="permission"):
            read_documents([path])


def test_gzip_damaged_in_the_middle(tmp_path: Path) -> None:
    import random

    noise = random.Random(1)
    lines = "".join(json.dumps({"text": str(noise.random())}) + "\n" for _ in range(60000))
    packed = gzip.compress(lines.encode())
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match="damaged after line"):
        list(read_documents([path]))


def test_gb18030_is_read_and_reported(tmp_path: Path) -> None:
    text = "text,label\n" + "这家饭店的菜很好吃，服务也好。,好评\n送餐太慢，味道一般。,差评\n" * 5
    path = write(tmp_path / "a.csv", text.encode("gb18030"))
    reading = read_labelled([path])
    assert [record.labels[0] for record in reading][:2] == ["好评", "差评"]
    assert "gb18030" in reading.sources[0].describe() and "guessed" in reading.sources[0].describe()


@pytest.mark.parametrize("rows", [1, 2])
def test_a_book_in_a_line_is_told(rows: int, tmp_path: Path) -> None:
    """A first line longer than what is looked at to tell a format (such as a novel in one JSON object)."""
    book = "It was a dark and stormy night. 那是一个风雨交加的夜晚。" * 6_000
    path = write(tmp_path / "books.jsonl.gz", jsonl([{"text": book}] * rows))
    assert [document.text for document in read_documents([path])] == [book] * rows
    for start in ("", "{"):  # no JSON after all
        plain = write(tmp_path / "book.txt", start + book)
        assert [document.text for document in read_documents([plain])] == [start + book]


def test_plain_text_with_commas_is_not_csv(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "Well, yes\nNo, not now\n")
    assert read_documents([path]).sources[0].format == "text"


def test_real_files_are_read() -> None:
    folder = os.environ.get("INKSTONE_DATA")
    if not folder:
        pytest.skip("INKSTONE_DATA is not set: no real files here")
    data = Path(folder)
    assert sum(1 for _ in read_pairs([data / "tatoeba_en_zh/train.jsonl.gz"])) == 24838
    aligned = read_pairs([data / "multi30k/tok.train.{en,de}.gz"])
    assert sum(1 for _ in aligned) == 29000 and aligned.problem_count == 0
