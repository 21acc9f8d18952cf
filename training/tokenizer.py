"""The demo's tokenizer: one piece for each word of the world, letters for the rest, so free text never fails."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from training.words import CHINESE_PIECES, vocabulary

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A Unigram tokenizer: lower case, punctuation dropped, `</s>` at the end, `<unk>` for unknown signs."""
    latin = vocabulary()
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -40.0), ("▁", -15.0)]
    pieces += [("▁" + word, -5.0) for word in latin]
    pieces += [("▁" + sign, -12.0) for sign in _LETTERS if sign not in latin] + [(sign, -12.0) for sign in _LETTERS]
    pieces += [(piece, -5.0) for piece in dict.fromkeys(CHINESE_PIECES)]
    core = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    words_only = normalizers.Replace(Regex(r"[^\p{L}\p{N}]+"), " ")
    core.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), words_only, normalizers.Strip()]
    )
    word_start = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), word_start])
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=512, **names)
