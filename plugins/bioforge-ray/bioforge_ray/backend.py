"""The backend: what `async` asks and pays, sent from elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from bioforge.backends.openai.plugin import OpenAIBackend
from bioforge.plugin import BackendContext, Event, Work
from bioforge_ray.options import RayOptions

if TYPE_CHECKING:
    from collections.abc import Generator

    from bioforge_ray.worker import Settings

CLIENT_VARIABLES = ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID")
"""What the vendor's client reads beside the key: an account is the same on every node."""


class RayBackend(OpenAIBackend):
    """Calls from the workers of a Ray cluster, admitted one by one by the same scheduler as everywhere."""

    Options = RayOptions

    def __init__(self, context: BackendContext) -> None:
        super().__init__(context)
        self.options = (
            context.options if isinstance(context.options, RayOptions) else RayOptions.model_validate(context.options)
        )

    def check(self) -> None:
        if self.options.key_from == "worker":
            return  # each worker looks for it, and says so when there is none
        from bioforge.backends.openai.client import check_key

        for url in self._base_urls:
            check_key(replace(self.context, base_url=url))

    def execute(self, work: Work) -> Iterator[Sequence[Event]]:
        import time

        from bioforge.backends.driver import drive
        from bioforge.backends.scheduler.scheduler import Scheduler
        from bioforge_ray.lanes import RayLanes

        lanes = RayLanes(self.options, self.settings, work.limits.concurrency, work.stop)
        try:
            lanes.open()
            window = Scheduler(work.limits, work.retry, self.most, time.monotonic())
            with closing(cast("Generator[Sequence[Event], None, None]", drive(work, window, lanes))) as groups:
                for events in groups:
                    yield [*lanes.notices(), *events]
        finally:
            # A second time where all went well: `drive` has closed them by then.
            lanes.close(abandon=True)

    def settings(self, number: int) -> Settings:
        """What the worker of this number is told."""
        from bioforge_ray.worker import Settings

        from_driver = self.options.key_from == "driver"
        key = self.context.api_key if from_driver else None
        return Settings(
            replace(self.context, api_key=key, options={}, siblings={}),
            self._base_urls,
            number,
            key_from_environment=not from_driver,
            environment={name: os.environ[name] for name in CLIENT_VARIABLES if from_driver and name in os.environ},
        )

    @property
    def _base_urls(self) -> tuple[str, ...]:
        return tuple(self.options.base_urls) or (self.context.base_url,)
