"""The backend class: `async` with an executor on Ray workers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from bioforge.plugin import AsyncBackend, BackendContext, Event, Executor, Work
from bioforge_ray.options import RayOptions

if TYPE_CHECKING:
    from collections.abc import Generator

    from bioforge_ray.worker import Settings

CLIENT_VARIABLES = ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID")
"""Account settings that the OpenAI SDK reads from the environment, beside the key; copied to every worker."""


class RayBackend(AsyncBackend):
    """Calls from the workers of a Ray cluster, admitted one by one by the scheduler that all backends share."""

    Options = RayOptions

    def __init__(self, context: BackendContext) -> None:
        super().__init__(context)
        self.options = (
            context.options if isinstance(context.options, RayOptions) else RayOptions.model_validate(context.options)
        )

    def check(self) -> None:
        """Check the key for every server; with `key_from = "worker"` each worker checks its own."""
        if self.options.key_from == "driver":
            for url in self._base_urls:
                AsyncBackend(replace(self.context, base_url=url, options={})).check()

    def execute(self, work: Work) -> Iterator[Sequence[Event]]:
        """Send the work from the cluster, with notices about its workers."""
        from bioforge_ray.executor import RayExecutor

        self._executor = RayExecutor(self.options, self.settings, work.limits.concurrency, work.control.stop)
        try:
            self._executor.open()
            with closing(cast("Generator[Sequence[Event], None, None]", super().execute(work))) as groups:
                for events in groups:
                    yield [*self._executor.notices(), *events]
        finally:
            # also if the run failed before it closed the executor
            self._executor.close(abandon=True)

    def executor(self, concurrency: int) -> Executor:
        """Return the executor that `execute` opened."""
        return self._executor

    def settings(self, number: int) -> Settings:
        """Return what the worker of this number receives when it starts."""
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
