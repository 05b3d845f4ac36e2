"""Pages: self-contained HTML files that open offline. They show what others computed."""

from .classifier import of_evaluation, of_run

__all__ = ["of_evaluation", "of_run"]
