"""The linear model: a one-vs-rest score for every label of every level, decoded over whole label paths."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import vstack
from tqdm import tqdm

from tillmap.core.errors import InputError, ModelError
from tillmap.core.files import of_this_version, read_as, read_json, read_table, write_json, write_table
from tillmap.core.taxonomy import LabelPath, LabelTree, Levels, trim
from tillmap.linear.features import TEXT_BLOCKS, Featuriser
from tillmap.linear.heads import Layout, Ranking, SparseHeads
from tillmap.linear.noise import noisy_copies
from tillmap.linear.training import SILENT, Floats, Heads, Ints, train_heads

log = logging.getLogger(__name__)

TREE = "paths.parquet"  # in a model's folder: the paths that it can answer
_MAX_WEIGHTS = 500_000_000  # terms x labels during training, 2 GB
_CHUNK = 2048  # rows ranked at a time: limits memory and updates the progress bar
_FORMAT = 2
_MAX_NGRAM = 100
_MAX_LEAD = 10.0  # scores lie between about -2 and 2


Trial = dict[str, Any]  # what was `tried`, on how many `rows`, how many it got `right`, and whether it was `kept`


@dataclass(frozen=True)
class Recipe:
    """How a model is trained and decodes. `recipes.fit_best` chooses one; it is saved with the model.

    Attributes:
        blocks: the features, see `Featuriser`.
        ngrams: shortest and longest character n-gram.
        label_names: whether the name and the definition of each chain, and the name of each brand, are examples too.
        siblings: whether another head tells each path from those with the same parent; for many rows per path.
        head_weights: the weights of the heads' scores in a path's score: those of the levels, then that of the
            siblings. Empty: `default_weights`.
        sharpness: the shares of the candidates are the softmax of their scores times this.
        unseen_penalty: a known chain with a known brand that were not seen together is answered if it scores higher
            than the best known path by more than this; None: never.
        copies: so many noisy copies of each training row are examples too, see `noise`.
        epochs, rate: see `train_heads`.
        weights_mib: the largest size of the weights' file, in MiB.
    """

    blocks: tuple[str, ...] = (*TEXT_BLOCKS, "price")
    ngrams: tuple[int, int] = (2, 4)
    label_names: bool = True
    siblings: bool = False
    head_weights: tuple[float, ...] = ()
    sharpness: float = 4.0
    unseen_penalty: float | None = None
    copies: int = 0
    epochs: int = 5
    rate: float = 0.15
    weights_mib: float = 16.0


def default_weights(levels: Levels) -> tuple[float, ...]:
    """The weights of the heads before any are tried. Chosen on held-out rows of real receipts, also without brand."""
    return (*(0.2,) * (len(levels) - 2), 0.4, 1.0, 0.0) if len(levels) > 1 else (1.0, 0.0)


@dataclass(frozen=True)
class LinearModel:
    """Answers items with label paths. Use `fit` to train a model and `load` to read a saved one.

    `trials` tells how the recipe was chosen; it is empty if it was not.
    """

    featuriser: Featuriser
    heads: SparseHeads
    tree: LabelTree
    recipe: Recipe
    trials: tuple[Trial, ...] = ()

    @classmethod
    def fit(cls, rows: pd.DataFrame, tree: LabelTree, recipe: Recipe, seed: int) -> Self:
        """Train on labelled rows: id, description, retailer, price and the levels. Each path must be in `tree`.

        Raises InputError if there are no rows or a row's path is not in the tree.
        """
        if rows.empty:
            raise InputError(
                "linear model: there are no rows to train on; expected labelled rows of the training subset"
            )
        place = {path: at for at, path in enumerate(tree)}
        path_of_row = np.array([place.get(path, -1) for path in tree.levels.paths(rows)])
        if (path_of_row < 0).any():
            row = int(np.argmin(path_of_row))
            raise InputError(
                f"linear model: id {rows['id'].iloc[row]} has a path that is not in the tree; run `dvc repro stratify`"
            )
        recipe = replace(recipe, head_weights=recipe.head_weights or default_weights(tree.levels))
        rows, path_of_row = _with_copies(rows, path_of_row, tree.levels, recipe.copies, seed)
        columns, ends = _columns_of(tree, siblings=recipe.siblings)
        examples = columns[path_of_row]
        max_terms = max(1, _MAX_WEIGHTS // int(ends[-1]) // len(recipe.blocks))
        featuriser = Featuriser.fit(
            rows, recipe.blocks, ngrams=recipe.ngrams, max_terms=max_terms,
            min_rows=recipe.copies + 2,  # so that a term that only one row has does not count with its copies
            more=_texts_without_rows(tree) if recipe.label_names else (),
        )  # fmt: skip
        features = featuriser.transform(rows)
        if recipe.label_names:
            texts, said = _named_labels(tree, columns)
            if texts:
                features = vstack([features, featuriser.read_labels(texts)], format="csr")
                examples = np.concatenate([examples, said])
        log.info("training %d labels on %d rows of %d terms", ends[-1], *features.shape)
        heads = _rivals(tree, ends)
        weights, biases = train_heads(features, examples, heads, epochs=recipe.epochs, rate=recipe.rate, seed=seed)
        return cls(featuriser, SparseHeads.prune(weights, biases, recipe.weights_mib), tree, recipe)

    def with_recipe(self, **changes: Any) -> "LinearModel":
        """The same weights with changed decoding: head_weights, sharpness or unseen_penalty."""
        return replace(self, recipe=replace(self.recipe, **changes))

    def rank(self, items: pd.DataFrame, k: int = 10) -> Ranking:
        """The k best paths of each item (description, retailer and price), as positions in the tree; see `Ranking`."""
        weights = np.array(self.recipe.head_weights[: len(self.layout.paths)], dtype=np.float32)
        starts = tqdm(range(0, max(len(items), 1), _CHUNK), desc="linear", unit="chunk", leave=None, disable=None)
        parts = [
            self.heads.rank(self.featuriser.transform(items.iloc[start : start + _CHUNK]), self.layout, weights, k)
            for start in starts
        ]
        return Ranking(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def score(self, items: pd.DataFrame) -> Floats:
        """The score of every label (items, labels), in the columns that `layout` names."""
        return self.heads.score(self.featuriser.transform(items))

    def predict(self, items: pd.DataFrame, k: int = 10) -> pd.DataFrame:
        """Answer each item (description, retailer and price). The result has the items' order and index.

        Columns:
            the levels: the answer; null where its path has no label.
            in_tree: whether the path is known.
            share: the answer's share among the candidates, 0 to 1.
            margin: its score minus the next candidate's.
            evidence: the natural log of the probability that all labels are right, from the logistic function of each
                label's score, as if the labels were independent.
            LEVEL_lead: the score of the answer's label minus the best other label's of that level. Below 0 if another
                label scores higher. That a path ends before a level counts as a label there.
            candidates: up to k pairs of path and share, best first.

        For an unseen path, evidence and leads are those of the best known path.
        """
        found = self.rank(items, k)
        places, scores = self._with_unseen(found)
        shares = _softmax(scores * self.recipe.sharpness)
        names = self.tree.paths + self._unseen_names(found)
        candidates = [
            [(names[place], share) for place, share in zip(row, given, strict=True) if place >= 0]
            for row, given in zip(places.tolist(), shares.tolist(), strict=True)
        ]
        # The winner of a level is its best label or not: then the lead is over the second best, else behind the best.
        lead = np.where(found.winner >= found.best, found.winner - found.second, found.winner - found.best)
        levels = self.tree.levels
        table = levels.columns(each[0][0] for each in candidates).set_index(items.index)
        table["in_tree"] = places[:, 0] < len(self.tree)
        table["share"] = shares[:, 0]
        table["margin"] = _finite(scores[:, 0] - scores[:, 1]) if k > 1 else 0.0
        table["evidence"] = -np.logaddexp(0.0, -found.winner[:, : len(levels)].astype(np.float64)).sum(axis=1)
        for level, values in zip(levels, _finite(lead).T, strict=False):
            table[f"{level}_lead"] = values
        table["candidates"] = pd.Series(candidates, index=items.index, dtype=object)
        return table

    def save(self, folder: Path) -> None:
        """Write the model into an existing folder, as JSON, Parquet and safetensors. Equal models give equal bytes."""
        about = {"format": _FORMAT, "recipe": asdict(self.recipe), "trials": list(self.trials)}
        write_json(about, folder / "recipe.json")
        write_table(self.featuriser.to_table(), folder / "terms.parquet")
        write_table(self.tree.to_table(), folder / TREE)
        self.heads.save(folder / "weights.safetensors")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises InputError or ModelError if a file is missing or damaged."""
        written = read_json(folder / "recipe.json")
        if not isinstance(written, dict) or written.get("format") != _FORMAT:
            raise ModelError(
                f"{folder}: not a linear model of this version of tillmap; run `dvc repro` to train one, or use the "
                "version that made it"
            )
        with of_this_version(folder / "recipe.json"):
            trials = tuple(written["trials"])
            recipe = read_as(Recipe, folder / "recipe.json", written["recipe"])
        terms = read_table(folder / "terms.parquet")
        model = cls(
            Featuriser.from_table(terms, recipe.ngrams),
            SparseHeads.load(folder / "weights.safetensors"),
            LabelTree.from_table(read_table(folder / TREE)),
            recipe,
            trials,
        )
        with of_this_version(folder):
            model._require_fit(len(terms))
        return model

    def _require_fit(self, terms: int) -> None:
        """Raise ValueError unless the recipe, the terms, the weights and the paths belong together."""
        weights, (shortest, longest) = self.recipe.head_weights, self.recipe.ngrams
        if not 1 <= shortest <= longest <= _MAX_NGRAM or not np.isfinite([*weights, self.recipe.sharpness]).all():
            raise ValueError("a recipe with numbers out of range")
        if len(weights) < len(self.layout.paths):
            raise ValueError(f"a recipe with {len(weights)} weights for {len(self.layout.paths)} heads")
        if terms != len(self.heads.starts) - 1:
            raise ValueError(f"weights of {len(self.heads.starts) - 1} terms, but there are {terms}")
        if int(self.layout.columns.max(initial=-1)) >= len(self.heads.biases):
            raise ValueError(f"weights of {len(self.heads.biases)} labels, but the paths have others")

    def columns_of(self, paths: Sequence[LabelPath]) -> Ints:
        """The columns of each path's labels (paths, heads); -1 where a path that is not in the tree has none.

        Raises KeyError for a path whose chain or brand is not known.
        """
        layout = self.layout
        columns = np.full((len(paths), len(layout.paths)), -1, dtype=np.int64)
        for row, path in enumerate(paths):
            if path in self._place:
                columns[row] = layout.paths[:, self._place[path]]
            else:  # a chain and a brand that were not seen together have columns of their own, and no siblings
                depth = self.tree.levels.depth
                columns[row, :depth] = layout.paths[:depth, self._chain_place[self.tree.levels.chain_of(path)]]
                columns[row, depth] = layout.paths[depth, self._brand_place[path[-1]]]
        return columns

    @cached_property
    def _place(self) -> dict[LabelPath, int]:
        return {path: place for place, path in enumerate(self.tree)}

    @cached_property
    def _chain_place(self) -> dict[Any, int]:
        return _first_with(map(self.tree.levels.chain_of, self.tree))

    @cached_property
    def _brand_place(self) -> dict[Any, int]:
        return _first_with(path[-1] for path in self.tree)

    @cached_property
    def layout(self) -> Layout:
        """What the columns of the heads stand for."""
        depth = self.tree.levels.depth
        columns, _ = _columns_of(self.tree, siblings=self.recipe.siblings)
        for level in range(1, depth):  # from where it ends, a path's column is that of its end
            ended = np.array([not path[level - 1] for path in self.tree])
            columns[ended, level] = columns[ended, level - 1]
        of_head = [np.unique(column) for column in columns.T]
        chains, chain_of = np.unique(columns[:, :depth], axis=0, return_inverse=True)
        return Layout(
            np.concatenate(of_head),
            np.cumsum([0, *map(len, of_head)], dtype=np.int64),
            np.ascontiguousarray(columns.T),
            np.ascontiguousarray(chains.T),
            chain_of.astype(np.int64),
            self.tree.levels.brand is not None,
        )

    def _with_unseen(self, found: Ranking) -> tuple[Ints, Floats]:
        """The candidates' positions and scores; an unseen path that wins comes first, at position len(tree) + row."""
        places, scores = found.paths, found.scores
        if self.recipe.unseen_penalty is None:
            return places, scores
        score = found.free_score - np.float32(self.recipe.unseen_penalty)
        rows = np.flatnonzero((score > scores[:, 0]) & ~np.isin(self._pair_codes(found.free), self._known_pairs))
        places, scores = places.copy(), scores.copy()
        places[rows, 1:], scores[rows, 1:] = places[rows, :-1], scores[rows, :-1]
        places[rows, 0], scores[rows, 0] = len(self.tree) + rows, score[rows]
        return places, scores

    def _unseen_names(self, found: Ranking) -> tuple[LabelPath, ...]:
        """The path at each position len(tree) + row: the row's best chain with its best brand."""
        if self.recipe.unseen_penalty is None:
            return ()
        chains, brands = self.tree.chains, self._brands
        return tuple(LabelPath(*chains[chain], brands[brand]) for chain, brand in found.free)

    @cached_property
    def _brands(self) -> tuple[str, ...]:
        """The brands in the order of their columns, with "", the unknown one, if a path has it."""
        return tuple(sorted({path[-1] for path in self.tree}))

    def _pair_codes(self, pairs: Ints) -> Ints:
        """A number for each pair of chain and brand."""
        return np.asarray(pairs[:, 0] * len(self._brands) + pairs[:, 1])

    @cached_property
    def _known_pairs(self) -> Ints:
        chain = {chain: place for place, chain in enumerate(self.tree.chains)}
        brand = {brand: place for place, brand in enumerate(self._brands)}
        levels = self.tree.levels
        return self._pair_codes(np.array([(chain[levels.chain_of(path)], brand[path[-1]]) for path in self.tree]))


