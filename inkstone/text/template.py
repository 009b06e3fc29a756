"""How a task's input becomes token ids. One renderer below both training and serving, so that they cannot disagree.

*Translation.* A source is `<2en> tokens… </s>`: the tag names the language to translate into (Johnson et al., 2017). A
model of a single direction has no tags in its tokenizer, and its sources none.

*Conversations.* A chat model comes with a template, a small Jinja program that writes messages as the text it was trained
on. `ChatTemplate` runs it in the house's sandbox (`text/sandbox.py`) with what `transformers` gives to templates, and
gives the same text. A model without a template gets `DEFAULT_CHAT_TEMPLATE`, in the form of ChatML.

Two things are told apart that are both text in the end: what the template writes and what a person typed. Somebody who
types "<|im_end|><|im_start|>system" must not open a turn of the system, so the names of special tokens in messages are
marked before rendering, and `encode_chat` spells them in letters. And what the assistant said is marked too, since
training counts only that: by the template's own {% generation %} blocks, or, where it has none, by rendering the
conversation up to each answer and with it, which works as long as the template does not rewrite earlier turns; if it
does, that is said. The marks are Unicode noncharacters (U+FDD0 to U+FDD2), which no text may contain.

    text      <|im_start|>assistant\\n  你好<|im_end|>  \\n…
    spans                              [             )
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inkstone.ground.errors import ConfigError, DataError, not_known, raise_all, require
from inkstone.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from inkstone.text.foreign_tokenizer import ForeignTokenizer

ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython")
_START, _END, _BREAK = "\ufdd0", "\ufdd1", "\ufdd2"
_MARKS = re.compile("([\ufdd0-\ufdd2])")
_REASONING = ("reasoning_content", "thinking", "reasoning")
_MAX_DEPTH = 50
CHATML = ("<|im_start|>", "<|im_end|>")
DEFAULT_CHAT_TEMPLATE = """\
{%- for message in messages -%}
    {%- if message.role not in ["system", "user", "assistant"] -%}
        {{- raise_exception("the role " + message.role + " is not known. Valid: system, user, assistant") -}}
    {%- elif message.content is not string -%}
        {{- raise_exception("the content of a message must be a text") -}}
    {%- endif -%}
    {{- "<|im_start|>" + message.role + "\\n" -}}
    {%- if message.role == "assistant" -%}
        {%- generation -%}{{- message.content + "<|im_end|>" -}}{%- endgeneration -%}
    {%- else -%}
        {{- message.content + "<|im_end|>" -}}
    {%- endif -%}
    {{- "\\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- "<|im_start|>assistant\\n" -}}
{%- endif -%}
"""


def language_tag(language: str) -> str:
    """The special token that asks for a target language."""
    return f"<2{language}>"


def tags_for(directions: Iterable[tuple[str, str]]) -> list[str]:
    """The tags a tokenizer needs for these directions: one per target language, none for a single direction."""
    directions = list(directions)
    return (
        [] if len(directions) == 1 else [language_tag(code) for code in sorted({to for _, to in directions})]
    )


def translation_sources(tokenizer: Tokenizer, texts: Sequence[str], target_language: str) -> list[list[int]]:
    """The source ids of texts to be translated into a language, complete with their marks."""
    tag = language_tag(target_language)
    start = [tokenizer.id_of(tag)] if tag in tokenizer.specials else []
    return [[*start, *ids, tokenizer.eos_id] for ids in tokenizer.encode_batch(texts)]


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """A conversation as text.

    spans: (from, to) of what the assistant said, in characters; None where the template does not tell.
    breaks: places inside of names of special tokens that a person typed, where no token may go over.
    """

    text: str
    spans: tuple[tuple[int, int], ...] | None
    breaks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class EncodedChat:
    """A conversation as token ids; said[i] tells whether the assistant said token i."""

    ids: list[int]
    said: list[bool]


class ChatTemplate:
    """A chat template, compiled. Make one with `of`.

    >>> chat = ChatTemplate.of(tokenizer)
    >>> chat.render([{"role": "user", "content": "Hello"}], add_generation_prompt=True).text
    '<|im_start|>user\\nHello<|im_end|>\\n<|im_start|>assistant\\n'
    """

    def __init__(self, source: str, names: Mapping[str, str], guarded: Iterable[str]) -> None:
        """source: Jinja. names: what it may ask for ("bos_token" -> "<s>"). guarded: names of special tokens.

        Raises DataError with the line where the template is no Jinja, or uses what is not there.
        """
        require("jinja2", "chat templates", "serve")
        from jinja2.exceptions import TemplateSyntaxError

        from inkstone.text.sandbox import SandboxEnvironment

        self.source = source
        self.names = dict(names)
        self.marks_answers = re.search(r"\{%[-+]?\s*generation\s*[-+]?%\}", source) is not None
        guarded = {name for name in guarded if len(name) > 1}
        # Where the marks of the house's own template are no special tokens, they cannot be told from typed ones.
        self._refused = tuple(set(CHATML) - guarded) if source is DEFAULT_CHAT_TEMPLATE else ()
        longest_first = sorted(guarded, key=len, reverse=True)
        self._guarded = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        if _MARKS.search(source):
            raise DataError(
                "the chat template contains Unicode noncharacters (U+FDD0 to U+FDD2). Take them out."
            )
        self._environment = SandboxEnvironment((_START, _END, _BREAK))
        self._lock = threading.Lock()
        try:
            self._compiled = self._environment.from_string(source)
        except TemplateSyntaxError as error:
            raise DataError(
                f"the chat template is not valid, line {error.lineno}: {error.message}."
            ) from error
        except (RecursionError, SyntaxError, ValueError) as error:
            raise DataError(f"the chat template cannot be compiled: {error}.") from error

    @classmethod
    def of(cls, tokenizer: ForeignTokenizer, name: str | None = None) -> ChatTemplate:
        """The template of a tokenizer; the house's own where it has none.

        name: which of several ("default", "tool_use"). Raises ConfigError for one that is not there.
        """
        templates = tokenizer.chat_templates
        if name is not None and name not in templates:
            raise ConfigError(not_known("chat template", name, templates or ["(none)"]))
        if not templates:
            return cls(DEFAULT_CHAT_TEMPLATE, tokenizer.names, tokenizer.specials)
        if name is None and "default" not in templates:
            raise ConfigError(f"the tokenizer has several chat templates. Name one: {', '.join(templates)}.")
        return cls(templates[name or "default"], tokenizer.names, tokenizer.specials)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> RenderedChat:
        """Write a conversation as the model knows it.

        messages: in the OpenAI form, role and content (or tool_calls). add_generation_prompt: end where the assistant
        begins to speak. options: further variables of the template ("enable_thinking").
        Raises DataError for messages that are none (all of them listed), for a conversation that the template refuses,
        and for a template that goes beyond the limits of the sandbox.
        """
        given = {"messages": messages, "tools": tools, "documents": documents, **options}
        raise_all(
            DataError, "the conversation cannot be rendered", _conversation_problems(given, self._refused)
        )
        plain = {name: self._plain(value) for name, value in given.items()}
        plain["messages"] = [_with_reasoning(message) for message in plain["messages"]]
        plain["add_generation_prompt"] = add_generation_prompt
        text, spans, breaks = _unmarked(self._run({**self.names, **plain}))
        return RenderedChat(text, tuple(spans) if self.marks_answers else None, tuple(breaks))

    def render_with_spans(self, messages: Sequence[Mapping[str, Any]], **given: Any) -> RenderedChat:
        """The same of a whole conversation, and always with the spans of what the assistant said.

        Raises DataError where the template has no {% generation %} blocks and writes a turn otherwise when others follow.
        """
        whole = self.render(messages, **given)
        if whole.spans is not None:
            return whole
        spans: list[tuple[int, int]] = []
        for at, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self.render(messages[:at], add_generation_prompt=True, **given).text if at else ""
            after = self.render(messages[: at + 1], **given).text
            if not (whole.text.startswith(after) and after.startswith(before)):
                raise DataError(
                    f"the chat template does not tell what the assistant said: it has no {{% generation %}} block, and "
                    f"writes the turns up to message {at} otherwise when others follow. Add the block to the template."
                )
            spans.append((len(before), len(after.rstrip("\n"))))
        return RenderedChat(whole.text, tuple(spans), whole.breaks)

    def _run(self, variables: dict[str, Any]) -> str:
        from jinja2.exceptions import SecurityError, TemplateError

        from inkstone.text.sandbox import Exceeded

        try:
            with self._lock:
                self._environment.begin(variables)
                context = self._compiled.new_context(variables)
                return self._environment.joined(self._compiled.root_render_func(context))
        except Exceeded as error:
            raise DataError(f"the chat template was stopped: it wants {error.message}.") from error
        except SecurityError as error:
            raise DataError(f"the chat template was stopped: {error.message}.") from error
        except TemplateError as error:
            raise DataError(f"the chat template refuses this conversation: {error.message}.") from error
        except (RecursionError, MemoryError) as error:
            raise DataError("the chat template was stopped: it goes too deep.") from error
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise DataError(f"the chat template fails on this conversation: {error}.") from error

    def _plain(self, value: Any) -> Any:
        """A copy in which the names of special tokens are broken."""
        if isinstance(value, str):
            return self._guarded.sub(lambda found: found[0][0] + _BREAK + found[0][1:], value)
        if isinstance(value, Mapping):
            return {self._plain(key): self._plain(child) for key, child in value.items()}
        return [self._plain(child) for child in value] if isinstance(value, list | tuple) else value


def encode_chat(tokenizer: ForeignTokenizer, rendered: RenderedChat) -> EncodedChat:
    """The ids of a rendered conversation. The template has written all marks, so none are added.

    A token counts as said by the assistant when any of its characters was.
    """
    cut = tokenizer.cut(rendered.text, rendered.breaks)
    said = [False] * len(cut.ids)
    spans = list(rendered.spans or ())
    for at, (start, end) in enumerate(cut.offsets):
        while spans and spans[0][1] <= start:
            spans.pop(0)
        said[at] = bool(spans) and start < spans[0][1] and max(end, start + 1) > spans[0][0]
    return EncodedChat(cut.ids, said)


def _unmarked(marked: str) -> tuple[str, list[tuple[int, int]], list[int]]:
    """(text, spans of the assistant, breaks) of a text with marks in it."""
    pieces: list[str] = []
    spans: list[tuple[int, int]] = []
    breaks: list[int] = []
    length, opened = 0, None
    for piece in _MARKS.split(marked):
        if piece == _BREAK:
            breaks.append(length)
        elif piece == _START:
            opened = length
        elif piece == _END:
            if opened is None:
                raise DataError(
                    "the chat template takes a {% generation %} block apart. Correct the template."
                )
            spans.append((opened, length))
            opened = None
        else:
            pieces.append(piece)
            length += len(piece)
    if opened is not None:
        raise DataError("the chat template takes a {% generation %} block apart. Correct the template.")
    return "".join(pieces), spans, breaks


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """What a model thought goes by several names; templates get it under those they ask for, as in `transformers`."""
    message = {key: value for key, value in message.items() if value is not None}
    reasoning = next((message[name] for name in _REASONING if name in message), None)
    return (
        message if reasoning is None else {"thinking": reasoning, **message, "reasoning_content": reasoning}
    )


def _conversation_problems(given: Mapping[str, Any], refused: Sequence[str]) -> list[str]:
    messages = given["messages"]
    if isinstance(messages, str) or not isinstance(messages, Sequence) or not messages:
        return ["there are no messages. Give a list of objects with role and content"]
    problems: list[str] = []
    for at, message in enumerate(messages):
        if not isinstance(message, Mapping):
            problems.append(f"message {at} is no object with role and content")
            continue
        if message.get("role") not in ROLES:
            problems.append(f"message {at}: {not_known('role', message.get('role'), ROLES)}")
        content = message.get("content")
        if content is None and not message.get("tool_calls"):
            problems.append(f"message {at} has no content")
        elif not isinstance(content, str | list | tuple | None):
            problems.append(f"message {at}: content is neither a text nor a list of parts")
        found = [name for name in refused if isinstance(content, str) and name in content]
        if found:
            problems.append(f"message {at} contains {', '.join(found)}, which this model's turns are made of")
    for name, value in given.items():
        problems += _data_problems(value, name)
    return problems


def _data_problems(value: Any, where: str, depth: int = 0) -> list[str]:
    """What is no plain data, or text that no text may be."""
    if depth > _MAX_DEPTH:
        return [f"{where[:60]}… is nested deeper than {_MAX_DEPTH} levels"]
    if value is None or isinstance(value, bool | int | float):
        return []
    if isinstance(value, str):
        if _MARKS.search(value):
            return [f"{where} contains Unicode noncharacters (U+FDD0 to U+FDD2)"]
        return [f"{where} is not valid Unicode: half of a surrogate pair"] if _has_surrogate(value) else []
    if isinstance(value, Mapping):
        return [
            problem
            for key, child in value.items()
            for problem in (
                *_data_problems(key, f"a key of {where}"),
                *_data_problems(child, f"{where}.{key}", depth + 1),
            )
        ]
    if isinstance(value, list | tuple):
        return [
            problem
            for at, child in enumerate(value)
            for problem in _data_problems(child, f"{where}[{at}]", depth + 1)
        ]
    return [f"{where} is a {type(value).__name__}. Valid: texts, numbers, lists and objects"]


def _has_surrogate(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
