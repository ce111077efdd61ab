"""The features of candidates, in one pass of compiled code."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tillmap.core.compiled import compiled
from tillmap.rerank.candidates import UNKNOWN, is_pair, prefix_range
from tillmap.rerank.facts import position, stem, tallied

SHARPNESS = np.float32(4)  # of the softmax of linear scores
_POWER = 4  # of a similarity: its weight in the neighbours' votes
_WORDS = 8  # of a line are compared with labels, at most
_SHRINK = np.float32(2)  # rows that count for the general case, beside those of a special one
_MIN_VARIANCE = np.float32(0.01)  # of log prices: a standard deviation of 10%


def names(levels: Sequence[str], *, brand: bool) -> list[str]:
    """The names of the features, in their order.

    Args:
        levels: the names of a chain's levels.
        brand: whether there is a brand level.
    """
    heads = [*levels, "brand"] if brand else list(levels)
    kinds = ("path", "chain", "brand", "last_label")
    found = ["total", "rank", "mass_of_chain", "mass_of_brand", "behind_best"]
    found += [f"{head}_{what}" for head in heads for what in ("score", "lead", "log_share")]
    for query in ("line", "rest"):
        found += [f"{query}_{kind}_{what}" for kind in kinds for what in ("best", "votes", "votes_by_price")]
    found += [
        f"brand_{what}"
        for what in (
            "shared", "shared_part", "shared_word", "shared_end", "shared_place", "rivals", "consonants",
            "consonants_part", "consonants_word", "consonants_end", "consonants_place", "consonants_rivals",
            "distance_first", "distance_last", "inside", "letters", "read", "read_rows",
        )
    ]  # fmt: skip
    found += ["last_label_best", "last_label_mean", "parent_best", "words_explained"]
    found += [f"stems_{kind}_{what}" for kind in ("chain", "brand") for what in ("sum", "best", "first")]
    found += ["rows_of_path", "rows_of_chain", "rows_of_brand", "chain_given_brand", "brand_given_chain",
              "parent_given_brand", "known"]  # fmt: skip
    found += [f"price_{kind}_{what}" for kind in ("path", "chain", "brand") for what in ("fit", "exact")]
    return [*found, "price_rows", "price_known", "words"]


@compiled
def describe(
    scores: Any, scale: Any, facts: Any, spellings: Any, lines: Any, near: Any, rest: Any, cents: Any, logs: Any,
    candidates: Any, size: int,
) -> Any:  # fmt: skip
    """The features of all candidates (candidates, features), float32.

    Args:
        scores, scale, facts, spellings, lines: as in `propose`.
        near, rest: positions and similarities (rows, k) of the training rows nearest to the line, and to the line
            without its first word.
        cents, logs: (rows,), the rows' prices and their logs; -1 and 0 if unknown.
        candidates: `Candidates`.
        size: the number of features.
    """
    out = np.zeros((len(candidates.chain), size), np.float32)
    words = np.zeros(len(spellings.word_ends) - 1, np.float32)
    best, spread = np.empty(len(scale.ends) - 1, np.float32), np.empty(len(scale.ends) - 1, np.float32)
    for row in range(len(scores)):
        first, after = candidates.starts[row], candidates.starts[row + 1]
        if first == after:
            continue
        chains, brands = candidates.chain[first:after], candidates.brand[first:after]
        rows = out[first:after]
        at = _totals(chains, brands, candidates.total[first:after], rows, 0)
        _spread(scores[row], scale, best, spread)
        at = _scores(scores[row], scale, best, spread, chains, brands, rows, at)
        at = _votes(near, row, facts, cents[row], logs[row], chains, brands, rows, at)
        at = _votes(rest, row, facts, cents[row], logs[row], chains, brands, rows, at)
        at = _spelling(row, lines, spellings, facts, brands, rows, at)
        at = _label_words(row, lines, spellings, words, chains, rows, at)
        at = _stems(row, lines, facts, chains, brands, rows, at)
        at = _counts(facts, chains, brands, rows, at)
        at = _prices(facts, cents[row], logs[row], chains, brands, rows, at)
        rows[:, at] = lines[0][row + 1] - lines[0][row]
    return out


@compiled
def _totals(chains: Any, brands: Any, totals: Any, out: Any, at: int) -> int:
    """The linear total and its rank, and the share of the candidates with the same chain and brand."""
    share = np.exp(SHARPNESS * (totals - totals[0]))
    share /= share.sum()
    for place in range(len(chains)):
        out[place, at] = totals[place]
        out[place, at + 1] = place
        for other in range(len(chains)):
            if chains[other] == chains[place]:
                out[place, at + 2] += share[other]
            if brands[other] == brands[place]:
                out[place, at + 3] += share[other]
        out[place, at + 4] = totals[0] - totals[place]
    return at + 5


@compiled
def _spread(scores: Any, scale: Any, best: Any, spread: Any) -> None:
    """The best score of each head, and the log of the sum of its labels' odds."""
    for head in range(len(best)):
        columns = scale.columns[scale.ends[head] : scale.ends[head + 1]]
        best[head] = -np.inf
        for column in columns:
            best[head] = max(best[head], scores[column])
        total = np.float32(0)
        for column in columns:
            lead = SHARPNESS * (scores[column] - best[head])
            if lead > -12:  # less is nothing
                total += np.exp(lead)
        spread[head] = SHARPNESS * best[head] + np.log(total)


