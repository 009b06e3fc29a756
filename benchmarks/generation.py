"""Speed of generation with the same weights: Inkstone's engines, CTranslate2 used directly, and transformers.

    INKSTONE_DATA=... python benchmarks/generation.py                        # trains a translator first: a few minutes
    INKSTONE_DATA=... python benchmarks/generation.py --bundle models/marian-shaped
    python benchmarks/generation.py --only decoder --layers 4 --tokens 32    # a quick look

translate   Multi30k test_2016, beam of 5, texts to texts: sentences/s, peak memory, BLEU. The model has the shape of a
            Marian (sinusoids, norms after the sums), so that transformers runs the same weights; it gets sources sorted
            by length, 32 at a time. int8 is what Inkstone serves; float32 is shown beside it, for transformers has that.
decoder     A random decoder in the shape of a Llama: tokens/s of one stream and of 16 (prompts of 32 tokens, greedy),
            and the share of the memory bandwidth that one stream reaches: bytes of all matrices x tokens/s, over
            bytes/s of summing a large array.

Every side runs in a process of its own and with all cores; times are the best of three, after a warm-up.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "inkstone" / "recipes" / "multi30k-en-de.yaml"
MARIAN = {
    "positions": "sinusoidal", "norm": "layer", "norm_place": "after", "feed_forward": "plain", "activation": "relu",
    "bias": "all", "scale_embeddings": "true", "output_bias": "true",
}  # fmt: skip
BEAM, PROMPT = 5, 32


def best_of(runs: int, work: Callable[[], Any]) -> tuple[float, Any]:
    """The least seconds of some runs, and what the last gave."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def lines(name: str, count: int) -> list[str]:
    """The first lines of a file of Multi30k."""
    file = Path(os.environ["INKSTONE_DATA"]) / "multi30k" / f"{name}.gz"
    return gzip.open(file, "rt", encoding="utf-8").read().splitlines()[: count or None]


# Sides of the translation: each takes a bundle and texts, and gives a function to be timed. ---------------------------


def by_inkstone(bundle: Path, texts: list[str], engine: str) -> Callable[[], list[str]]:
    """The application a user calls, with the engine of the bundle, or with a float32 export."""
    from inkstone.apps.translate import Translator
    from inkstone.generate.ctranslate2_engine import CTranslate2Engine
    from inkstone.generate.engine import GenerationOptions

    translator = Translator(bundle, engine="ctranslate2")
    translator.engine = CTranslate2Engine(bundle.parent / engine, translator.tokenizer)
    options = GenerationOptions(beam_size=BEAM)
    return lambda: [one.translation for one in translator.translate(texts, options=options)]


def by_ctranslate2(bundle: Path, texts: list[str], engine: str) -> Callable[[], list[str]]:
    """The least that a careful user of CTranslate2 would write."""
    import ctranslate2
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(bundle / "tokenizer.json"))
    translator = ctranslate2.Translator(str(bundle.parent / engine), intra_threads=os.cpu_count())

    def run() -> list[str]:
        sources = [[*one.tokens, "</s>"] for one in tokenizer.encode_batch(texts)]
        found = translator.translate_batch(
            sources,
            beam_size=BEAM,
            length_penalty=1.0,
            max_decoding_length=3 * max(len(source) for source in sources) + 16,
            max_batch_size=819,
            batch_type="tokens",
        )
        ids = [[tokenizer.token_to_id(token) for token in one.hypotheses[0]] for one in found]
        return [text.strip() for text in tokenizer.decode_batch(ids)]

    return run


