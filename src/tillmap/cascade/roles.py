"""The arm that answers for nothing, and what becomes of a row."""

FREE_ARM = "linear"  # answers the rows that it is sure of

# A row is kept by the free arm, asked to try the model on, or routed to the model for its answer.
KEPT, TRIAL, ROUTED = "kept", "trial", "routed"
