"""Jinja for templates that strangers wrote: sandboxed, and bounded in steps, time and size.

A chat template comes with a checkpoint and is a program. Jinja's `ImmutableSandboxedEnvironment` keeps it from Python's
inner attributes and from changing what it is given. It does not keep it from running for ever or from filling the memory:
loops nest, `x ~ x` doubles in each round, `"%9999999999d" % 1` is one expression. Here

  - the environment has nothing but what `transformers` gives to templates: no loader, no lipsum, no cycler;
  - every round of a loop and every call of a macro is a step, and steps and seconds are limited;
  - every operation, filter, call, joining of texts and list display is checked: before, where its size can be told from
    what goes in; after, otherwise; so no value grows beyond the limit by more than one cheap operation;
  - nothing is computed while compiling (the optimizer would run `10 ** 10 ** 10` at that moment).

A template that goes over a limit gets `Exceeded`, with what it did. The limits stand far above what templates in use
need (a conversation of a thousand turns takes some thousand steps). What goes in should be plain data: see `template.py`.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes as nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_context

MAX_STEPS = 200_000
MAX_SECONDS = 5.0
MAX_SIZE = 4_000_000  # characters of a text, or of a list with all that is in it
MAX_DEPTH = 100  # of lists within lists
_ENTRY = 16  # characters that each entry of a list counts besides its own
MAX_TOTAL = 64_000_000  # characters of all texts made in one rendering
MAX_BITS = 10_000  # of a whole number
FILTERS = frozenset(
    """abs attr batch capitalize count d default dictsort e escape first float format groupby indent int items join
    last length list lower map max min reject rejectattr replace reverse round safe select selectattr slice sort string
    sum title tojson trim truncate unique upper wordcount""".split()  # noqa: SIM905  one a line would be a page
)
# Widths of formatted values: "%*d" and "{:{}}" take them from what is formatted, five digits are too wide.
_WIDTH = re.compile(r"%(?:\([^)]*\))?[-+ #0_^]*\d*(?:\.\d*)?(?:\*|(?<=\d{5}))|\{[^{}]*(?:\{|\d{5})")
_PADDING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs"})


class Exceeded(TemplateError):
    """A template that wanted more steps, time or space than it gets."""


class SandboxEnvironment(ImmutableSandboxedEnvironment):
    """The environment of one compiled template. `begin` before each rendering; not for two renderings at once."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, marks: tuple[str, str, str]) -> None:
        """marks: two characters put around what stands between {% generation %} and {% endgeneration %}, and one that
        stands inside of broken names; it comes out of `tojson` as it went in."""
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            finalize=_finalize,
            cache_size=0,
            extensions=[_Generation, jinja2.ext.loopcontrols],
        )
        self.marks = marks
        self.steps, self.spent, self.deadline = 0, 0, 0.0
        self.sizes: dict[int, int] = {}
        self.concat = self.joined  # type: ignore[method-assign]
        self.globals = {
            "range": self._range,
            "dict": _Dict(),
            "namespace": _SafeNamespace,
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }
        self.filters = {name: self._bounded(name, self.filters[name]) for name in FILTERS}
        self.filters["tojson"] = self._bounded("tojson", self._to_json)

    def begin(self, given: Any) -> None:
        """A new rendering: all limits anew. given: all the data the template sees; its lists are counted only once."""
        self.steps, self.spent, self.deadline = 0, 0, time.monotonic() + MAX_SECONDS
        self.sizes = {}
        self.kept(given)
        self._remember(given)

    def _remember(self, value: Any) -> int:
        size = _own_size(value) + sum(map(self._remember, _children(value)))
        if isinstance(value, list | tuple | dict):
            self.sizes[id(value)] = size
        return size

    # What compiled templates call ----------------------------------------------------------------------------------

    def tick(self) -> str:
        """One step."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise Exceeded(f"more than {MAX_STEPS:,} steps")
        if time.monotonic() > self.deadline:
            raise Exceeded(f"more than {MAX_SECONDS:g} seconds")
        return ""

    def kept(self, value: Any) -> Any:
        """Check the size of a value, and hand it on."""
        if type(value) is str:  # nearly always
            _refuse_above(len(value), "a text")
            return value
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise Exceeded(f"a number of more than {MAX_BITS:,} bits")
        if isinstance(value, _SIZED):
            _refuse_above(self._size(value, MAX_SIZE), "a text" if isinstance(value, str) else "a list")
        return value

    def made(self, value: Any) -> Any:
        """The same for what the template has just made: texts are counted together."""
        if isinstance(value, str):
            self.spent += len(value)
            _refuse_above(self.spent, "texts together", MAX_TOTAL)
        return self.kept(value)

    def _size(self, value: Any, limit: int, depth: int = 0) -> int:
        """Characters and entries of a value with all that is in it, counted until the limit is passed."""
        known = self.sizes.get(id(value))
        if known is not None:
            return known
        if type(value) is str:
            return _ENTRY + len(value)
        _refuse_above(depth, "nesting", MAX_DEPTH)
        size = _own_size(value)
        for child in _children(value):
            if size > limit:
                break
            size += self._size(child, limit - size, depth + 1)
        return size

    def joined(self, parts: Iterable[Any]) -> str:
        """Texts put together, if they are not too long together."""
        texts: list[str] = []
        size = 0
        for text in parts:
            size += len(text)
            _refuse_above(size, "a text")
            texts.append(text)
        return "".join(texts)

    def concatenated(self, *values: Any) -> str:
        """The operator ~."""
        self.tick()
        texts = [str(self.kept(value)) for value in values]
        return str(self.made(self.joined(texts)))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.tick()
        self._check_operands(operator, left, right)
        return self.made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        # The double underscores are Jinja's own: a template may name an argument "self".
        __self.tick()
        for value in (*args, *kwargs.values()):
            __self.kept(value)
        _check_call(__obj, args)
        return __self.made(super().call(__context, __obj, *args, **kwargs))

    def getattr(self, obj: Any, attribute: str) -> Any:
        return _told(super().getattr(obj, attribute))

    def getitem(self, obj: Any, argument: Any) -> Any:
        return _told(super().getitem(obj, argument))

    def _check_operands(self, operator: str, left: Any, right: Any) -> None:
        whole = isinstance(left, int) and isinstance(right, int)
        if operator == "**" and whole and abs(left) > 1:
            _refuse_above(abs(right) * left.bit_length(), "a power", MAX_BITS)
        elif operator == "*" and not whole:
            for sized, count in ((left, right), (right, left)):
                if isinstance(sized, _SIZED) and isinstance(count, int):
                    _refuse_above(self._size(sized, MAX_SIZE) * max(count, 0), "a repetition")
        elif operator == "%" and isinstance(left, str):
            _check_format(left)

    # How it is built -------------------------------------------------------------------------------------------------

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _instrument(tree)
        return tree

    def _range(self, *bounds: int) -> range:
        found = range(*bounds)
        _refuse_above(len(found), "a range", MAX_STEPS)
        return found

    def _bounded(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)  # keeps Jinja's mark of what the filter wants passed
        def bounded(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            for value in (*args, *kwargs.values()):
                self.kept(value)
            given = [_materialised(value) for value in args]
            _check_filter(name, [value for value in given if not isinstance(value, _JINJA)], kwargs)
            result = call(*given, **kwargs)
            return self.made(self._listed(result) if isinstance(result, Iterator) else result)

        return bounded

    def _listed(self, values: Iterable[Any]) -> list[Any]:
        """All of what a filter would give one by one, counted as it comes."""
        found: list[Any] = []
        size = 0
        for value in values:
            self.tick()
            size += self._size(value, MAX_SIZE - size)
            _refuse_above(size, "a list")
            found.append(value)
        return found

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """As transformers has it: no HTML escapes, and json.dumps' own options."""
        if (isinstance(indent, int) and indent > 100) or (isinstance(indent, str) and len(indent) > 100):
            raise Exceeded("an indent of more than 100")
        text = json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        return text.replace(json.dumps(self.marks[2])[1:-1], self.marks[2])


