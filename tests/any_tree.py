"""Random label trees of any shape: 1 to 8 levels, with or without a brand, with paths that end early."""

from hypothesis import strategies as st

from tillmap.core.taxonomy import LabelPath, LabelTree, Levels

FEW = ["a", "b", "a ", "A", "á", "a_", "_b", "a|b", "a__b", "\\u007c", "&"]
LABELS = st.sampled_from(FEW) | st.text(min_size=1, max_size=6).filter(str.strip)
LEVELS = st.integers(1, 8).flatmap(
    lambda count: st.sampled_from([None, f"level {count}"] if count > 1 else [None]).map(
        lambda brand: Levels(tuple(f"level {number}" for number in range(1, count + 1)), brand)
    )
)


def any_trees(labels=LABELS, levels=LEVELS, most=12):
    """Trees whose labels are drawn from `labels`. Some paths have no rows."""
    return levels.flatmap(lambda chosen: st.builds(
        lambda paths, rows: LabelTree(chosen, tuple(sorted(paths)), tuple(rows[: len(paths)])),
        st.lists(_paths(chosen, labels), min_size=1, max_size=most, unique=True),
        st.lists(st.integers(0, 5), min_size=most, max_size=most),
    ))  # fmt: skip


def _paths(levels, labels):
    chains = st.lists(labels, min_size=1, max_size=levels.depth).map(
        lambda chain: [*chain, *[""] * (levels.depth - len(chain))]
    )
    if levels.brand is None:
        return chains.map(lambda chain: LabelPath(*chain))
    return st.builds(lambda chain, brand: LabelPath(*chain, brand), chains, labels | st.just(""))
