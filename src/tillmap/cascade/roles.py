"""The free arm of the cascade, and the roles of a row."""

FREE_ARM = "linear"  # answers the rows that are not routed

# KEPT: the free arm answers. TRIAL: a labelled row that the language model is tried on. ROUTED: the language model
# answers, if the trial shows a gain.
KEPT, TRIAL, ROUTED = "kept", "trial", "routed"
