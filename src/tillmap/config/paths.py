"""The paths of the project's files, for the stages and the command line. dvc.yaml names the same paths."""

from pathlib import Path

PARAMS = Path("params.yaml")
DEMO = Path("data/demo")
RAW = Path("data/raw")
SPLIT = Path("data/split")
ROWS = SPLIT / "rows.parquet"
TREE = SPLIT / "tree.parquet"
INDEX = Path("data/index")
NEIGHBOURS = Path("data/neighbours")
CANDIDATES = Path("data/candidates")
LOOKUP = Path("data/lookup")  # the answers of a paid provider of descriptions; kept by every run
ABOUT = Path("data/about.parquet")  # the descriptions that prompts show
PROMPTS = Path("data/prompts")
COMPLETIONS = Path("data/completions")
RULES = Path("data/answer_rules")  # how to read the completions, see `AnswerRules`
CURVES = Path("data/curves")  # the loss of each step, written while training runs
USAGE = Path("data/usage")  # seconds, tokens and device of training and answering, for the bill
PREDICTIONS = Path("data/predictions")
CASCADE = Path("data/cascade")
REVIEW = Path("data/review")
AUDIT = Path("data/audit")
SUSPECTS = AUDIT / "suspects.parquet"  # labelled rows whose label looks wrong
SIMILAR = AUDIT / "similar.parquet"  # the most similar rows of other products, of each suspect
SHARE = AUDIT / "share.json"  # the estimated share of wrong labels
DECISIONS = Path("data/decisions.jsonl")  # the log of `tillmap review`: people's work, of this machine alone
MODELS = Path("models")
BASE = MODELS / "base"
LINEAR = MODELS / "linear"
SEEN = MODELS / "seen.json"  # the retailers and words of the training subset
CONFIDENCE = MODELS / "confidence"
REPORT = Path("report")
METRICS = Path("metrics")
PLOTS = Path("plots")
TABLE = PLOTS / "table.txt"
ESTIMATE = PLOTS / "estimate.txt"
