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
SEEN = MODELS / "seen.json"  # the retailers and words of the training subset
CONFIDENCE = MODELS / "confidence"
REVIEW = Path("data/review")
METRICS = Path("metrics")
PLOTS = Path("plots")

QUESTIONS = "questions.jsonl"
ANSWERS = "answers.json"  # beside the questions, where the same answers are the only ones allowed to all
TRIAL = "trial.jsonl"  # the cascade's questions that are asked first
ROUTES = "routes.parquet"  # beside them: which rows are asked at all
TRAINING = "training.jsonl"  # beside them, for an arm that is tuned
JOB = "job.json"  # of a model tuned at a provider: its name and what it cost
ROWS = SPLIT / "rows.parquet"
TREE = SPLIT / "tree.parquet"
