"""Where the project's files are, for the stages and the command line. dvc.yaml names the same places."""

from pathlib import Path

PARAMS = Path("params.yaml")
DEMO = Path("data/demo")
RAW = Path("data/raw")
SPLIT = Path("data/split")
INDEX = Path("data/index")
NEIGHBOURS = Path("data/neighbours")
PROMPTS = Path("data/prompts")
COMPLETIONS = Path("data/completions")
PREDICTIONS = Path("data/predictions")
MODELS = Path("models")
BASE = MODELS / "base"
CONFIDENCE = MODELS / "confidence"
METRICS = Path("metrics")
PLOTS = Path("plots")

QUESTIONS = "questions.jsonl"
ANSWERS = "answers.json"  # beside the questions, where the same answers are the only ones allowed to all
TRAINING = "training.jsonl"  # beside them, for an arm that is tuned
JOB = "job.json"  # of a model tuned at a provider: its name and what it cost
SEEN = "seen.json"  # beside the linear arm's model: the retailers and words that it was shown
ROWS = SPLIT / "rows.parquet"
TREE = SPLIT / "tree.parquet"
