"""The features of candidates, in one pass of compiled code."""

from typing import Any

import numpy as np

from tillmap.core.compiled import compiled
from tillmap.core.taxonomy import Levels
from tillmap.rerank.candidates import UNKNOWN, is_pair, prefix_range
from tillmap.rerank.facts import position, stem, tallied

SHARPNESS = np.float32(4)  # of the softmax of linear scores
_POWER = 4  # of a similarity: its weight in the neighbours' votes
_WORDS = 8  # of a line are compared with labels, at most
_SHRINK = np.float32(2)  # rows that count for the general case, beside those of a special one
_MIN_VARIANCE = np.float32(0.01)  # of log prices: a standard deviation of 10%


def names(levels: Levels) -> list[str]:
    """The names of the features, in their order.

    Levels are numbered: LightGBM changes or refuses names with spaces and signs, and two features of one name.
    """
    heads = [f"level_{place + 1}" for place in range(levels.depth)] + ["brand"] * (levels.brand is not None)
    kinds = ("path", "chain", "brand", "last_label")
    found = ["total", "rank", "mass_of_chain", "mass_of_brand", "behind_best"]
    found += [f"{head}_{what}" for head in heads for what in ("score", "lead", "log_share")]
    found += [
        f"{query}_{kind}_{what}"
        for query in ("line", "rest", "same_price")
        for kind in kinds
        for what in ("best", "votes", "votes_by_price")[: 2 if query == "same_price" else 3]
    ]
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
    scores: Any, scale: Any, facts: Any, spellings: Any, lines: Any, near: Any, cents: Any, logs: Any,
    candidates: Any, size: int,
) -> Any:  # fmt: skip
    """The features of all candidates (candidates, features), float32.

    Args:
        scores, scale, facts, spellings, lines, near: as in `propose`.
        cents, logs: (rows,), the rows' prices and their logs; -1 and 0 if unknown.
        candidates: `Candidates`.
        size: the number of features.
    """
    out = np.zeros((len(candidates.chain), size), np.float32)
    words = np.zeros(len(spellings.word_ends) - 1, np.float32)
    best, spread = np.empty(len(scale.ends) - 1, np.float32), np.empty(len(scale.ends) - 1, np.float32)
    pairs = len(facts.pair_chain)
    votes = np.zeros((pairs + 2 * len(facts.chains) + len(facts.brands) + 1, 3), np.float32)
    usual = _usual(facts.chain_prices)
    for row in range(len(scores)):
        first, after = candidates.starts[row], candidates.starts[row + 1]
        if first == after:
            continue
        chains, brands = candidates.chain[first:after], candidates.brand[first:after]
        chain_first, brand_first = _firsts(chains), _firsts(brands)
        pair = np.array([is_pair(facts, chains[place], brands[place]) for place in range(len(chains))])
        rows = out[first:after]
        at = _totals(chain_first, brand_first, candidates.total[first:after], rows, 0)
        _spread(scores[row], scale, best, spread)
        at = _scores(scores[row], scale, best, spread, chains, brands, rows, at)
        at = _votes(near.line, row, facts, cents[row], logs[row], True, chains, brands, pair, votes, rows, at)
        at = _votes(near.rest, row, facts, cents[row], logs[row], True, chains, brands, pair, votes, rows, at)
        at = _votes(near.same_price, row, facts, cents[row], logs[row], False, chains, brands, pair, votes, rows, at)
        at = _spelling(row, lines, spellings, facts, brands, brand_first, rows, at)
        at = _label_words(row, lines, spellings, words, chains, chain_first, rows, at)
        at = _stems(row, lines, facts, facts.chain_stems, facts.chains, chains, chain_first, rows, at)
        at = _stems(row, lines, facts, facts.brand_stems, facts.brands, brands, brand_first, rows, at)
        at = _counts(facts, chains, brands, pair, rows, at)
        at = _prices(facts, usual, cents[row], logs[row], chains, brands, pair, chain_first, brand_first, rows, at)
        rows[:, at] = lines[0][row + 1] - lines[0][row]
    return out


@compiled
def _firsts(labels: Any) -> Any:
    """The position of the first candidate with the same chain or brand as each. Such candidates share features."""
    firsts = np.empty(len(labels), np.int64)
    for place in range(len(labels)):
        first = 0
        while labels[first] != labels[place]:
            first += 1
        firsts[place] = first
    return firsts


