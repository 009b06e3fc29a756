"""What the assistant said, token by token; conversations that share a row, and do not see each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("jinja2", reason="chat templates need the serve extra")

import torch.nn.functional as F  # noqa: E402

from inkstone.ground.errors import TrainingError  # noqa: E402
from inkstone.learn.data.conversations import (  # noqa: E402
    ChatExample,
    ConversationFeed,
    conversation_batch,
    fitting,
)
from inkstone.learn.objectives import causal  # noqa: E402
from inkstone.model.config import tiny  # noqa: E402
from inkstone.model.resizing import with_tokens  # noqa: E402
from inkstone.model.transformer import Transformer  # noqa: E402
from inkstone.text.foreign_tokenizer import ForeignTokenizer  # noqa: E402
from inkstone.text.template import CHATML, DEFAULT_CHAT_TEMPLATE, ChatTemplate, encode_chat  # noqa: E402
from inkstone.text.tokenizer import Tokenizer  # noqa: E402

INST = (
    "{% for m in messages %}{% if m.role == 'system' %}<s><<SYS>>{{ m.content }}<</SYS>>\n"
    "{% elif m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
HEADERS = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n\n{{ m.content | trim }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
)
BLOCKS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}A: {% generation %}{{ m.content }}</s>{% endgeneration %}"
    "{% else %}{{ m.role }}: {{ m.content }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}A: {% endif %}"
)
# Template, and what ends an answer.
TEMPLATES = {
    "ours": (DEFAULT_CHAT_TEMPLATE, "<|im_end|>"),
    "instructions": (INST, "</s>"),
    "headers": (HEADERS, "<|im_end|>"),
    "blocks": (BLOCKS, "</s>"),
}
TALKS = {
    "single": [("user", "你好，Tom!"), ("assistant", "Hello, 你好。")],
    "system": [("system", "Be brief."), ("user", "What is 3 + 4?"), ("assistant", "7")],
    "several turns": [
        ("user", "I see the cat."),
        ("assistant", "Which cat? 这只猫？"),
        ("user", "The red one"),
        ("assistant", "I see."),
        ("user", "Bye"),
        ("assistant", "再见"),
    ],
    "an answer that was asked for": [("user", "Say: I see."), ("assistant", "I see.")],
}


@pytest.fixture(scope="module")
def tokenizer() -> ForeignTokenizer:
    texts = ["I see the cat. 你好", "Which one? the red one 这只猫", "Hello Tom"] * 3
    ours = Tokenizer.train(texts, kind="byte-bpe", vocab_size=330)
    return ForeignTokenizer.of(ours).taught_to_chat(DEFAULT_CHAT_TEMPLATE, CHATML, CHATML[1])


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_only_what_the_assistant_said_is_asked_for(
    tokenizer: ForeignTokenizer, template: str, talk: str
) -> None:
    """Decoded token by token: the marked ones are the answers with their ends, and nothing else."""
    source, end = TEMPLATES[template]
    messages = [{"role": role, "content": content} for role, content in TALKS[talk]]
    chat = ChatTemplate(source, tokenizer.names, tokenizer.specials)
    rendered = chat.render_with_spans(messages)
    found = encode_chat(tokenizer, rendered)
    stream, pieces = tokenizer.stream(skip_special_tokens=False), []
    for number, said in zip(found.ids, found.said, strict=True):
        pieces.append((stream.push([number]), said))
    assert "".join(text for text, _ in pieces) == rendered.text
    answers, speaking = [], False
    for text, said in pieces:
        if said and not speaking:
            answers.append("")
        if said:
            answers[-1] += text
        speaking = said
    wanted = [f"{content}{end}" for role, content in TALKS[talk] if role == "assistant"]
    assert [answer.strip() for answer in answers] == wanted


def conversations(count: int, longest: int = 14) -> list[ChatExample]:
    random = np.random.default_rng(5)
    found = []
    for _ in range(count):
        length = int(random.integers(4, longest))
        said = random.random(length) < 0.4
        said[-1] = True
        found.append(ChatExample(random.integers(5, 50, length).tolist(), said.tolist()))
    return found


def small(**overlay: Any) -> Transformer:
    config = tiny(60, "decoder", dropout=0.0, num_decoder_layers=2, hidden_size=32, **overlay)
    return Transformer(config, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_packed_is_padded(positions: str) -> None:
    """Loss and gradients of conversations in shared rows are those of one a row, and of tokens counted by hand."""
    talks = conversations(7)
    packed = conversation_batch([talks[:3], talks[3:4], talks[4:]], 0)
    padded = conversation_batch([[one] for one in talks], 0)
    assert packed.segments_BT is not None and padded.segments_BT is None
    assert packed.tokens == padded.tokens == sum(len(one.ids) - 1 for one in talks)
    models = [small(positions=positions) for _ in range(3)]
    losses = [causal(model, batch) for model, batch in zip(models, (packed, padded), strict=False)]
    total, count = torch.zeros(()), 0
    for one in talks:
        logits = models[2](torch.tensor([one.ids[:-1]]))[0]
        for place, said in enumerate(one.said[1:]):
            if said:
                total = total + F.cross_entropy(logits[place], torch.tensor(one.ids[place + 1]))
                count += 1
    means = [losses[0].mean, losses[1].mean, total / count]
    for mean in means:
        mean.backward()
    assert losses[0].count == losses[1].count == count
    for mean in means[:2]:
        torch.testing.assert_close(mean, means[2], atol=1e-5, rtol=1e-5)
    for (name, one), two, three in zip(
        models[0].named_parameters(), models[1].parameters(), models[2].parameters(), strict=True
    ):
        torch.testing.assert_close(one.grad, three.grad, atol=1e-5, rtol=1e-3, msg=name)
        torch.testing.assert_close(two.grad, three.grad, atol=1e-5, rtol=1e-3, msg=name)


def test_every_conversation_comes_once_an_epoch() -> None:
    talks = conversations(50)
    feed = ConversationFeed(talks, block=16, tokens_per_batch=48, seed=3, pad_id=0)
    wanted = sum(sum(one.said[1:]) for one in talks)
    for number in (0, 1):
        batches = [make() for make in feed.epoch(number)]
        assert sum(len(batch.wanted_N) for batch in batches) == wanted  # type: ignore[union-attr]
        assert all(batch.ids_BT.numel() <= 48 for batch in batches)  # type: ignore[union-attr]
    again = [make().ids_BT for make in feed.epoch(1)]  # type: ignore[union-attr]
    assert all(torch.equal(one, batch.ids_BT) for one, batch in zip(again, batches, strict=True))  # type: ignore[union-attr]
    with pytest.raises(TrainingError, match="a batch may hold 8"):
        ConversationFeed(talks, block=16, tokens_per_batch=8, seed=3, pad_id=0)


def test_what_is_longer_than_a_row_is_cut_and_counted() -> None:
    talks = [
        ChatExample([1, 2, 3], [False, False, True]),
        ChatExample([1, 2, 3, 4, 5, 6], [False, True, False, False, True, True]),
        ChatExample(
            [1, 2, 3, 4, 5, 6], [True, False, False, False, False, True]
        ),  # the first is never asked for
    ]
    kept, cut, left = fitting(talks, 3)
    assert (kept, cut, left) == ([talks[0], ChatExample([1, 2, 3, 4], [False, True, False, False])], 1, 1)


@pytest.mark.parametrize("tied", [True, False])
def test_a_grown_model_says_the_same_of_the_tokens_it_knew(tied: bool) -> None:
    model = small(tie_embeddings=tied, output_bias=True).eval()
    grown = with_tokens(model, 63)
    ids = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(grown(ids)[..., :60], model(ids))
    assert grown.config.vocab_size == 63 == len(grown.output_weight)
    torch.testing.assert_close(grown.embedding.weight[61], model.embedding.weight.mean(0))
    assert with_tokens(grown, 60) is grown