@compiled
def _scores(scores: Any, scale: Any, best: Any, spread: Any, chains: Any, brands: Any, out: Any, at: int) -> int:
    """Each head's score of the candidate's label, its lead on the best, and the log of its share."""
    for place in range(len(chains)):
        for head in range(len(best)):
            column = scale.chains[head, chains[place]] if head < scale.chains.shape[0] else scale.brands[brands[place]]
            score = scores[column] if column >= 0 else UNKNOWN
            out[place, at + 3 * head] = score
            out[place, at + 3 * head + 1] = score - best[head]
            out[place, at + 3 * head + 2] = SHARPNESS * score - spread[head]
    return at + 3 * len(best)


@compiled
def _votes(near: Any, row: int, facts: Any, cents: int, log: float, chains: Any, brands: Any, out: Any, at: int) -> int:
    """For path, chain, brand and last label: the nearest line that has it, and its share of the votes (by price)."""
    places, similar = near[0][row], near[1][row]
    total = total_by_price = np.float32(0)
    for number in range(len(places)):
        line = places[number]
        if line < 0:
            break
        vote = similar[number] ** _POWER
        closeness = np.float32(0)
        if cents >= 0 and facts.price_of[line] >= 0:
            closeness = np.exp(-4 * abs(log - facts.log_price_of[line]))
        by_price = vote * closeness
        total += vote
        total_by_price += by_price
        chain, brand = facts.chain_of[line], facts.brand_of[line]
        leaf = facts.leaf[chain]
        for place in range(len(chains)):
            same_chain, same_brand = chains[place] == chain, brands[place] == brand
            if same_chain and same_brand:
                out[place, at] = max(out[place, at], similar[number])
                out[place, at + 1] += vote
                out[place, at + 2] += by_price
            if same_chain:
                out[place, at + 3] = max(out[place, at + 3], similar[number])
                out[place, at + 4] += vote
                out[place, at + 5] += by_price
            if same_brand:
                out[place, at + 6] = max(out[place, at + 6], similar[number])
                out[place, at + 7] += vote
                out[place, at + 8] += by_price
            if same_chain or facts.leaf[chains[place]] == leaf:
                out[place, at + 9] = max(out[place, at + 9], similar[number])
                out[place, at + 10] += vote
                out[place, at + 11] += by_price
    for place in range(len(chains)):
        for kind in range(4):
            if total > 0:
                out[place, at + 3 * kind + 1] /= total
            if total_by_price > 0:
                out[place, at + 3 * kind + 2] /= total_by_price
    return at + 12


