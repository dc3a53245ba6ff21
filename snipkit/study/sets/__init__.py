"""The data sets of the study: fetched, verified, decoded and split."""
