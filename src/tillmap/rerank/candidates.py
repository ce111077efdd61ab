"""The label paths that may be right for a line: compiled code that proposes chains with brands."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tillmap.core.compiled import compiled
from tillmap.rerank.facts import READ, position
from tillmap.rerank.lines import Floats, Ints, has_digit
from tillmap.rerank.similar import Near, place_sorted

KNOWN = 25  # known paths with the best linear scores
NEAR = 12  # nearest lines, and so many with the same price, whose paths are candidates
FEW_CHAINS, MANY_CHAINS, FEW_BRANDS, MANY_BRANDS = 3, 8, 2, 8  # few chains with many brands, and the other way round
SPELLED = 6  # brands that the line's first or last word spells
READ_CHAINS = 2  # chains with brands that are read off the line
_PAIRS = FEW_CHAINS * MANY_BRANDS + MANY_CHAINS * FEW_BRANDS + SPELLED * FEW_CHAINS + READ * READ_CHAINS
_MOST = KNOWN + 2 * NEAR + _PAIRS
UNKNOWN = np.float32(-1)  # the linear score of a brand that no training row has: that of a label that says nothing
# Added to the linear scores where only some candidates are kept: most pairs that are not known are wrong.
_KNOWN_BEFORE, _ALWAYS = np.float32(0.5), np.float32(100)  # of known pairs, and of brands that are read off the line
_LEAST_READ = 3  # letters of a brand that is read off the line
_LETTERS = 12  # of a line are compared with a brand, at most
_LEAST = 2  # letters that a brand and a word must share
_SHARED = 60  # with more brands that share a prefix, it proposes none
_SPELLED_SCALE = np.float32(0.3)  # of a brand's linear score beside the number of letters


class Scale(NamedTuple):
    """Where the linear scores of labels are, and what they weigh.

    Attributes:
        columns: the columns of all heads, head after head: those of the levels, the brand's last if there is one.
        ends: (heads + 1,). Head h has columns[ends[h]] to columns[ends[h + 1] - 1].
        chains: (levels of a chain, chains), the column of each label of a chain, as in `linear.heads.Layout`.
        brands: (brands,), the column of each brand; -1 if there is no brand level, and for those read off a line.
        weights: (heads,).
    """

    columns: Ints
    ends: Ints
    chains: Ints
    brands: Ints
    weights: Floats


class NearLines(NamedTuple):
    """Positions and similarities (rows, k) of the training rows that are near to some rows, best first; -1 and 0: none.

    Attributes:
        line: near to the line.
        rest: near to the line without its first word.
        same_price: those with exactly the same price that are nearest to the line.
    """

    line: Near
    rest: Near
    same_price: Near


class Candidates(NamedTuple):
    """The candidates of some rows, those with higher linear scores first.

    Attributes:
        starts: (rows + 1,). Row r has the candidates starts[r] to starts[r + 1] - 1.
        chain, brand: their numbers.
        total: the weighted sum of the linear scores.
    """

    starts: Ints
    chain: NDArray[np.int32]
    brand: NDArray[np.int32]
    total: Floats


@compiled
def propose(scores: Any, scale: Any, facts: Any, spellings: Any, lines: Any, near: Any, limit: int, read: bool) -> Any:
    """The arrays of `Candidates`, at most `limit` a row.

    Args:
        scores: (rows, columns), the linear scores of all labels.
        scale: a `Scale`.
        facts, spellings: of the training rows.
        lines: the arrays of the rows' `Lines`.
        near: `NearLines`.
        limit: those with the best linear scores are kept, known paths before others, beside brands that are read off
            the line.
        read: whether the line's first words may be a new brand.
    """
    rows, brands = len(scores), len(facts.brands)
    starts = np.zeros(rows + 1, np.int64)
    out_chain, out_brand = np.empty(rows * limit, np.int32), np.empty(rows * limit, np.int32)
    out_total = np.empty(rows * limit, np.float32)
    of_chain, of_brand = np.empty(len(facts.chains), np.float32), np.empty(brands, np.float32)
    pair_total = np.empty(len(facts.pair_chain), np.float32)
    found = np.empty(_MOST, np.int64)
    total, worth = np.empty(_MOST, np.float32), np.empty(_MOST, np.float32)
    spelled = np.empty(SPELLED, np.int64)
    for row in range(rows):
        score_chains(scores[row], scale, of_chain)
        score_brands(scores[row], scale, of_brand)
        count = 0
        for pair in range(len(pair_total)):
            pair_total[pair] = of_chain[facts.pair_chain[pair]] + of_brand[facts.pair_brand[pair]]
        for pair in _top(pair_total, KNOWN):
            count = _add(found, count, facts.pairs.keys[pair])
        for lines_near in (near.line[0][row], near.same_price[0][row]):
            for line in lines_near[:NEAR]:
                if line >= 0:
                    count = _add(found, count, np.int64(facts.chain_of[line]) * brands + facts.brand_of[line])
        chains, first = _top(of_chain, MANY_CHAINS), _top(of_brand[: spellings.named], MANY_BRANDS)
        if brands > 1:
            for place in range(len(chains)):
                for other in range(len(first) if place < FEW_CHAINS else min(FEW_BRANDS, len(first))):
                    count = _add(found, count, chains[place] * brands + first[other])
            for place in range(_spell(row, lines, spellings, of_brand, spelled)):
                for other in range(min(FEW_CHAINS, len(chains))):
                    count = _add(found, count, chains[other] * brands + spelled[place])
            for brand in range(spellings.named, brands):
                if read and may_be_new(row, lines, spellings, brand - spellings.named + 1):
                    for other in range(min(READ_CHAINS, len(chains))):
                        count = _add(found, count, chains[other] * brands + brand)
        for place in range(count):
            chain, brand = found[place] // brands, found[place] % brands
            worth[place] = total[place] = of_chain[chain] + of_brand[brand]
            if brand >= spellings.named:
                worth[place] += _ALWAYS
            elif is_pair(facts, chain, brand) >= 0:
                worth[place] += _KNOWN_BEFORE
        kept = _top(worth[:count], limit)
        size = starts[row]
        for place in kept[_top(total[kept], limit)]:
            out_chain[size], out_brand[size] = found[place] // brands, found[place] % brands
            out_total[size] = total[place]
            size += 1
        starts[row + 1] = size
    size = starts[rows]
    return starts, out_chain[:size].copy(), out_brand[:size].copy(), out_total[:size].copy()


@compiled
def score_chains(scores: Any, scale: Any, out: Any) -> None:
    """The weighted sum of the scores of each chain's labels."""
    out[:] = 0
    for level in range(scale.chains.shape[0]):
        for chain in range(len(out)):
            out[chain] += scale.weights[level] * scores[scale.chains[level, chain]]


