"""A cluster profile: was it measured on the job's GPU?"""

from collections.abc import Iterator

from zero_sizer.config.context import Context, Rule
from zero_sizer.findings import Direction, Finding, Severity
from zero_sizer.hardware.cluster import Cluster


def another_gpu(context: Context) -> Iterator[Finding]:
    """A profile of a GPU that is not in the table, which may not be the job's."""
    yield from of_another_gpu(context.cluster)


def of_another_gpu(cluster: Cluster) -> Iterator[Finding]:
    """The finding, where there is one; a profile of another GPU of the table is refused before."""
    profile = cluster.measured
    if profile is None or not profile.is_of_unknown_gpu:
        return
    about = (
        f"{profile.source} was measured on {profile.gpu_name or 'a GPU'}, which is not in the GPU "
        "table"
    )
    if cluster.gpu is None:
        yield Finding(
            code="cluster-profile-gpu",
            severity=Severity.NOTE,
            key="--cluster-profile",
            message=f"{about}: it is taken to be the job's",
            remedy="calibrate on the job's GPU where it is another",
        )
        return
    yield Finding(
        code="cluster-profile-gpu",
        severity=Severity.WARNING,
        key="--cluster-profile",
        message=f"{about}, and the job runs on {cluster.gpu.name}: context, NCCL and reserve are "
        "another card's",
        remedy="leave it out, or calibrate on that GPU; of a card that is in no table, state "
        "--gpu-memory in place of --gpu",
        direction=Direction.EITHER,
    )


RULES: tuple[Rule, ...] = (another_gpu,)
