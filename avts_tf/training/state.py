"""How far a training has come."""

import dataclasses


@dataclasses.dataclass
class TrainingState:
    """What a checkpoint holds beside the arrays; all of it goes through JSON.

    Attributes:
        epochs: whole epochs that are done.
        step: steps of the next epoch that are done.
        start: position of each machine in its share of the records after that step (see
            `PipelineState.start`).
        logs: what the last step returned: means over its epoch so far.
        rows: rows of history.csv.
        records: glob of the records.
        shards: (path, number of records, stamp) of each file when the training began.
        steps_per_epoch: as the schedule of the learning rate counts them.
        first_epoch: epochs of the runs that this one starts from, which come before its own.
        first_step: steps of the optimiser that were done before this run.
    """

    epochs: int = 0
    step: int = 0
    start: list[int] = dataclasses.field(default_factory=list)
    logs: dict = dataclasses.field(default_factory=dict)
    rows: list = dataclasses.field(default_factory=list)
    records: str = ''
    shards: list = dataclasses.field(default_factory=list)
    steps_per_epoch: int = 0
    first_epoch: int = 0
    first_step: int = 0

    @property
    def steps_done(self) -> int:
        """Steps since the beginning of the training."""
        return self.epochs * self.steps_per_epoch + self.step

    def shard_counts(self) -> list:
        """(path, number of records) of each file, as `shards.find_shards` gives them."""
        return [(path, count) for path, count, _ in self.shards]