@compiled
def score_brands(scores: Any, scale: Any, out: Any) -> None:
    """The weighted score of each brand. Without a brand level there is one, with the score 0."""
    for brand in range(len(out)):
        if scale.brands[brand] >= 0:
            out[brand] = scale.weights[-1] * scores[scale.brands[brand]]
        else:
            out[brand] = scale.weights[-1] * UNKNOWN if len(out) > 1 else 0


@compiled
def _top(scores: Any, k: int) -> Any:
    """The positions of the k best scores, best first; of equal ones the first."""
    k = min(k, len(scores))
    places, best = np.empty(k, np.int64), np.full(k, -np.inf, np.float32)
    for place in range(len(scores)):
        score = scores[place]
        if score > best[k - 1]:
            at = k - 1
            while at > 0 and score > best[at - 1]:
                best[at], places[at] = best[at - 1], places[at - 1]
                at -= 1
            best[at], places[at] = score, place
    return places


@compiled
def _add(found: Any, count: int, key: int) -> int:
    """Add a pair if it is not there. Gives the new count."""
    for place in range(count):
        if found[place] == key:
            return count
    found[count] = key
    return count + 1


@compiled
def _spell(row: int, lines: Any, spellings: Any, of_brand: Any, out: Any) -> int:
    """The brands that share the longest start with the line's first or last word. Gives how many there are."""
    starts, letters, ends, consonants, consonant_ends = lines
    first, after = starts[row], starts[row + 1]
    best = np.full(SPELLED, -np.inf, np.float32)
    out[:] = -1
    for word in (first, after - 1):
        if word < first or (word == first and after - 1 > first and word != first):
            continue
        _spell_word(
            letters, ends[word], ends[after], spellings.letters, spellings.ends, spellings.sorted_letters,
            of_brand, out, best,
        )  # fmt: skip
        _spell_word(
            consonants, consonant_ends[word], consonant_ends[after], spellings.consonants, spellings.consonant_ends,
            spellings.sorted_consonants, of_brand, out, best,
        )  # fmt: skip
    count = 0
    while count < SPELLED and out[count] >= 0:
        count += 1
    return count


