"""Any functions that write questions and summaries, as a generator."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pgseek.errors import InvalidInput
from pgseek.generators.base import WrittenKind


class CallableGenerator:
    """Functions of the caller.

    ``questions(text, title, count)`` returns at most ``count`` questions that the text answers, none where it
    has nothing to ask. ``summary(text, title)`` returns a text. ``model`` names what they write: when they
    change, so must the name, or texts written before are taken for theirs. ``concurrency`` is how many calls
    they stand at once.
    """

    def __init__(
        self,
        *,
        model: str,
        questions: Callable[[str, str, int], Iterable[str]] | None = None,
        summary: Callable[[str, str], str] | None = None,
        concurrency: int = 1,
    ) -> None:
        if not isinstance(model, str) or not model:
            raise InvalidInput(
                "give a name for what the functions write: CallableGenerator(questions=f, model='mine')"
            )
        for name, value in (("questions", questions), ("summary", summary)):
            if value is not None and not callable(value):
                raise InvalidInput(f"{name} is a {type(value).__name__}, but must be a function")
        if questions is None and summary is None:
            raise InvalidInput("give a function for questions, for a summary, or both")
        if type(concurrency) is not int or not 1 <= concurrency <= 256:
            raise InvalidInput(f"concurrency is {concurrency!r}, but must be from 1 to 256")
        self.identity = f"callable:{model}"
        self.model_id = self.identity
        self.concurrency = concurrency
        self.price = (0.0, 0.0)
        self._questions = questions
        self._summary = summary

    def generate(self, kind: WrittenKind, text: str, title: str, count: int) -> list[str]:
        """Return what the function of this kind writes. Raises `InvalidInput` if there is none."""
        if kind == "question" and self._questions is not None:
            made = self._questions(text, title, count)
            return made if isinstance(made, str) else list(made)  # type: ignore[return-value] # told by `cleaned`
        if kind == "summary" and self._summary is not None:
            return [self._summary(text, title)]
        raise InvalidInput(f"{self.model_id} has no function for a {kind}")
