"""The REST API, under /api/v1."""

from fastapi import APIRouter, Depends

from keel.studio.api import account, cards, costs, golden, items, judging, members, projects, quality, rounds, snapshots
from keel.studio.api.identity import PREFIX, permitted
from keel.studio.api.models import Refusal

REFUSALS = {
    401: "Not signed in",
    403: "Not allowed",
    404: "Not there, or not for you",
    409: "Does not fit what is there",
    413: "Too large",
    422: "A value that does not fit",
    429: "Too fast",
}

router = APIRouter(
    prefix=PREFIX,
    dependencies=[Depends(permitted)],
    responses={status: {"model": Refusal, "description": text} for status, text in REFUSALS.items()},
)
for part in (account, projects, items, judging, quality, costs, cards, golden, rounds, members, snapshots):
    router.include_router(part.router)
