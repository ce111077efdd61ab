"""The roles of a row in the cascade."""

# KEPT: the free arm answers. TRIAL: a labelled row that the language model is tried on. ROUTED: the language model
# answers, if the trial shows a gain.
KEPT, TRIAL, ROUTED = "kept", "trial", "routed"