_JINJA = (Context, jinja2.Environment, nodes.EvalContext)


@pass_context
def _finalize(context: Context, value: Any) -> Any:
    """What is printed. That it wants the context keeps Jinja from computing constants while compiling."""
    environment = context.environment
    assert isinstance(environment, SandboxEnvironment)
    return environment.made(value)


def _told(value: Any) -> Any:
    """A refused attribute is an error at once; Jinja would let a template ask whether it is defined."""
    if isinstance(value, jinja2.Undefined) and value._undefined_exception is SecurityError:
        raise SecurityError(str(value._undefined_message))
    return value


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


class _Dict:
    """`dict(…)` and `dict.fromkeys`, without the class itself."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _strftime_now(form: str) -> str:
    """The time now, in the manner of Python's strftime."""
    _check_format(form)
    _refuse_above(len(form), "a format", 1000)
    return datetime.now().strftime(form)


class _SafeNamespace(Namespace):
    """`namespace(…)` that holds no names of Python's inside, and does not print what it holds."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # as Jinja's: `namespace(self=…)` works
        for name in dict(*args[1:], **kwargs):
            _check_name(name)
        Namespace.__init__(*args, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f'a namespace cannot hold "{name}": names must not begin with an underscore')


class _Generation(jinja2.ext.Extension):
    """{% generation %} … {% endgeneration %} around what the assistant says: leaves two marks, found again later."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Macro) -> str:
        environment = self.environment
        assert isinstance(environment, SandboxEnvironment)
        start, end, _ = environment.marks
        return f"{start}{caller()}{end}"


