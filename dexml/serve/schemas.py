"""What goes over the wire. Types are strict and unknown keys are refused, so a typing error is an answer of 422."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _whole(text: str) -> str:
    """JSON can name half a surrogate pair, which is no character."""
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("half a surrogate pair is no character")
    return text


Text = Annotated[str, AfterValidator(_whole)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Wanted(_Strict):
    k: int = Field(5, ge=1, description="Labels of a text, at most.")
    threshold: float | None = Field(
        None, ge=0, lt=1, description="Only labels with a probability above this; needs a calibrated model."
    )
    neighbours: int = Field(0, ge=0, le=50, description="Nearest training texts; needs a model served with texts.")
    model: Text | None = Field(None, description="One of /models; the first by default.")


class OneText(_Wanted):
    text: Text = Field(description="What to find labels for.", examples=["a knight fights a dragon by the sea"])


class ManyTexts(_Wanted):
    texts: list[Text] = Field(
        min_length=1, description="As if each were asked alone.", examples=[["a ship", "a storm"]]
    )


class Label(BaseModel):
    id: int
    text: str
    score: float = Field(description="Inner product of the embeddings; comparable within a model.")
    probability: float | None = Field(None, description="Only of a calibrated model.")


class Neighbour(BaseModel):
    text: str
    similarity: float
    labels: list[str]


class Answer(BaseModel):
    model: str
    labels: list[Label] = Field(description="Best first.")
    neighbours: list[Neighbour] | None = None


class Answers(BaseModel):
    model: str
    results: list[Answer] = Field(description="In the order of the texts.")


class NewLabels(_Strict):
    labels: list[Text] = Field(min_length=1, description="Texts of one line.", examples=[["moonlit harbour"]])
    model: Text | None = None


class Changed(BaseModel):
    model: str
    ids: list[int] = Field(description="Of the labels added or removed.")
    count: int = Field(description="Labels that the model now has.")


class Model(BaseModel):
    name: str
    labels: int
    calibrated: bool
    changeable: bool = Field(description="Whether labels can be added and removed with the token.")
    training_texts: int
    examples: list[str] = Field(description="Some training texts.")


class Status(BaseModel):
    status: str


class Problem(BaseModel):
    detail: str