def by_transformers(bundle: Path, texts: list[str], engine: str) -> Callable[[], list[str]]:
    """`generate` on sources sorted by length, 32 at a time."""
    import tokenizers
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    transformers.logging.set_verbosity_error()
    tokenizer = tokenizers.Tokenizer.from_file(str(bundle / "tokenizer.json"))
    model = transformers.MarianMTModel.from_pretrained(bundle.parent / "marian").eval()
    model.generation_config.forced_eos_token_id = None
    pad, eos = model.config.pad_token_id, model.config.eos_token_id

    @torch.inference_mode()
    def run() -> list[str]:
        sources = [[*one.ids, eos] for one in tokenizer.encode_batch(texts)]
        order = sorted(range(len(sources)), key=lambda number: len(sources[number]))
        found: dict[int, list[int]] = {}
        for start in range(0, len(order), 32):
            numbers = order[start : start + 32]
            longest = len(sources[numbers[-1]])
            rows = torch.tensor([sources[n] + [pad] * (longest - len(sources[n])) for n in numbers])
            made = model.generate(
                rows,
                attention_mask=(rows != pad).long(),
                num_beams=BEAM,
                length_penalty=1.0,
                early_stopping=True,
                max_new_tokens=3 * longest + 16,
            )
            found.update(zip(numbers, made.tolist(), strict=True))
        return [text.strip() for text in tokenizer.decode_batch([found[n] for n in range(len(sources))])]

    return run


TRANSLATE = {"inkstone": by_inkstone, "ctranslate2": by_ctranslate2, "transformers": by_transformers}