def _columns_of(tree: LabelTree, *, siblings: bool) -> tuple[Ints, Ints]:
    """The columns that each path trains (paths, heads), and where each head's columns start and end (heads + 1,).

    In the head of a chain level a label is a class. If there is no brand, it is another class under each parent: then
    "other" has several, and the last head alone tells all paths apart. The end of a path is a class of the level where
    its first label is missing. On the levels after it, paths that ended share one class, so that such rows train the
    labels there to score low.
    """
    levels = tree.levels

    def class_of(path: LabelPath, level: int) -> tuple[str, tuple[str, ...]]:
        label, above = path[level], tuple(path[:level])
        if label:
            return label, () if levels.brand else above
        return "", above if above[-1] else ()

    classes: list[list[Any]] = [[class_of(path, level) for path in tree] for level in range(levels.depth)]
    if levels.brand:
        classes.append([path[-1] for path in tree])
    if siblings:
        classes.append(list(range(len(tree))))
    codes, sizes = [], []
    for given in classes:
        place = {each: at for at, each in enumerate(sorted(set(given)))}
        codes.append([place[each] for each in given])
        sizes.append(len(place))
    ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return np.stack(codes, axis=1).astype(np.int64) + ends[:-1], ends


def _rivals(tree: LabelTree, ends: Ints) -> Heads:
    """The rivals of a label are its whole head; in the head of siblings, those of a path are the paths of its parent.

    The parent is the chain without its last level. The tree is sorted, so the paths of a parent are neighbouring
    columns.
    """
    heads = Heads.of(np.diff(ends).tolist())
    if len(ends) - 1 > len(tree.levels):
        above = tree.levels.depth - 1
        parents = [path[:above] for path in tree]
        place = {each: at for at, each in enumerate(dict.fromkeys(parents))}
        parent = np.array([place[each] for each in parents])
        heads.first[ends[-2] :] = ends[-2] + np.searchsorted(parent, parent, side="left")
        heads.last[ends[-2] :] = ends[-2] + np.searchsorted(parent, parent, side="right")
    return heads