@compiled
def common(text: Any, begin: int, end: int, letters: Any, first: int, last: int) -> int:
    """The number of letters with which text[begin:end] and letters[first:last] both start."""
    size = min(end - begin, last - first)
    place = 0
    while place < size and text[begin + place] == letters[first + place]:
        place += 1
    return place


@compiled
def distance(text: Any, begin: int, end: int, letters: Any, first: int, last: int) -> Any:
    """The edit distance of a word to the nearest start of a label, divided by the word's length; 1 at most."""
    size, width = min(end - begin, 10), min(last - first, 12)
    if size <= 0 or width <= 0:
        return np.float32(1)
    line = np.arange(width + 1)
    for place in range(size):
        corner, line[0] = line[0], place + 1
        for other in range(width):
            above = line[other + 1]
            changed = corner + (0 if text[begin + place] == letters[first + other] else 1)
            line[other + 1] = min(changed, above + 1, line[other] + 1)
            corner = above
    return min(np.float32(1), np.float32(line.min()) / size)


@compiled
def _is_inside(text: Any, begin: int, end: int, letters: Any, first: int, last: int) -> bool:
    """Whether a label has all letters of a word, in their order, and starts with the same one."""
    if first == last or begin == end or text[begin] != letters[first]:
        return False
    for place in range(first, last):
        if begin < end and letters[place] == text[begin]:
            begin += 1
    return begin == end


@compiled
def _shared(
    text: Any, ends: Any, first: int, after: int, letters: Any, label_ends: Any, order: Any, label: int, out: Any,
    at: int,
) -> None:  # fmt: skip
    """How a brand's letters appear from the start of some word on: how many, which part, whether to a word's end."""
    begin, end = label_ends[label], label_ends[label + 1]
    best, best_word, best_end = 0, -1, False
    for word in range(first, min(after, first + _WORDS)):
        count = common(text, ends[word], ends[after], letters, begin, end)
        if count < best or count == 0:
            continue
        at_end = False
        for other in range(word, after):
            if ends[other + 1] == ends[word] + count:
                at_end = True
        if count > best or (at_end and not best_end):
            best, best_word, best_end = count, word, at_end
    out[at + 4] = -1
    if best_word < 0:
        return
    out[at] = best
    out[at + 1] = best / max(end - begin, 1)
    out[at + 2] = min(1.0, best / max(ends[best_word + 1] - ends[best_word], 1))
    out[at + 3] = best_end
    out[at + 4] = best_word - first
    low, high = prefix_range(text, ends[best_word], best, letters, label_ends, order)
    out[at + 5] = np.log(max(high - low, 1))


@compiled
def _spelling(row: int, lines: Any, spellings: Any, facts: Any, brands: Any, out: Any, at: int) -> int:
    """How each brand's letters appear in the line. Candidates with the same brand have the same features."""
    starts, letters, ends, consonants, consonant_ends = lines
    first, after = starts[row], starts[row + 1]
    for place in range(len(brands)):
        brand = brands[place]
        seen = 0
        while brands[seen] != brand:
            seen += 1
        if seen < place:
            out[place, at : at + 18] = out[seen, at : at + 18]
            continue
        if brand >= spellings.named:
            _read(row, lines, spellings, facts, brand - spellings.named + 1, out[place], at)
            continue
        begin, end = spellings.ends[brand], spellings.ends[brand + 1]
        _shared(
            letters, ends, first, after, spellings.letters, spellings.ends, spellings.sorted_letters, brand,
            out[place], at,
        )  # fmt: skip
        _shared(
            consonants, consonant_ends, first, after, spellings.consonants, spellings.consonant_ends,
            spellings.sorted_consonants, brand, out[place], at + 6,
        )  # fmt: skip
        out[place, at + 12] = out[place, at + 13] = 1
        if after > first:
            for number, word in enumerate((first, after - 1)):
                out[place, at + 12 + number] = distance(
                    letters, ends[word], ends[word + 1], spellings.letters, begin, end
                )
                if _is_inside(letters, ends[word], ends[word + 1], spellings.letters, begin, end):
                    out[place, at + 14] = max(out[place, at + 14], ends[word + 1] - ends[word])
        out[place, at + 15] = end - begin
    return at + 18


