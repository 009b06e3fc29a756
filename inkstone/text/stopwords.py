"""Words that say little about what a text is about, for Chinese and English: for word counts, keywords
and indexes.

Short lists on purpose, written for this project: function words, not merely frequent ones. Negations
(not, no, 不, 没有) are in them; whoever classifies sentiment should not remove stop words at all.
"""

from __future__ import annotations

from inkstone.ground.errors import ConfigError, not_known


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


ENGLISH = _listed(
    """a about above after again against all almost also although am among an and another any are aren't
    around as at be because been before being below between both but by can can't cannot could couldn't
    did didn't do does doesn't doing don't down during each either else ever every few for from further
    had hadn't has hasn't have haven't having he he'd he'll he's her here hers herself him himself his how
    however i i'd i'll i'm i've if in into is isn't it it's its itself just let's may me might more most
    much must my myself neither no nor not of off on once only or other ought our ours ourselves out over
    own per quite rather same shall she she'd she'll she's should shouldn't since so some such than that
    that's the their theirs them themselves then there there's these they they'd they'll they're they've
    this those though through to too under until up upon us very was wasn't we we'd we'll we're we've were
    weren't what what's when where which while who whom whose why will with within without won't would
    wouldn't yet you you'd you'll you're you've your yours yourself yourselves
    """
)
CHINESE = _listed(
    """的 地 得 了 着 过 吗 呢 吧 啊 呀 哦 嘛 啦 哪 么 之 其 而 且 与 和 及 或 跟 同 把 被 让 给 向 从 自
    到 在 于 对 对于 关于 由 由于 以 以及 以便 为 为了 因 因为 因此 所以 但 但是 可是 不过 然而 而且 并
    并且 或者 还是 如果 假如 要是 即使 虽然 尽管 只要 只有 除非 无论 不管 既 既然 则 就 才 都 也 还 又 再
    便 却 很 非常 太 更 最 比较 十分 已 已经 曾经 正在 将 将要 会 能 能够 可以 可能 应该 应当 必须 要 想
    不 没 没有 未 别 非 无 是 有 我 你 您 他 她 它 我们 你们 他们 她们 它们 咱们 自己 本 该 此 这 那 这个
    那个 这些 那些 这里 那里 这样 那样 这么 那么 这儿 那儿 谁 什么 哪个 哪些 哪里 哪儿 怎么 怎样 怎么样
    如何 为何 为什么 多少 几 某 某个 某些 各 各个 各种 每 每个 任何 一切 所有 其他 其它 其中 另 另外 别的
    等 等等 之间 之后 之前 以后 以前 以上 以下 以外 之一 一 一个 一些 一下 一样 一直 一般 个 们 上 下 里
    中 内 外 时 时候 当 当时 来 去 起来 下去 出来 过来 如 如此 例如 比如 似乎 即 即将 甚至 至于 至 仅 仅仅
    只 只是 就是 而是 不是 也是 还有 并不 那 所 按 按照 根据 通过 经过 随着 沿着 除了 除 凭 趁 往 朝 比 像
    似的 般 罢了
    """
)
STOP_WORDS = {"en": ENGLISH, "zh": CHINESE}


def stop_words(language: str) -> frozenset[str]:
    """The stop words of a language, in small letters. Raises ConfigError where there is no list."""
    if language not in STOP_WORDS:
        raise ConfigError(not_known("language", language, STOP_WORDS))
    return STOP_WORDS[language]