@compiled
def _spell_word(
    text: Any, begin: int, end: int, letters: Any, ends: Any, order: Any, of_brand: Any, out: Any, best: Any
) -> None:
    """Sort the brands that share most letters with text[begin:end] into `out` and `best`."""
    seen = 0
    for length in range(min(_LETTERS, end - begin), _LEAST - 1, -1):
        low, high = prefix_range(text, begin, length, letters, ends, order)
        if high - low > _SHARED:
            return
        for place in range(low, high):
            brand = order[place]
            score = np.float32(length) + _SPELLED_SCALE * of_brand[brand]
            at = SPELLED - 1
            known = -1
            for other in range(SPELLED):
                if out[other] == brand:
                    known = other
            if known >= 0:
                if best[known] >= score:
                    continue
                at = known
            elif score <= best[at]:
                continue
            place_sorted(at, brand, score, out, best)
        seen = high - low
        if seen >= SPELLED:
            return


@compiled
def may_be_new(row: int, lines: Any, spellings: Any, words: int) -> bool:
    """Whether the line's first `words` words may be a brand that no training row has: they are none that one has."""
    starts, letters, ends = lines[0], lines[1], lines[2]
    first = starts[row]
    if first + words > starts[row + 1]:
        return False
    begin, end = ends[first], ends[first + words]
    if end - begin < _LEAST_READ or has_digit(letters, begin, end):
        return False
    low, high = prefix_range(letters, begin, end - begin, spellings.letters, spellings.ends, spellings.sorted_letters)
    for place in range(low, high):
        brand = spellings.sorted_letters[place]
        if spellings.ends[brand + 1] - spellings.ends[brand] == end - begin:
            return False
    return True


@compiled
def prefix_range(text: Any, begin: int, length: int, letters: Any, ends: Any, order: Any) -> Any:
    """Where in `order`, which sorts some words, those begin that start with text[begin:begin + length], and end."""
    low, high = 0, len(order)
    while low < high:  # the first word that does not sort before the text
        middle = (low + high) // 2
        if _compare(letters, ends, order[middle], text, begin, length) < 0:
            low = middle + 1
        else:
            high = middle
    first, high = low, len(order)
    while low < high:  # the first that sorts after it and does not start with it
        middle = (low + high) // 2
        if _compare(letters, ends, order[middle], text, begin, length) <= 0:
            low = middle + 1
        else:
            high = middle
    return first, low


@compiled
def _compare(letters: Any, ends: Any, word: int, text: Any, begin: int, length: int) -> int:
    """-1, 0 or 1: whether a word, cut to `length` letters, sorts before the text, is equal, or sorts after it."""
    size = ends[word + 1] - ends[word]
    for place in range(min(size, length)):
        letter, other = letters[ends[word] + place], text[begin + place]
        if letter != other:
            return -1 if letter < other else 1
    return -1 if size < length else 0


@compiled
def is_pair(facts: Any, chain: int, brand: int) -> int:
    """The position of a chain with a brand among the known pairs; -1 if they are not known together."""
    return position(facts.pairs.keys, np.int64(chain) * len(facts.brands) + brand)