@compiled
def _read(row: int, lines: Any, spellings: Any, facts: Any, words: int, out: Any, at: int) -> None:
    """The same for a new brand that the line's first `words` words say, and how many rows have such words."""
    starts, letters, ends, consonants, consonant_ends = lines
    first = starts[row]
    size, bare = ends[first + words] - ends[first], consonant_ends[first + words] - consonant_ends[first]
    low, high = prefix_range(letters, ends[first], size, spellings.letters, spellings.ends, spellings.sorted_letters)
    out[at], out[at + 5] = size, np.log(max(high - low, 1))
    low, high = prefix_range(
        consonants, consonant_ends[first], bare, spellings.consonants, spellings.consonant_ends,
        spellings.sorted_consonants,
    )  # fmt: skip
    out[at + 6], out[at + 11] = bare, np.log(max(high - low, 1))
    for place in (1, 2, 3, 7, 8, 9):
        out[at + place] = 1
    out[at + 13] = 1
    out[at + 14] = ends[first + 1] - ends[first]
    out[at + 15] = size
    out[at + 16] = words
    least = np.float32(len(facts.chain_of))
    for word in range(first, first + words):
        least = min(least, tallied(facts.stems, stem(consonants, consonant_ends[word], consonant_ends[word + 1])))
    out[at + 17] = np.log1p(least)


@compiled
def _label_words(row: int, lines: Any, spellings: Any, words: Any, chains: Any, out: Any, at: int) -> int:
    """How well the line's words abbreviate those of the chain's last label, and of the one above it."""
    starts, letters, ends, consonants, consonant_ends = lines
    first, after = starts[row], min(starts[row + 1], starts[row] + _WORDS)
    for number in range(len(words)):
        best = np.float32(0)
        begin, end = spellings.word_ends[number], spellings.word_ends[number + 1]
        bare, bare_end = spellings.word_consonant_ends[number], spellings.word_consonant_ends[number + 1]
        for word in range(first, after):
            if letters[ends[word]] != spellings.word_letters[begin]:
                continue
            size, bare_size = ends[word + 1] - ends[word], consonant_ends[word + 1] - consonant_ends[word]
            shared = common(letters, ends[word], ends[word + 1], spellings.word_letters, begin, end)
            if shared >= 3 or shared == size:
                best = max(best, shared / max(size, 3))
            shared = common(
                consonants, consonant_ends[word], consonant_ends[word + 1], spellings.word_consonants, bare, bare_end
            )
            if shared >= 3 or (shared == bare_size and shared == bare_end - bare):
                best = max(best, np.float32(0.9) * shared / max(bare_size, 3))
        words[number] = best
    for place in range(len(chains)):
        chain = chains[place]
        total, count = np.float32(0), 0
        for entry in range(spellings.leaf_starts[chain], spellings.leaf_starts[chain + 1]):
            found = words[spellings.leaf_words[entry]]
            out[place, at] = max(out[place, at], found)
            total += found
            count += 1
        out[place, at + 1] = total / max(count, 1)
        for entry in range(spellings.parent_starts[chain], spellings.parent_starts[chain + 1]):
            out[place, at + 2] = max(out[place, at + 2], words[spellings.parent_words[entry]])
        out[place, at + 3] = total
    return at + 4


@compiled
def _stems(row: int, lines: Any, facts: Any, chains: Any, brands: Any, out: Any, at: int) -> int:
    """The log odds of the line's stems given the chain and the brand: their sum, the best, and the first word's."""
    starts, consonants, ends = lines[0], lines[3], lines[4]
    size, rows = len(facts.stems.keys), np.float32(len(facts.chain_of))
    for number in range(min(starts[row + 1] - starts[row], _WORDS)):
        word = starts[row] + number
        place_of = position(facts.stems.keys, stem(consonants, ends[word], ends[word + 1]))
        if place_of < 0:
            continue
        share = facts.stems.counts[place_of] / rows
        for place in range(len(chains)):
            for kind in range(2):
                owner = np.int64(chains[place]) if kind == 0 else np.int64(brands[place])
                seen = tallied(facts.chain_stems if kind == 0 else facts.brand_stems, owner * size + place_of)
                own = facts.chains[owner] if kind == 0 else facts.brands[owner]
                odds = np.log((seen / share + _SHRINK) / (own + _SHRINK))
                out[place, at + 3 * kind] += odds
                out[place, at + 3 * kind + 1] = max(out[place, at + 3 * kind + 1], odds)
                if number == 0:
                    out[place, at + 3 * kind + 2] = odds
    return at + 6


