"""Pages for people, made on the server from what the REST API says. `router` holds them all."""

from fastapi import APIRouter

from keel.studio.pages import account, door, manage, nowhere, project, rater, rounds, work

router = APIRouter()
for part in (door, rater, project, work, rounds, manage, account, nowhere):
    router.include_router(part.router)
