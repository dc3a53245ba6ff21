"""Checks of the labs' answers: each failure is one sentence that says what is wrong and where to look."""
