"""How a criterion is called: what it is given, checked, and how its scores are made comparable."""
