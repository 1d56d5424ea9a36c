"""Reads what other programs export. Their formats change without notice, so unknown fields are skipped.

In messages, what is neither text nor thoughts is replaced by a line that names it; calls of tools and their
results are left out.
"""