@compiled
def _totals(chain_first: Any, brand_first: Any, totals: Any, out: Any, at: int) -> int:
    """The linear total and its rank, and the share of the candidates with the same chain and brand."""
    share = np.exp(SHARPNESS * (totals - totals[0]))
    share /= share.sum()
    for place in range(len(totals)):
        out[place, at] = totals[place]
        out[place, at + 1] = place
        out[chain_first[place], at + 2] += share[place]
        out[brand_first[place], at + 3] += share[place]
        out[place, at + 4] = totals[0] - totals[place]
    for place in range(len(totals)):
        out[place, at + 2] = out[chain_first[place], at + 2]
        out[place, at + 3] = out[brand_first[place], at + 3]
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
def _votes(
    near: Any, row: int, facts: Any, cents: int, log: float, by_price: bool, chains: Any, brands: Any, pair: Any,
    votes: Any, out: Any, at: int,
) -> int:  # fmt: skip
    """For path, chain, brand and last label: the nearest line that has it, and its share of the votes.

    With `by_price` also its share of votes that count the less the more the prices differ.

    Votes are counted in `votes` (labels, 3): the labels are the known pairs, the chains, the brands, the last labels,
    and one for pairs that are not known. Only those of candidates are set to 0 before, so only these count.
    """
    places, similar = near[0][row], near[1][row]
    size, other = len(facts.pair_chain), len(facts.chains)
    keys = np.empty((len(chains), 4), np.int64)
    for place in range(len(chains)):
        keys[place, 0] = pair[place] if pair[place] >= 0 else len(votes) - 1
        keys[place, 1] = size + chains[place]
        keys[place, 2] = size + 2 * other + brands[place]
        keys[place, 3] = size + other + facts.leaf[chains[place]]
        for kind in range(4):
            votes[keys[place, kind]] = 0
    total = total_by_price = np.float32(0)
    for number in range(len(places)):
        line = places[number]
        if line < 0:
            break
        vote = similar[number] ** _POWER
        closeness = np.float32(0)
        if cents >= 0 and facts.price_of[line] >= 0:
            closeness = np.exp(-4 * abs(log - facts.log_price_of[line]))
        total += vote
        total_by_price += vote * closeness
        chain = facts.chain_of[line]
        for key in (
            facts.pair_of[line], size + chain, size + 2 * other + facts.brand_of[line],
            size + other + facts.leaf[chain],
        ):  # fmt: skip
            votes[key, 0] = max(votes[key, 0], similar[number])
            votes[key, 1] += vote
            votes[key, 2] += vote * closeness
    width = 3 if by_price else 2
    for place in range(len(chains)):
        for kind in range(4):
            key, first = keys[place, kind], at + width * kind
            out[place, first] = votes[key, 0]
            if total > 0:
                out[place, first + 1] = votes[key, 1] / total
            if by_price and total_by_price > 0:
                out[place, first + 2] = votes[key, 2] / total_by_price
    return at + 4 * width


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
def _spelling(row: int, lines: Any, spellings: Any, facts: Any, brands: Any, firsts: Any, out: Any, at: int) -> int:
    """How each brand's letters appear in the line."""
    starts, letters, ends, consonants, consonant_ends = lines
    first, after = starts[row], starts[row + 1]
    for place in range(len(brands)):
        brand = brands[place]
        if firsts[place] < place:
            out[place, at : at + 18] = out[firsts[place], at : at + 18]
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
def _label_words(row: int, lines: Any, spellings: Any, words: Any, chains: Any, firsts: Any, out: Any, at: int) -> int:
    """How well the line's words abbreviate those of the chain's last label, and of the one above it."""
    starts, letters, ends, consonants, consonant_ends = lines
    words[:] = 0
    for word in range(starts[row], min(starts[row + 1], starts[row] + _WORDS)):
        size, bare_size = ends[word + 1] - ends[word], consonant_ends[word + 1] - consonant_ends[word]
        low, high = prefix_range(letters, ends[word], 1, spellings.word_letters, spellings.word_ends, spellings.words)
        for number in range(low, high):
            begin, end = spellings.word_ends[number], spellings.word_ends[number + 1]
            bare, bare_end = spellings.word_consonant_ends[number], spellings.word_consonant_ends[number + 1]
            shared = common(letters, ends[word], ends[word + 1], spellings.word_letters, begin, end)
            if shared >= 3 or shared == size:
                words[number] = max(words[number], shared / max(size, 3))
            shared = common(
                consonants, consonant_ends[word], consonant_ends[word + 1], spellings.word_consonants, bare, bare_end
            )
            if shared >= 3 or (shared == bare_size and shared == bare_end - bare):
                words[number] = max(words[number], np.float32(0.9) * shared / max(bare_size, 3))
    for place in range(len(chains)):
        if firsts[place] < place:
            out[place, at : at + 4] = out[firsts[place], at : at + 4]
            continue
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
def _stems(
    row: int, lines: Any, facts: Any, of_owner: Any, sizes: Any, owners: Any, firsts: Any, out: Any, at: int
) -> int:
    """The log odds of the line's stems given the chain or the brand: their sum, the best, and the first word's.

    Args:
        row, lines, facts: as in `describe`.
        of_owner: how often each stem is with each chain or brand.
        sizes: the number of rows of each.
        owners, firsts: the candidates' chains or brands, see `_firsts`.
        out, at: where to write.
    """
    starts, consonants, ends = lines[0], lines[3], lines[4]
    stems, rows = facts.stems, np.float32(len(facts.chain_of))
    size = len(stems.keys)
    for number in range(min(starts[row + 1] - starts[row], _WORDS)):
        word = starts[row] + number
        place_of = position(stems.keys, stem(consonants, ends[word], ends[word + 1]))
        if place_of < 0:
            continue
        share = stems.counts[place_of] / rows
        for place in range(len(owners)):
            if firsts[place] < place:
                continue
            owner = np.int64(owners[place])
            seen = tallied(of_owner, owner * size + place_of)
            odds = np.log((seen / share + _SHRINK) / (sizes[owner] + _SHRINK))
            out[place, at] += odds
            out[place, at + 1] = max(out[place, at + 1], odds)
            if number == 0:
                out[place, at + 2] = odds
    for place in range(len(owners)):
        if firsts[place] < place:
            out[place, at : at + 3] = out[firsts[place], at : at + 3]
    return at + 3