def translated(side: str, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """One side's figures, in this process."""
    from inkstone.metrics.text import bleu

    texts, references = (lines(f"tok.test_2016_flickr.{code}", asked.sentences) for code in ("en", "de"))
    name, engine = side.split("/")
    before = peak_mb()
    run = TRANSLATE[name](folder / "bundle", texts, engine)
    run()
    memory = peak_mb()
    seconds, outputs = best_of(asked.runs, run)
    score = bleu(outputs, references, tokenize="none").value
    return {
        "per_second": len(texts) / seconds,
        "peak_mb": memory,
        "idle_mb": before,
        "bleu": score,
        "texts": outputs,
    }


def peak_mb() -> float:
    """The most memory this process had, in MB. (`ru_maxrss` would be that of the parent, if that was larger.)"""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def made_bundle(asked: argparse.Namespace, folder: Path) -> bool:
    """Lay out the bundle, its float32 export and the Marian folder; train it where none is given."""
    from inkstone.model.checkpoint import load_model
    from inkstone.model.families.folder import write_folder
    from inkstone.ship.ctranslate2 import export_ctranslate2

    if asked.bundle is not None:
        (folder / "bundle").symlink_to(asked.bundle.resolve())
    else:
        command = [
            str(Path(sys.executable).parent / "inkstone"),
            "train",
            "translate",
            "--recipe",
            str(RECIPE),
        ]
        settings = [
            f"training.epochs={asked.epochs}",
            *(f"model.{name}={value}" for name, value in MARIAN.items()),
        ]
        words = [word for one in settings for word in ("--set", one)]
        subprocess.run(
            [*command, "--out", str(folder / "bundle"), *words], check=True, stdout=subprocess.DEVNULL
        )
    served = next((folder / "bundle").glob("ctranslate2-*"))
    (folder / "served").symlink_to(served.resolve())
    export_ctranslate2(folder / "bundle", folder / "float32", quantization="float32")
    (folder / "marian").mkdir()
    write_folder(load_model(folder / "bundle"), folder / "marian", "marian")
    return served.name.endswith("int8")


def translation(asked: argparse.Namespace) -> None:
    """The table of the translators."""
    if "INKSTONE_DATA" not in os.environ:
        print("translate: skipped, INKSTONE_DATA does not name the folder of data sets")
        return
    with tempfile.TemporaryDirectory(prefix="inkstone-bench-") as scratch:
        folder = Path(scratch)
        int8 = made_bundle(asked, folder)
        sides = ["inkstone/float32", "ctranslate2/float32", "transformers/float32"]
        sides = (["inkstone/served", "ctranslate2/served"] if int8 else []) + sides
        found = {side: measured("translate", side, folder, asked) for side in sides}
    reference = found["transformers/float32"]
    print(f"Multi30k test_2016, beam {BEAM}, {len(reference['texts'])} sentences, {os.cpu_count()} cores")
    print(
        f"{'':24}{'sentences/s':>12}{'x transformers':>16}{'peak MB':>10}{'BLEU':>8}{'same text as transformers':>28}"
    )
    for side, one in found.items():
        same = sum(a == b for a, b in zip(one["texts"], reference["texts"], strict=True)) / len(one["texts"])
        name = side.replace("served", "int8")
        print(
            f"{name:24}{one['per_second']:12.1f}{one['per_second'] / reference['per_second']:16.2f}"
            f"{one['peak_mb']:10.0f}{one['bleu']:8.2f}{same:28.1%}"
        )
    for kind in ("served", "float32") if int8 else ("float32",):
        ratio = found[f"inkstone/{kind}"]["per_second"] / found[f"ctranslate2/{kind}"]["per_second"]
        print(f"Inkstone / CTranslate2, {kind.replace('served', 'int8')}: {ratio:.3f}")


# Sides of the decoder: each takes the folder and gives a function of prompts. ----------------------------------------


def decoder_torch(folder: Path, tokens: int, engine: str) -> Callable[[Sequence[list[int]]], Any]:
    """Our model and our cache."""
    import torch

    from inkstone.generate.engine import GenerationOptions
    from inkstone.generate.torch_engine import TorchDecoder

    torch.set_num_threads(os.cpu_count() or 1)
    decoder = TorchDecoder.load(folder / "llama")
    options = GenerationOptions(beam_size=1, max_length=tokens, end_ids=(0,))
    return lambda prompts: [len(one.ids) for (one,) in decoder.generate(prompts, options)]


def decoder_served(folder: Path, tokens: int, engine: str) -> Callable[[Sequence[list[int]]], Any]:
    """CTranslate2 through our engine."""
    from inkstone.generate.ctranslate2_decoder import CTranslate2Decoder
    from inkstone.generate.engine import GenerationOptions

    decoder = CTranslate2Decoder(folder / engine)
    options = GenerationOptions(beam_size=1, max_length=tokens, end_ids=(0,))
    return lambda prompts: [len(one.ids) for (one,) in decoder.generate(prompts, options)]


def decoder_onnx(folder: Path, tokens: int, engine: str) -> Callable[[Sequence[list[int]]], Any]:
    """onnxruntime through our engine."""
    from inkstone.generate.engine import GenerationOptions
    from inkstone.generate.onnx_decoder import OnnxDecoder

    decoder = OnnxDecoder(folder / f"onnx-{engine}")
    options = GenerationOptions(beam_size=1, max_length=tokens, end_ids=(0,))
    return lambda prompts: [len(one.ids) for (one,) in decoder.generate(prompts, options)]


def decoder_ctranslate2(folder: Path, tokens: int, engine: str) -> Callable[[Sequence[list[int]]], Any]:
    """CTranslate2 used directly."""
    import ctranslate2

    generator = ctranslate2.Generator(str(folder / engine), intra_threads=os.cpu_count())
    names = json.loads((folder / engine / "vocabulary.json").read_text(encoding="utf-8"))

    def run(prompts: Sequence[list[int]]) -> Any:
        found = generator.generate_batch(
            [[names[number] for number in prompt] for prompt in prompts],
            beam_size=1,
            max_length=tokens,
            end_token=[names[0]],
            include_prompt_in_result=False,
        )
        return [len(one.sequences_ids[0]) for one in found]

    return run


def decoder_transformers(folder: Path, tokens: int, engine: str) -> Callable[[Sequence[list[int]]], Any]:
    """`generate`, greedy, with its cache."""
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    transformers.logging.set_verbosity_error()
    model = transformers.LlamaForCausalLM.from_pretrained(folder / "llama").eval()

    @torch.inference_mode()
    def run(prompts: Sequence[list[int]]) -> Any:
        ids = torch.tensor(prompts)
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=tokens,
            eos_token_id=0,
            pad_token_id=0,
        )
        return [made.shape[1] - ids.shape[1]] * len(prompts)

    return run


