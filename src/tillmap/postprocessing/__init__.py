"""From what an arm said to a label path with a calibrated confidence."""