@compiled
def _counts(facts: Any, chains: Any, brands: Any, pairs: Any, out: Any, at: int) -> int:
    """Logs of the numbers of rows, and how often chain and brand go together."""
    size = len(facts.brands)
    for place in range(len(chains)):
        chain, brand = chains[place], brands[place]
        pair = pairs[place]
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
def _of_price(prices: Any, tally: Any, at: int, log: float, usual: Any, exact: int, size: int, out: Any) -> None:
    """How a price fits the prices of a chain or a brand, and how many of its rows have exactly this price: [2]."""
    general, variance = usual
    out[0] = _fit(log, prices.known[at], prices.mean[at], prices.squares[at], general, variance)
    if exact >= 0:
        out[1] = tallied(tally, np.int64(at) * size + exact)


@compiled
def _usual(prices: Any) -> Any:
    """The mean and the variance of all log prices."""
    known = max(prices.known.sum(), np.float32(1))
    mean = (prices.known * prices.mean).sum() / known
    return mean, (prices.squares.sum() + (prices.known * (prices.mean - mean) ** 2).sum()) / known


@compiled
def _prices(
    facts: Any, usual: Any, cents: int, log: float, chains: Any, brands: Any, pairs: Any, chain_first: Any,
    brand_first: Any, out: Any, at: int,
) -> int:  # fmt: skip
    """How the price fits the prices of path, chain and brand, and how many rows of each have exactly this price."""
    if cents < 0:
        return at + 8
    general, variance = usual
    exact, size = position(facts.prices.keys, cents), len(facts.prices.keys)
    for place in range(len(chains)):
        chain, brand, pair = chains[place], brands[place], pairs[place]
        prices = facts.chain_prices
        if chain_first[place] < place:
            out[place, at + 2 : at + 4] = out[chain_first[place], at + 2 : at + 4]
        else:
            _of_price(
                facts.chain_prices, facts.chain_exact, chain, log, usual, exact, size, out[place, at + 2 : at + 4]
            )
        out[place, at] = out[place, at + 2]
        if pair >= 0:
            mean = (prices.known[chain] * prices.mean[chain] + _SHRINK * general) / (prices.known[chain] + _SHRINK)
            width = (prices.squares[chain] + _SHRINK * variance) / (prices.known[chain] + _SHRINK)
            prices = facts.pair_prices
            out[place, at] = _fit(log, prices.known[pair], prices.mean[pair], prices.squares[pair], mean, width)
            if exact >= 0:
                out[place, at + 1] = tallied(facts.pair_exact, np.int64(pair) * size + exact)
        if brand_first[place] < place:
            out[place, at + 4 : at + 6] = out[brand_first[place], at + 4 : at + 6]
        else:
            _of_price(
                facts.brand_prices, facts.brand_exact, brand, log, usual, exact, size, out[place, at + 4 : at + 6]
            )
        if exact >= 0:
            out[place, at + 6] = np.log1p(facts.prices.counts[exact])
        out[place, at + 7] = 1
    return at + 8