DECODERS = {
    "inkstone torch": decoder_torch,
    "inkstone ctranslate2": decoder_served,
    "inkstone onnxruntime": decoder_onnx,
    "ctranslate2": decoder_ctranslate2,
    "transformers": decoder_transformers,
}


def decoded(side: str, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """One side's figures, in this process."""
    import random

    name, engine = side.split("/")
    run = DECODERS[name](folder, asked.tokens, engine)
    drawn, result = random.Random(1), {}
    for streams in (1, 16):
        prompts = [[drawn.randrange(3, 30_000) for _ in range(PROMPT)] for _ in range(streams)]
        run(prompts)
        seconds, lengths = best_of(asked.runs, lambda prompts=prompts: run(prompts))
        result[str(streams)] = sum(lengths) / seconds
    return {**result, "peak_mb": peak_mb()}


def bandwidth() -> float:
    """Bytes a second of summing 512 MB with all cores, the best of ten."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    large = torch.ones(128 * 2**20)
    seconds, _ = best_of(10, large.sum)
    return large.numel() * 4 / seconds


def continuation(asked: argparse.Namespace) -> None:
    """The table of the decoders."""
    import torch

    from inkstone.model.config import ModelConfig
    from inkstone.model.families.folder import write_folder
    from inkstone.model.transformer import Transformer
    from inkstone.ship.ctranslate2 import export_ctranslate2
    from inkstone.ship.onnx import export_onnx

    config = ModelConfig(
        "decoder", 32_000, 640, 10, 10, 1792, 0, asked.layers, max_positions=2048, norm="rms", dropout=0.0
    )
    with tempfile.TemporaryDirectory(prefix="inkstone-bench-") as scratch:
        folder = Path(scratch)
        (folder / "llama").mkdir()
        model = Transformer(config, torch.Generator().manual_seed(1))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        write_folder(model, folder / "llama", "llama")
        del model
        for kind in ("int8", "float32"):
            export_ctranslate2(folder / "llama", folder / kind, quantization=kind)
            export_onnx(folder / "llama", folder / f"onnx-{kind}", quantization=kind)
        sides = [
            f"{name}/{kind}"
            for name in ("inkstone ctranslate2", "ctranslate2", "inkstone onnxruntime")
            for kind in ("int8", "float32")
        ]
        sides += ["inkstone torch/float32", "transformers/float32"]
        found = {side: measured("decoder", side, folder, asked) for side in sides}
    rate = bandwidth()
    print(
        f"decoder of {parameters / 1e6:.0f} M parameters, {asked.tokens} tokens after {PROMPT}, {os.cpu_count()} cores, "
        f"memory {rate / 1e9:.1f} GB/s"
    )
    print(f"{'':30}{'1 stream':>12}{'16 streams':>12}{'bandwidth':>12}{'peak MB':>10}   (tokens/s)")
    for side, one in found.items():
        share = one["1"] * parameters * (1 if side.endswith("int8") else 4) / rate
        print(f"{side:30}{one['1']:12.1f}{one['16']:12.1f}{share:12.0%}{one['peak_mb']:10.0f}")


def measured(part: str, side: str, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """One side, in a process of its own."""
    words = ["--only", part, "--side", side, "--folder", str(folder)]
    for name in ("sentences", "runs", "tokens"):
        words += [f"--{name}", str(getattr(asked, name))]
    done = subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=("translate", "decoder"))
    parser.add_argument(
        "--bundle", type=Path, help="a translator in the shape of Marian, instead of training one"
    )
    parser.add_argument("--epochs", type=int, default=4, help="of the training where no bundle is given")
    parser.add_argument("--sentences", type=int, default=0, help="of the test; 0 takes all")
    parser.add_argument("--layers", type=int, default=10, help="of the decoder; 10 are 71 million parameters")
    parser.add_argument("--tokens", type=int, default=128, help="to produce after each prompt")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        measure = translated if asked.only == "translate" else decoded
        print(json.dumps(measure(asked.side, asked.folder, asked)))
        return
    if asked.only != "decoder":
        translation(asked)
    if asked.only != "translate":
        continuation(asked)


if __name__ == "__main__":
    main()
