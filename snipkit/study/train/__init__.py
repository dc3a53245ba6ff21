"""Training for the study: runs are described, scheduled, carried out and recorded."""
