"""Scenarios of the Batch API: what may happen to a batch, and to who waits for it."""

from __future__ import annotations

from gate import MOMENTS
from scenarios import scenario
from stage import CALLS, Stage

FILES, BATCHES = r"^/v1/files$", r"^/v1/batches$"


@scenario("b-kill-before-create", "kill -9 between upload and create", "batch", random=True)
def kill_before_create(stage: Stage) -> None:
    """The tool is killed when its file is uploaded: before it hears of it, or in the moment it asks for the batch and
    before the server gets that."""
    if stage.repeat % 2:
        stage.run_killed(1, "after", path=FILES)
    else:
        stage.run_killed(1, "before", path=BATCHES)
    stage.finish()


@scenario("b-kill-after-create", "kill -9 after create", "batch", random=True)
def kill_after_create(stage: Stage) -> None:
    """The tool is killed when its batch is created: before it hears of it, or up to 50 ms later."""
    if stage.repeat % 2:
        stage.run_killed(1, "delivered", path=BATCHES, delay=stage.draw.uniform(0, 0.05))
    else:
        stage.run_killed(1, "after", path=BATCHES)
    stage.finish()


@scenario("b-kill-collect", "kill -9 while collecting", "batch", random=True)
def kill_collecting(stage: Stage) -> None:
    """The tool is killed when it fetches the results: before it has them, or up to 50 ms later."""
    moment = (MOMENTS[0], MOMENTS[2])[stage.repeat % 2]
    stage.run_killed(1, moment, method="GET", path=r"/content$", delay=stage.draw.uniform(0, 0.05))
    stage.finish()


@scenario("b-kill-anywhere", "kill -9 at any of its calls, twice", "batch", random=True)
def kill_anywhere(stage: Stage) -> None:
    """The tool is killed at a random call, whatever it is, and the next run as well."""
    for _ in range(2):
        method, at = stage.draw.choice([("GET", stage.draw.randint(1, 5)), ("POST", stage.draw.randint(1, 2))])
        moment = stage.draw.choice(MOMENTS)
        stage.run_killed(at, moment, method=method, path=CALLS, delay=stage.draw.uniform(0, 0.05))
    stage.finish()


@scenario("b-create-lost", "answer to create lost", "batch", batch_script=["create_lost"])
def create_lost(stage: Stage) -> None:
    """The batch is created, and the connection closes without an answer."""
    stage.run()
    stage.finish()


@scenario("b-upload-lost", "answer to upload lost", "batch", batch_script=["upload_lost"])
def upload_lost(stage: Stage) -> None:
    """The file is stored, and the connection closes without an answer."""
    stage.run()
    stage.finish()


@scenario("b-expired", "expired at 60%", "batch", batch_script=["expired=0.6"])
def expired(stage: Stage) -> None:
    """The first batch expires with 18 of its 30 lines done, and charged."""
    stage.run()
    stage.finish()


@scenario("b-cancelled", "cancelled in the middle", "batch", batch_script=["cancelled=0.5"])
def cancelled(stage: Stage) -> None:
    """The first batch is cancelled by somebody with 15 of its 30 lines done, and charged."""
    stage.run()
    stage.finish()


@scenario("b-missing", "lines missing", "batch", batch_script=["lines_missing=0.2"])
def missing(stage: Stage) -> None:
    """A fifth of the lines is answered by nobody: in neither file, not charged."""
    stage.run()
    stage.finish()


@scenario("b-lost", "lines charged and lost", "batch", batch_script=["lines_lost=0.2"])
def lines_lost(stage: Stage) -> None:
    """A fifth of the lines is charged, and in neither file: lost by the provider."""
    stage.run()
    stage.finish()


@scenario("b-duplicated", "lines duplicated", "batch", batch_script=["lines_duplicated=0.5"])
def duplicated(stage: Stage) -> None:
    """Half of the lines stand in their file twice, and are charged once."""
    stage.run()
    stage.finish()


@scenario(
    "b-shuffled",
    "lines shuffled, and of strangers",
    "batch",
    batch_script=["lines_shuffled+unknown_lines=3+several_items+wrong_counts"],
)
def shuffled(stage: Stage) -> None:
    """The lines come in another order, with three for requests that nobody sent, and the counts are zeros."""
    stage.run()
    stage.finish()


@scenario("b-row-errors", "lines with errors", "batch", batch_script=["row_errors=0.3"])
def row_errors(stage: Stage) -> None:
    """A third of the lines, about, is answered 500, and not charged."""
    stage.run()
    stage.finish()


@scenario("b-download", "download breaks off", "batch", batch_script=["download_truncated=2"])
def download(stage: Stage) -> None:
    """The first two downloads of the results end halfway."""
    stage.run()
    stage.finish()