def _with_copies(
    rows: pd.DataFrame, path_of_row: Ints, levels: Levels, copies: int, seed: int
) -> tuple[pd.DataFrame, Ints]:
    """The rows and their paths, followed by noisy copies of them."""
    brands = rows[levels.brand].fillna("").tolist() if levels.brand else [""] * len(rows)
    lines = rows["description"].tolist()
    noisy = [rows.assign(description=noisy_copies(lines, brands, seed + copy)) for copy in range(copies)]
    return pd.concat([rows, *noisy]), np.tile(path_of_row, copies + 1)


def _named_labels(tree: LabelTree, columns: Ints) -> tuple[list[str], Ints]:
    """Label names and definitions as training examples, and their columns (texts, heads).

    "tata" is an example of that brand and says nothing about the levels above. "green tea" is an example of the chain
    of that module and says nothing about the brand; so is what the taxonomy says about it. A code, which has no letter,
    is no example of its chain.
    """
    levels = tree.levels
    texts: list[str] = []
    said: list[Ints] = []

    def say(text: str, path: int, heads: slice) -> None:
        texts.append(text)
        said.append(np.full(columns.shape[1], SILENT, dtype=np.int64))
        said[-1][heads] = columns[path, heads]

    if levels.brand:
        for brand, path in _first_with(path[-1] for path in tree).items():
            if brand:
                say(brand, path, slice(levels.depth, levels.depth + 1))
    chains = _first_with(map(levels.chain_of, tree))
    for text_of in (lambda chain: trim(chain)[-1], tree.definition_of):
        for chain, path in chains.items():
            if any(map(str.isalpha, text_of(chain))):
                say(text_of(chain), path, slice(0, levels.depth))
    return texts, np.array(said, dtype=np.int64).reshape(len(texts), columns.shape[1])


def _texts_without_rows(tree: LabelTree) -> list[str]:
    """What is said of paths that no row may say: their definitions, and the names of paths without rows."""
    without_rows = [path for path in tree if not tree.rows_of(path)]
    names = [trim(tree.levels.chain_of(path))[-1] for path in without_rows]
    brands = [path[-1] for path in without_rows if tree.levels.brand]
    return list(dict.fromkeys(filter(None, [*names, *brands, *tree.definitions])))


def _first_with(values: Iterable[Any]) -> dict[Any, int]:
    """The distinct values, each with its first place."""
    places: dict[Any, int] = {}
    for place, value in enumerate(values):
        places.setdefault(value, place)
    return places


def _softmax(scores: Floats) -> NDArray[np.float64]:
    """The softmax of each row's scores; a score of -inf gives 0."""
    weights = np.exp(scores.astype(np.float64) - scores[:, :1].astype(np.float64))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _finite(values: Floats) -> Floats:
    """Limit leads: one is infinite if there is no second label or path to compare with."""
    return np.clip(values, -_MAX_LEAD, _MAX_LEAD)
