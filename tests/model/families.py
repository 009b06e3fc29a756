"""Tiny random checkpoints of every family, made by transformers: each axis that a family has is in one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

VOCABULARY = 60
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "num_attention_heads": 4, "intermediate_size": 24,
    "num_hidden_layers": 2,
}  # fmt: skip
DECODER = {**SIZES, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0,
           "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
ENCODER = {
    **SIZES,
    "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
BOTH = {
    "vocab_size": VOCABULARY, "d_model": 16, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 40,
}  # fmt: skip
T5 = {"vocab_size": VOCABULARY, "d_model": 16, "d_kv": 6, "num_heads": 4, "d_ff": 24, "num_layers": 2,
      "num_decoder_layers": 3, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12,
      "dropout_rate": 0.0, "decoder_start_token_id": 0}  # fmt: skip
ROPE = {"rope_theta": 500.0}
LLAMA3 = {**ROPE, "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}  # fmt: skip
YARN = {**ROPE, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}

# case -> (class of the configuration, class of the model, options)
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert states": ("BertConfig", "BertModel", ENCODER),
    "bert prediction": ("BertConfig", "BertForMaskedLM", {**ENCODER, "hidden_act": "gelu_new"}),
    "bert labels": ("BertConfig", "BertForSequenceClassification", {**ENCODER, "num_labels": 3}),
    "roberta states": ("RobertaConfig", "RobertaModel", {**ENCODER, "type_vocab_size": 1}),
    "roberta prediction": ("RobertaConfig", "RobertaForMaskedLM", {**ENCODER, "type_vocab_size": 1}),
    "roberta labels": ("RobertaConfig", "RobertaForSequenceClassification", {**ENCODER, "num_labels": 3}),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", {
        "vocab_size": VOCABULARY, "n_embd": 16, "n_head": 4, "n_layer": 2, "n_positions": 64, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0}),
    "gpt2 untied, wider": ("GPT2Config", "GPT2LMHeadModel", {
        "vocab_size": VOCABULARY, "n_embd": 16, "n_head": 2, "n_layer": 2, "n_positions": 64, "n_inner": 20,
        "activation_function": "relu", "scale_attn_weights": False, "tie_word_embeddings": False, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0}),
    "llama": ("LlamaConfig", "LlamaForCausalLM", DECODER),
    "llama tied, biased": ("LlamaConfig", "LlamaForCausalLM", {
        **DECODER, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4}),
    "llama, linear positions": ("LlamaConfig", "LlamaForCausalLM", {
        **DECODER, "rope_parameters": {**ROPE, "rope_type": "linear", "factor": 2.5}}),
    "llama, llama3 positions": ("LlamaConfig", "LlamaForCausalLM", {**DECODER, "rope_parameters": LLAMA3}),
    "llama, yarn positions": ("LlamaConfig", "LlamaForCausalLM", {**DECODER, "rope_parameters": YARN}),
    "mistral": ("MistralConfig", "MistralForCausalLM", {**DECODER, "sliding_window": None}),
    "mistral, window": ("MistralConfig", "MistralForCausalLM", {**DECODER, "sliding_window": 5}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {k: v for k, v in DECODER.items() if k != "head_dim"}),
    "qwen2, window": ("Qwen2Config", "Qwen2ForCausalLM", {
        **{k: v for k, v in DECODER.items() if k != "head_dim"}, "use_sliding_window": True, "sliding_window": 5,
        "max_window_layers": 0}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", DECODER),
    "qwen3 tied, biased": ("Qwen3Config", "Qwen3ForCausalLM", {
        **DECODER, "attention_bias": True, "tie_word_embeddings": True}),
    "t5": ("T5Config", "T5ForConditionalGeneration", T5),
    "t5 1.1": ("T5Config", "T5ForConditionalGeneration", {
        **T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "bart": ("BartConfig", "BartForConditionalGeneration", {**BOTH, "decoder_start_token_id": 2, "dropout": 0.0}),
    "bart, scaled": ("BartConfig", "BartForConditionalGeneration", {
        **BOTH, "scale_embedding": True, "activation_function": "relu", "dropout": 0.0}),
    "marian": ("MarianConfig", "MarianMTModel", {
        **BOTH, "pad_token_id": 59, "eos_token_id": 0, "decoder_start_token_id": 59, "scale_embedding": True,
        "activation_function": "swish", "dropout": 0.0, "forced_eos_token_id": 0}),
}  # fmt: skip


def reference(case: str, seed: int = 1, **overlay: Any) -> Any:
    """The model of a case, by transformers, with weights large enough for every part to show in the output.

    overlay: options of its configuration instead of the case's.
    """
    import torch
    import transformers

    configuration, model, options = CASES[case]
    torch.manual_seed(seed)
    made = getattr(transformers, model)(getattr(transformers, configuration)(**{**options, **overlay})).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "embed_positions" in name and case.startswith("marian"):
                continue  # sinusoids, not learnt
            scale = 0.2 if parameter.dim() == 1 else 0.3
            parameter.add_(torch.randn(parameter.shape) * scale)
        if hasattr(made, "final_logits_bias"):
            made.final_logits_bias.add_(0.1 * torch.randn(made.final_logits_bias.shape))
    return made


def each(kind: Callable[[str], bool]) -> list[str]:
    """The cases whose class of model this holds for."""
    return [case for case, (_, model, _) in CASES.items() if kind(model)]
