"""The routes. Every handler waits for the worker and computes nothing itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from pydantic import Field

from dexml import __version__
from dexml.data.files import DataError
from dexml.serve import schemas
from dexml.serve.limits import Gate, Limits
from dexml.serve.metrics import Counted
from dexml.serve.pages import page_headers, reference_page, web_page
from dexml.serve.served import Served
from dexml.serve.service import Service
from dexml.serve.worker import Overloaded

LabelId = Annotated[int, Field(ge=0, lt=1 << 63)]
STUCK = 60.0  # seconds of one call after which the service calls itself not ready
ABOUT = "Labels for texts. Scores are inner products of embeddings; only a calibrated model tells probabilities."


def make_app(models: Sequence[Served], limits: Limits | None = None, token: str | None = None) -> FastAPI:
    """The service of these models; the first answers where none is named."""
    service = Service(models, limits or Limits(), token)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.worker:
            yield

    problems: dict[int | str, dict[str, Any]] = {
        status: {"model": schemas.Problem} for status in (400, 404, 408, 413, 422, 429)
    }
    app = FastAPI(
        title="dexml", version=__version__, description=ABOUT, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    for router in (_predicting(service), _changing(service)):
        app.include_router(router, responses=problems)
    app.include_router(_watching(service))
    app.include_router(_pages(app), include_in_schema=False)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Overloaded, _overloaded)
    app.add_exception_handler(Exception, _failed)
    app.add_middleware(Gate, limits=service.limits)
    app.add_middleware(Counted, metrics=service.metrics)
    return app


def _predicting(service: Service) -> APIRouter:
    router = APIRouter(tags=["predict"])

    @router.get("/models", response_model=list[schemas.Model])
    async def models() -> Any:
        """The models that are served."""
        return [_describe(model, service.token is not None) for model in service.models.values()]

    @router.post("/predict", response_model=schemas.Answer)
    async def predict(wanted: schemas.OneText) -> Any:
        """The best labels of a text."""
        model = service.model(wanted.model)
        found = await service.worker.run(model.answer, service.queries(model, wanted))
        return JSONResponse({"model": model.name, **found[0]})

    @router.post("/predict/batch", response_model=schemas.Answers)
    async def predict_batch(wanted: schemas.ManyTexts) -> Any:
        """The best labels of each of several texts."""
        model = service.model(wanted.model)
        found = await service.worker.run(model.answer, service.queries(model, wanted))
        return JSONResponse({"model": model.name, "results": [{"model": model.name, **one} for one in found]})

    return router


def _changing(service: Service) -> APIRouter:
    router = APIRouter(
        tags=["labels"],
        dependencies=[Depends(service.may_change)],
        responses={status: {"model": schemas.Problem} for status in (401, 403, 409)},
    )

    @router.post("/labels", response_model=schemas.Changed)
    async def add_labels(new: schemas.NewLabels) -> Any:
        """Adds labels by their texts; they are found from now on, and after a restart."""
        model = service.model(new.model)
        service.check(new.labels, service.limits.chars // 10, "label")
        return _changed(model, await _change(service, lambda: model.labels.add(new.labels)))

    @router.delete("/labels", response_model=schemas.Changed)
    async def remove_labels(
        id: Annotated[list[LabelId], Query(description="Of a label; several: ?id=3&id=5.")], model: str | None = None
    ) -> Any:
        """Removes labels; the others keep their ids, and these are never given again."""
        one = service.model(model)
        await _change(service, lambda: one.labels.remove(id))
        return _changed(one, id)

    return router


def _watching(service: Service) -> APIRouter:
    router = APIRouter(tags=["watch"])

    @router.get("/health", response_model=schemas.Status)
    async def health() -> Any:
        """Alive: the service answers."""
        return {"status": "ok"}

    @router.get("/ready", response_model=schemas.Status, responses={503: {"model": schemas.Status}})
    async def ready() -> Any:
        """Ready: the computing thread is not stuck."""
        stuck = service.worker.busy > STUCK
        return JSONResponse({"status": "stuck" if stuck else "ready"}, 503 if stuck else 200)

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Any:
        """For Prometheus."""
        return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def _pages(app: FastAPI) -> APIRouter:
    router = APIRouter()

    @router.get("/")
    async def page() -> HTMLResponse:
        return HTMLResponse(web_page(), headers=page_headers(web_page()))

    @router.get("/docs")
    async def reference(request: Request) -> HTMLResponse:
        html = reference_page(app.openapi(), str(request.base_url))
        return HTMLResponse(html, headers=page_headers(html))

    return router


async def _change(service: Service, change: Any) -> Any:
    try:
        return await service.worker.alone(change)
    except DataError as error:
        raise HTTPException(409, str(error)) from None


def _changed(model: Served, ids: Sequence[int]) -> dict[str, Any]:
    return {"model": model.name, "ids": list(ids), "count": len(model.labels)}


def _describe(model: Served, changeable: bool) -> dict[str, Any]:
    texts = model.texts
    return {
        "name": model.name,
        "labels": len(model.labels),
        "calibrated": model.calibrated,
        "changeable": changeable and model.changeable,
        "training_texts": 0 if texts is None else len(texts.texts),
        "examples": model.examples,
    }


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """Without the input, which may hold what cannot be sent back (lone surrogates, NaN)."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    told = f"{place}: {first['msg']}" if place else first["msg"]
    return JSONResponse({"detail": told.encode(errors="replace").decode()}, 422)


async def _overloaded(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Overloaded)
    return JSONResponse({"detail": str(error)}, 429, {"retry-after": str(error.retry_after)})


async def _failed(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "the service failed at this request; its log says why"}, 500)
