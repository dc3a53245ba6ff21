"""Checks of the labs' answers.

Each failure is one sentence that says what is wrong and where to look.
"""