@compiled
def _counts(facts: Any, chains: Any, brands: Any, out: Any, at: int) -> int:
    """Logs of the numbers of rows, and how often chain and brand go together."""
    size = len(facts.brands)
    for place in range(len(chains)):
        chain, brand = chains[place], brands[place]
        pair = is_pair(facts, chain, brand)
        together = facts.pairs.counts[pair] if pair >= 0 else np.float32(0)
        of_chain, of_brand = facts.chains[chain], facts.brands[brand]
        with_parent = tallied(facts.parent_brands, np.int64(facts.parent[chain]) * size + brand)
        out[place, at] = np.log1p(together)
        out[place, at + 1] = np.log1p(of_chain)
        out[place, at + 2] = np.log1p(of_brand)
        out[place, at + 3] = together / (of_brand + 1)
        out[place, at + 4] = together / (of_chain + 1)
        out[place, at + 5] = with_parent / (of_brand + 1)
        out[place, at + 6] = pair >= 0
    return at + 7


@compiled
def _fit(log: float, known: float, mean: float, squares: float, general: float, variance: float) -> Any:
    """The log density of a log price among some prices, shrunk to a general mean and variance."""
    center = (known * mean + _SHRINK * general) / (known + _SHRINK)
    width = max((squares + _SHRINK * variance) / (known + _SHRINK), _MIN_VARIANCE)
    return np.float32(-0.5 * ((log - center) ** 2 / width + np.log(width)))


@compiled
def _prices(facts: Any, cents: int, log: float, chains: Any, brands: Any, out: Any, at: int) -> int:
    """How the price fits the prices of path, chain and brand, and how many rows of each have exactly this price."""
    if cents < 0:
        return at + 8
    every = facts.chain_prices
    known = max(every.known.sum(), np.float32(1))
    general = (every.known * every.mean).sum() / known
    variance = (every.squares.sum() + (every.known * (every.mean - general) ** 2).sum()) / known
    exact, size = position(facts.prices.keys, cents), len(facts.prices.keys)
    for place in range(len(chains)):
        chain, brand = chains[place], brands[place]
        pair = is_pair(facts, chain, brand)
        prices = facts.chain_prices
        mean = (prices.known[chain] * prices.mean[chain] + _SHRINK * general) / (prices.known[chain] + _SHRINK)
        width = (prices.squares[chain] + _SHRINK * variance) / (prices.known[chain] + _SHRINK)
        of_chain = _fit(log, prices.known[chain], prices.mean[chain], prices.squares[chain], general, variance)
        out[place, at + 2] = of_chain
        out[place, at] = of_chain
        if pair >= 0:
            prices = facts.pair_prices
            out[place, at] = _fit(log, prices.known[pair], prices.mean[pair], prices.squares[pair], mean, width)
        prices = facts.brand_prices
        out[place, at + 4] = _fit(
            log, prices.known[brand], prices.mean[brand], prices.squares[brand], general, variance
        )
        if exact >= 0:
            if pair >= 0:
                out[place, at + 1] = tallied(facts.pair_exact, np.int64(pair) * size + exact)
            out[place, at + 3] = tallied(facts.chain_exact, np.int64(chain) * size + exact)
            out[place, at + 5] = tallied(facts.brand_exact, np.int64(brand) * size + exact)
            out[place, at + 6] = np.log1p(facts.prices.counts[exact])
        out[place, at + 7] = 1
    return at + 8