def _instrument(tree: nodes.Template) -> None:
    """Put a step at the head of every loop and macro, and a check around every list display and every ~."""
    for block in tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock)):
        assert isinstance(block, nodes.For | nodes.Macro | nodes.CallBlock)
        step = nodes.Call(nodes.EnvironmentAttribute("tick"), [], [], None, None)
        block.body.insert(0, nodes.Output([step]).set_lineno(block.lineno))
    _replace(tree)


def _replace(node: nodes.Node) -> None:
    for name, value in node.iter_fields():
        if isinstance(value, nodes.Node):
            _replace(value)
            setattr(node, name, _checked(value))
        elif isinstance(value, list):
            for at, child in enumerate(value):
                if isinstance(child, nodes.Node):
                    _replace(child)
                    value[at] = _checked(child)


def _checked(node: nodes.Node) -> nodes.Node:
    if isinstance(node, nodes.Concat):
        return _calling("concatenated", node.nodes, node.lineno)
    if isinstance(node, nodes.List | nodes.Dict) or (isinstance(node, nodes.Tuple) and node.ctx == "load"):
        return _calling("kept", [node], node.lineno)
    return node


def _calling(method: str, values: list[Any], line: int) -> nodes.Node:
    return nodes.Call(nodes.EnvironmentAttribute(method), values, [], None, None).set_lineno(line)


# Sizes -------------------------------------------------------------------------------------------------------------


def _refuse_above(size: int, what: str, limit: int = MAX_SIZE) -> None:
    if size > limit:
        raise Exceeded(f"{what} of more than {limit:,}")


_SIZED = (str, bytes, list, tuple, dict, set, frozenset)


def _own_size(value: Any) -> int:
    """What a value counts without what is in it: about its bytes."""
    if isinstance(value, str | bytes):
        return _ENTRY + len(value)
    return _ENTRY + value.bit_length() // 8 if isinstance(value, int) else _ENTRY


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return (*value.keys(), *value.values())
    return value if isinstance(value, list | tuple | set | frozenset) else ()


def _materialised(value: Any) -> Any:
    """Ranges as lists, so that what a filter makes of them can be told."""
    return list(value) if isinstance(value, range) else value


def _check_format(template: str) -> None:
    found = _WIDTH.search(template.replace("{{", "").replace("}}", ""))
    if found:
        raise Exceeded(f"a format with the width {found[0][:20]!r}")


def _check_call(called: Any, args: tuple[Any, ...]) -> None:
    """Methods of texts whose result can be far larger than what goes in."""
    text, name = getattr(called, "__self__", None), getattr(called, "__name__", "")
    if name in ("format", "format_map") and hasattr(called, "__wrapped__"):
        text = getattr(called.__wrapped__, "__self__", text)
    if isinstance(text, str):
        _check_text_method(text, name, args)


def _check_text_method(text: str, name: str, args: tuple[Any, ...] | list[Any]) -> None:
    if name in ("format", "format_map"):
        _check_format(text)
    elif name in _PADDING and args and isinstance(args[0], int):
        tabs = text.count("\t") if name == "expandtabs" else 1
        _refuse_above(args[0] * max(tabs, 1), "a width")
    elif name == "replace" and len(args) > 1 and isinstance(args[0], str) and isinstance(args[1], str):
        _refuse_above(text.count(args[0]) * len(args[1]) + len(text), "a text")
    elif name == "join" and args and not isinstance(args[0], str):
        entries = list(args[0]) if isinstance(args[0], list | tuple | dict | set) else []
        total = sum(len(entry) if isinstance(entry, str) else 1 for entry in entries)
        _refuse_above(total + len(text) * len(entries), "a text")
    elif name == "translate" and args and isinstance(args[0], dict):
        longest = max((len(value) for value in args[0].values() if isinstance(value, str)), default=1)
        _refuse_above(len(text) * longest, "a text")


def _check_filter(name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Filters whose result can be far larger than what goes in; args[0] is what is filtered."""
    values = [*args[1:], *kwargs.values()]
    if name in ("batch", "slice", "truncate", "round", "indent"):
        numbers = [abs(value) for value in values if isinstance(value, int)]
        _refuse_above(max(numbers, default=0), f"{name}'s number", 100_000)
    if name == "indent" and isinstance(args[0], str):
        width = max((len(value) if isinstance(value, str) else int(value) for value in values), default=4)
        _refuse_above((args[0].count("\n") + 1) * max(width, 4) + len(args[0]), "a text")
    elif name == "format" and isinstance(args[0], str):
        _check_format(args[0])
    elif name == "replace" and isinstance(args[0], str):
        _check_text_method(args[0], "replace", values)
    elif name == "join":
        _check_text_method(str(values[0]) if values else "", "join", [args[0]])
    elif name == "sum" and not isinstance(kwargs.get("start", args[2] if len(args) > 2 else 0), int | float):
        raise Exceeded("a sum of what are no numbers")
