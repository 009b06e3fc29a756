"""Foreign checkpoints: what transformers computes is computed here, to the last token, and goes back unchanged."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="models need torch")
transformers = pytest.importorskip(
    "transformers", reason="the reference is transformers; install the dev extra"
)

sys.path.insert(0, str(Path(__file__).parent))
from families import CASES, VOCABULARY, reference  # noqa: E402

from inkstone.model.attention import Cache  # noqa: E402
from inkstone.model.config import preset  # noqa: E402
from inkstone.model.families.folder import read_folder, write_folder  # noqa: E402
from inkstone.model.transformer import Transformer  # noqa: E402

CLOSE: dict[str, float] = {"atol": 1e-4, "rtol": 1e-4}
DECODERS = [case for case, (_, name, _) in CASES.items() if "CausalLM" in name or "LMHead" in name]
ENCODERS = [case for case in CASES if case.startswith(("bert", "roberta"))]
PAIRS = [case for case in CASES if case not in DECODERS + ENCODERS]


def opened(model: Any, folder: Path) -> Transformer:
    model.save_pretrained(folder)
    return read_folder(folder)


def ids(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, VOCABULARY - 1, (rows, length), generator=torch.Generator().manual_seed(seed))


def padded(model: Any, rows: int, length: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts of unlike lengths, padded on the right, and where they are real."""
    tokens = ids(rows, length, seed)
    for row in range(1, rows):
        tokens[row, length - 2 * row :] = model.config.pad_token_id
    return tokens, (tokens != model.config.pad_token_id).long()


def theirs(model: Any, tokens: torch.Tensor, mask: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """What transformers computes: logits, or states."""
    more = {"decoder_input_ids": target} if model.config.is_encoder_decoder else {}
    out = model(input_ids=tokens, attention_mask=mask, **more)
    found: torch.Tensor = out.logits if "logits" in out else out.last_hidden_state
    return found


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_logits_alone_and_padded(case: str, tmp_path: Path) -> None:
    model = reference(case)
    mine = opened(model, tmp_path)
    target = ids(3, 7, seed=5)
    for tokens, mask in (padded(model, 1, 12), padded(model, 3, 12, seed=2)):
        rows = target[: len(tokens)]
        wanted = theirs(model, tokens, mask, rows)
        found = mine(tokens, rows) if mine.config.shape == "encoder-decoder" else mine(tokens)
        if wanted.dim() == 3 and len(wanted) > 1 and not model.config.is_encoder_decoder:
            wanted, found = wanted[mask.bool()], found[mask.bool()]  # what stands on padding is nobody's
        torch.testing.assert_close(found, wanted, **CLOSE)
        assert wanted.std() > 0.1, "a model that says something"


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_it_goes_back_unchanged(case: str, tmp_path: Path) -> None:
    model = reference(case)
    mine = opened(model, tmp_path / "theirs")
    (tmp_path / "back").mkdir()
    write_folder(mine, tmp_path / "back", model.config.model_type, shard_bytes=6_000)
    again = type(model).from_pretrained(tmp_path / "back").eval()
    assert (tmp_path / "back" / "model.safetensors.index.json").exists(), "in shards"
    tokens, mask = padded(model, 2, 10)
    target = ids(2, 5, seed=3)
    torch.testing.assert_close(
        theirs(again, tokens, mask, target), theirs(model, tokens, mask, target), atol=0, rtol=0
    )
    for (name, one), (_, other) in zip(
        mine.named_parameters(), read_folder(tmp_path / "back").named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name


@torch.no_grad()
def greedy(
    model: Transformer, source: torch.Tensor, steps: int, *, cached: bool, padding: Any = None
) -> torch.Tensor:
    """The likeliest token each time that has not come before, so that every step says something new."""
    cache = Cache() if cached else None
    if model.config.has_encoder:
        memory, mask = model.encode(source), model.visible(source)
        tokens = torch.full((len(source), 1), model.config.bos_id)
    else:
        memory, mask, tokens = None, None, source
    start = tokens.shape[1]
    for step in range(steps):
        new = tokens[:, -1:] if cached and step else tokens
        states = model.decode(new, memory, mask, cache, padding)
        logits = model.logits(states[:, -1])
        logits[:, [model.config.eos_id, model.config.pad_id]] = -torch.inf
        logits.scatter_(1, tokens, -torch.inf)
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], dim=1)
    return tokens[:, start:]


@pytest.mark.parametrize("case", DECODERS + PAIRS)
@torch.no_grad()
def test_greedy_generation_is_theirs_token_for_token(case: str, tmp_path: Path) -> None:
    model = reference(case)
    mine = opened(model, tmp_path)
    lengths = (9, 4, 6)
    prompts = [ids(1, length, seed=length) for length in lengths]
    pad, longest, steps = model.config.pad_token_id, max(lengths), 20
    side = (lambda n: (0, longest - n)) if mine.config.has_encoder else (lambda n: (longest - n, 0))
    together = torch.cat([torch.nn.functional.pad(p, side(p.shape[1]), value=pad) for p in prompts])

    def wanted(tokens: torch.Tensor) -> torch.Tensor:
        out = model.generate(
            tokens, attention_mask=(tokens != pad).long(), do_sample=False, num_beams=1, min_new_tokens=steps,
            max_new_tokens=steps, forced_eos_token_id=None, forced_bos_token_id=None, use_cache=False,
            no_repeat_ngram_size=1, suppress_tokens=[pad],
        )  # fmt: skip
        return out[:, -steps:]

    padding = None if mine.config.has_encoder else torch.tensor([longest - n for n in lengths])
    expected = wanted(together)
    for cached in (True, False):
        assert torch.equal(greedy(mine, together, steps, cached=cached, padding=padding), expected), cached
    for prompt, row in zip(prompts, expected, strict=True):
        assert torch.equal(wanted(prompt)[0], row)
        assert torch.equal(greedy(mine, prompt, steps, cached=True)[0], row)
    assert all(len(set(row.tolist())) == steps for row in expected)


@torch.no_grad()
def test_a_translator_of_ours_without_an_output_bias_is_a_marian_with_zeros(tmp_path: Path) -> None:
    """What `train translate` makes with the axes of the first Transformers."""
    axes = {"positions": "sinusoidal", "norm_place": "after", "feed_forward": "plain", "bias": "all"}
    sizes = {"hidden_size": 16, "num_heads": 2, "num_kv_heads": 2, "feed_forward_size": 32}
    config = preset("tiny", VOCABULARY, "encoder-decoder", {**axes, **sizes, "activation": "relu"})
    mine = Transformer(config).eval()
    assert not config.output_bias
    write_folder(mine, tmp_path, "marian")
    model = transformers.MarianMTModel.from_pretrained(tmp_path).eval()
    source, target = ids(2, 9), ids(2, 5, seed=1)
    logits = model(input_ids=source, decoder_input_ids=target).logits
    torch.testing.assert_close(mine(source, target), logits, **CLOSE)
    torch.testing.assert_close(read_folder(tmp_path)(source, target), logits, **CLOSE)


def test_the_table_in_the_documentation_is_of_these_checkpoints() -> None:
    text = (Path(__file__).parent.parent.parent / "docs" / "families.md").read_text(encoding="utf-8")
    listed = [
        line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ") and "yes" in line
    ]
    assert listed == list(CASES), "run: python docs/families.py"
    assert "NO" not in text
