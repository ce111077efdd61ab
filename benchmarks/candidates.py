"""The candidates of one line and what the reranker knows about them, in a project with a trained `rerank` arm.

    python benchmarks/candidates.py LINE [--price PRICE] [--retailer NAME] [--count N]

Prints how many candidates there are, how surely the first is right, and for the first ones the features that
docs/rerank.md explains.
"""

import argparse

import pandas as pd

from tillmap.config import paths
from tillmap.core.files import read_table
from tillmap.linear import fits
from tillmap.rerank.evidence import Evidence
from tillmap.rerank.reranker import Reranker

SHOWN = (
    "total", "rank", "line_path_best", "line_path_votes_by_price", "line_chain_votes", "brand_shared", "brand_letters",
    "last_label_best", "rows_of_path", "chain_given_brand", "known", "price_path_fit", "price_path_exact",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("line")
    parser.add_argument("--price", type=float, default=float("nan"))
    parser.add_argument("--retailer", default="")
    parser.add_argument("--count", type=int, default=5, help="candidates to print; default %(default)s")
    args = parser.parse_args()
    reranker = Reranker.load(paths.MODELS / "rerank")
    if reranker.trees is None:
        parser.exit(1, "rerank gains nothing here: the linear model answers\n")
    model = fits.load(paths.LINEAR)
    rows = fits.rows_of(paths.LINEAR, fits.fit_for("test"), read_table(paths.ROWS), model.tree)
    evidence = Evidence.of(model, rows)
    item = pd.DataFrame({"description": [args.line], "retailer": [args.retailer], "price": [args.price]})
    ((found, described),) = evidence.chunks(item, reranker.candidates, read=reranker.read_brand)
    (ranked,) = reranker.rank(evidence, item, args.count)
    place = {
        evidence.path(chain, brand, args.line): at
        for at, (chain, brand) in enumerate(zip(found.chain.tolist(), found.brand.tolist(), strict=True))
    }
    known = described[:, evidence.features.index("known")]
    print(f"{len(known)} candidates, {int((known == 0).sum())} of them pairs that no training row has\n")
    table = pd.DataFrame(
        [described[place[path]][[evidence.features.index(name) for name in SHOWN]] for path, _ in ranked],
        columns=SHOWN, index=[" | ".join(path[-2:]) for path, _ in ranked],
    )  # fmt: skip
    table.insert(0, "share", [share for _, share in ranked])
    print(table.T.to_string(float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
