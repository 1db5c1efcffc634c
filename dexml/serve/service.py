"""What requests may ask of the models: the checks between the routes and the worker."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from dexml.serve.limits import Limits
from dexml.serve.metrics import Metrics
from dexml.serve.schemas import ManyTexts, OneText
from dexml.serve.served import Query, Served
from dexml.serve.worker import Worker


class Service:
    """The models, the worker and what requests may do with them."""

    def __init__(self, models: Sequence[Served], limits: Limits, token: str | None = None) -> None:
        """`token` allows label changes; without one they are off."""
        self.models = {model.name: model for model in models}
        self.limits, self.token = limits, token
        self.metrics = Metrics()
        self.worker = Worker(limits.waiting, self.metrics.computed)
        self.metrics.follow(lambda: self.worker.items)
        for model in models:
            self.metrics.labels.labels(model.name).set_function(model.labels.__len__)

    def model(self, name: str | None) -> Served:
        """404 if there is none of this name."""
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise HTTPException(404, f"no model {name[:80]!r}: there are {', '.join(self.models)}")
        return self.models[name]

    def queries(self, model: Served, wanted: OneText | ManyTexts) -> list[Query]:
        """422 if the texts or what is wanted for them cannot be."""
        texts = [wanted.text] if isinstance(wanted, OneText) else wanted.texts
        self.check(texts, self.limits.chars, "text")
        if wanted.k > self.limits.labels:
            raise HTTPException(422, f"k is {wanted.k}: at most {self.limits.labels} here")
        if wanted.threshold is not None and not model.calibrated:
            raise HTTPException(422, f"{model.name} is not calibrated: its scores are not probabilities; no threshold")
        if wanted.neighbours and model.texts is None:
            raise HTTPException(422, f"{model.name} is served without training texts: neighbours must be 0")
        return [Query(text, wanted.k, wanted.threshold, wanted.neighbours) for text in texts]

    def check(self, texts: Sequence[str], chars: int, kind: str) -> None:
        """422 for too many, too long or blank texts."""
        if len(texts) > self.limits.texts:
            raise HTTPException(422, f"{len(texts):,} {kind}s: at most {self.limits.texts:,} a request")
        for number, text in enumerate(texts, start=1):
            name = f"the {kind}" if len(texts) == 1 else f"{kind} {number}"
            if not text.strip():
                raise HTTPException(422, f"{name} is empty")
            if len(text) > chars:
                raise HTTPException(422, f"{name} has {len(text):,} characters: at most {chars:,}")

    def may_change(
        self, given: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]
    ) -> None:
        """401 without the token, 403 if there is none."""
        if self.token is None:
            raise HTTPException(403, "label changes are off: start the service with a token")
        if given is None or not hmac.compare_digest(given.credentials.encode(), self.token.encode()):
            raise HTTPException(401, "label changes need the token", {"www-authenticate": "Bearer"})
