"""Text to sentences, without losing a character: `"".join(split_sentences(text)) == text`.

Own rules for Chinese and English rather than a library: the quick
ones split before a closing ”, and the careful one is slow. A sentence owns what closes it and the space
after it:

    “你好。”│他说。│Mr. Smith paid 3.50 at 5 p.m. in the U.S. │"Really?" he asked. │He did.

A border is a mark (。！？!?. … or an ellipsis), then any closing quotes and brackets, unless
  - a full stop belongs to a number, a word or an abbreviation, or the next word begins with a small letter;
  - an ellipsis is a pause: …… in Chinese ends a sentence only at the end of a line or before a space,
    ... in English only before a capital;
  - the mark stands inside a bracket that the sentence opened earlier: 他（真的！）来了。
An empty line is a border, and so is a single line break, but for one inside a wrapped sentence: the line
before has no end and the next begins with a small letter.

A straight " is taken as closing when the sentence holds an odd number of them so far. Where a rule cannot
know ("in the U.S. The court"), the next word decides: The, He, In… begin sentences more often than names.
"""

from __future__ import annotations

import re

from inkstone.text.language import HAN, KANA

_CANDIDATE = re.compile(r"[.!?。！？｡…‥؟۔।॥]+|\n\s*")
_CLOSERS = "”’」』〉》）】〕］｝〗〙»›)]}\"'"
_BRACKETS = {"（": "）", "(": ")", "[": "]", "【": "】", "〔": "〕"}
_WIDE = re.compile(f"[{HAN}{KANA}\u3000-\u303f\uff00-\uffef“‘]")
_WIDE_ENDS = "。！？｡"


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Never the end: a name, a number or an example follows.
_BEFORE_NAME = _listed(
    """mr mrs ms mx dr prof rev hon gen col capt lt sgt gov sen rep pres st mt ft messrs mme mlle vs cf
    e.g i.e viz approx ca al. ed eds trans
    """
)
_BEFORE_NUMBER = _listed(
    """no nos nr fig figs eq eqs sec ch vol vols art p pp para tab jan feb mar apr jun jul aug sep sept
    oct nov dec
    """
)
# The end only when the next word looks like a beginning.
_EITHER = _listed(
    """etc inc ltd co corp jr sr llc plc a.m p.m u.s u.k u.n e.u d.c ph.d m.d b.a m.a dept est al bros
    """
)
_STARTERS = _listed(
    """The A An This That These Those There Here It He She We They You His Her Its Our Their My Your If
    When While Although But And Or So However Then In On At For From With As After Before What Why How Who
    Where Which Is Are Was Were Do Does Did Can Could Will Would Should Not No Yes Please Let Some Many
    Most All Both Each One Another
    """
)
_LAST_TOKEN = re.compile(r"[\w.’'-]*\Z")
_NEXT_WORD = re.compile(r"[^\W\d_]+")
_LOOK_BACK = 40  # characters that an abbreviation may take
_REACH = 1000  # characters that a bracket or a quotation may hold; a bound keeps the whole linear


def split_sentences(text: str, language: str | None = None) -> list[str]:
    """The sentences of a text, each with the white space that follows it; joined they are the text again.

    language: "de" keeps ordinal numbers together (3. Oktober); the rules need no other hint.
    """
    pieces, start = [], 0
    for match in _CANDIDATE.finditer(text):
        if match.start() < start:
            continue
        end = _end_of(text, start, match, language)
        if end is not None and text[start:end].strip():
            pieces.append(text[start:end])
            start = end
    if start < len(text):
        if pieces and not text[start:].strip():
            pieces[-1] += text[start:]
        else:
            pieces.append(text[start:])
    return pieces


def sentence_spans(text: str, language: str | None = None) -> list[tuple[int, int]]:
    """Where each sentence begins and ends in the text, white space about it left out."""
    spans, at = [], 0
    for piece in split_sentences(text, language):
        lead = len(piece) - len(piece.lstrip())
        if piece.strip():
            spans.append((at + lead, at + len(piece.rstrip())))
        at += len(piece)
    return spans


def _end_of(text: str, start: int, match: re.Match[str], language: str | None) -> int | None:
    """Where the sentence that begins at `start` ends, if this candidate ends it."""
    mark = match.group()
    if mark[0] == "\n":
        return match.end() if _line_is_border(text, match) else None
    after = _past_closers(text, start, match.end())
    space = after
    while space < len(text) and text[space].isspace() and text[space] != "\n":
        space += 1
    if space == len(text) or text[space] == "\n":
        return None  # the line break or the end of the text is the border
    spaced, following = space > after, text[space]
    if _inside_bracket(text, start, match.end(), after):
        return None
    if mark[-1] in "…‥" or (len(mark) > 1 and mark.strip(".") == ""):
        border = (
            spaced and not following.islower() and (_WIDE.match(following) is not None or following.isupper())
        )
    elif mark[-1] in _WIDE_ENDS:
        border = True
    elif mark == "." and not _stop_is_border(text, start, match.start(), space, spaced, language):
        border = False
    else:
        border = (spaced or _WIDE.match(following) is not None) and not following.islower()
    return space if border else None


def _past_closers(text: str, start: int, at: int) -> int:
    """The place after the closing quotes and brackets that follow a mark."""
    while at < len(text) and text[at] in _CLOSERS:
        if text[at] == '"' and text.count('"', max(start, at - _REACH), at) % 2 == 0:
            break  # it opens the next sentence
        if text[at] == "'" and at + 1 < len(text) and text[at + 1].isalnum():
            break
        at += 1
    return at


def _inside_bracket(text: str, start: int, at: int, after: int) -> bool:
    """Whether the mark ends in a bracket that the sentence opened after its first words."""
    first = start
    while first < len(text) and text[first].isspace():
        first += 1
    for opening, closing in _BRACKETS.items():
        place = text.rfind(opening, max(first, at - _REACH), at)
        if place > first and text.find(closing, place, at) < 0 and closing in text[at : max(after, at + 200)]:
            return True
    return False


def _stop_is_border(text: str, start: int, dot: int, space: int, spaced: bool, language: str | None) -> bool:
    """Whether a single full stop can end a sentence: no abbreviation, no initial, no number of a list."""
    before = _LAST_TOKEN.search(text, max(start, dot - _LOOK_BACK), dot)
    token = before.group() if before else ""
    if not spaced:  # 版本1.中文 or name.属性 is no border, 好.然后 is
        return bool(token) and _WIDE.match(token[-1]) is not None
    following = _NEXT_WORD.match(text, space)
    begins = following is not None and following.group() in _STARTERS
    low = token.lower()
    if low in _BEFORE_NAME:
        return False
    if low in _BEFORE_NUMBER and text[space].isdigit():
        return False
    if token.isdigit() and (
        language == "de" or not text[start : min(dot - len(token), start + _LOOK_BACK)].strip()
    ):
        return False  # "1. First": the number of a list
    if low in _EITHER or (len(token) == 1 and token.isupper() and token.isascii()):
        return begins or _WIDE.match(text[space]) is not None
    if re.fullmatch(r"(?:[A-Za-z]\.)+[A-Za-z]", token):
        return begins
    return True


def _line_is_border(text: str, match: re.Match[str]) -> bool:
    if match.group().count("\n") > 1 or match.end() == len(text):
        return True
    before, following = text[match.start() - 1 : match.start()], text[match.end()]
    goes_on = (before.isalnum() and not _WIDE.match(before)) or before in ",;:"
    return not (following.islower() and goes_on)
