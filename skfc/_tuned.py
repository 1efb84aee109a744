"""Every measured threshold: its value, unit and reason, in one place.

`python -m benchmarks ablate` switches them off one at a time. Numbers that follow from the
arithmetic (the range of exponentials, rounding of a value) stand where they are used.
"""

from contextlib import contextmanager
from dataclasses import dataclass, fields


@dataclass
class Tuned:
    """The thresholds. Pages are those of docs/decisions."""

    # -- memory and blocks, in bytes and numbers ------------------------------------------------
    block_bytes: int = 16 * 2**20  # a block of dense rows: X is read once for both products
    min_block_rows: int = 512  # fewer rows cost more in calls than the cache saves
    block_operations: int = 2**26  # of a block that pays for a thread
    batch_share: int = 16  # batches of an epoch; a sample, new rows of a stream are one
    small_block_bytes: int = 2**20  # stays in the cache: copied rows, residuals of sparse ones
    piece_bytes: int = 2**19  # weights that a thread adds at a time
    dense_share: float = 0.02  # stored values from which columns are treated as dense ones
    row_major_from: int = 16  # classes from which sparse logits stay as products give them
    few: int = 64  # classes, features: matrices that are cheap all at once
    few_numbers: int = 2**25  # of a copy of all rows, of all blocks, of folds solved together

    # -- precision: float32-first.md --------------------------------------------------------------
    single_digits: float = 1e-6  # relatively: what float32 tells from rounding, in any sum
    single_from: int = 2**17  # numbers from which float32 saves time
    small_loss: float = 1e-3  # mean loss below which nearly all rows are decided
    few_single: int = 2**21  # numbers of float32 rows that are held in float64
    next_to_one_another: float = 1e-2  # spread of most values, in standard deviations, that is
    lost_digits: float = 1e-3  # share of a standard deviation that rounding of a column may be

    # -- samples of rows: block-diagonal.md -------------------------------------------------------
    nearly_all: float = 1.5  # rows, in sizes of a sample, of which all are taken
    all_rows_small: float = 10.0  # the same for a Hessian, where a copy of all rows is small
    least_chance: float = 0.1  # chance of a row of no weight beside one of mean weight
    hessian_rows: int = 1000  # rows of a sampled Hessian or a Gram matrix, and more per feature
    rows_per_feature: int = 8  # more rows of a sample, for every feature
    probes: int = 10  # random vectors that tell the leverage of rows

    # -- preconditioners ------------------------------------------------------------------------
    no_curvature: float = 1e-13  # relative to the largest: curvature that is rounding
    rounding_of_gram: float = 1e-10  # of its diagonal: what rounding of a Gram matrix may be
    block_price: float = 4.0  # steps that a look at blocks or at the diagonal costs; all rows may
    numbers_per_step: float = 200.0  # features x classes of blocks for one step more
    hessian_rows_per_direction: int = 55  # rows of a Hessian per effective degree of freedom
    operations_per_logit: float = 100.0  # of exponentials, in operations of a matrix product

    # -- the ladder of "auto" -------------------------------------------------------------------
    hessian_size: int = 500  # features x classes of the largest Hessian
    most_passes: float = 30.0  # what a preconditioner may cost to form
    speed_of_matrices: float = 10.0  # of operations of matrices, beside those of a pass
    merge_share: float = 0.8  # features left from which merging columns pays

    # -- conjugate gradients and Newton -----------------------------------------------------------
    accuracy: float = 0.01  # of what is found step by step: what may be left
    look_back: int = 3  # steps that tell how fast a series converges, or that it does not
    most_steps: int = 100  # products of a step or an estimate, trials on a line
    wolfe_newton: float = 0.25  # a trial on the line costs less than a step
    stronger: float = 10.0  # from a penalty to the next, from a doubtful estimate to the next
    most_damping: int = 12  # times that a penalty is made stronger, at the most

    # -- L-BFGS, gradient descent, line searches --------------------------------------------------
    memory: int = 10  # pairs of L-BFGS
    armijo: float = 1e-4
    wolfe: float = 0.9
    smooth_share: float = 0.5  # of what the slope promises, of a step: less is a short step

    # -- proximal steps: elastic-net.md -----------------------------------------------------------
    least_working_set: int = 150  # zero weights that may enter at a time, and as many as are not
    most_coordinates: int = 3000  # weights of the largest Hessian; fewer where rows are many
    sweeps: int = 10  # of coordinate descent before signs are tried
    mixed: float = 0.25  # share of the targets in the curvature, until full steps are taken

    # -- the gap: gap-rules.md --------------------------------------------------------------------
    share_to_come: float = 0.3  # of a decrement: what an estimate may leave; of curvature
    thorough_steps: int = 30  # products of an estimate where nothing is proven, and of Lanczos
    decided: float = 0.3  # probability left to other classes from which a row is not decided
    far_out: float = 3.0  # 1 + |x|²/N of a row whose curvature may hide that of others; mean 2
    small_tol: float = 1e-6  # tol at which no row may move by more than a logit
    far_logits: float = 0.25  # nor may it by more than this if it is
    farther: float = 20.0  # as many times what is typical: a movement, a scale stands out
    steps_per_root: float = 0.5  # products of an estimate, times the root of the condition
    decided_steps: int = 12  # products of an estimate where few may miss a row
    farthest_intercept: float = 100.0  # logits that the intercepts may be from the minimum's
    largest_program: int = 2**23  # coefficients of a linear program that finds separation
    patience: int = 25  # iterations that a method may take before another goes on, or none

    # -- streams: streams.md ----------------------------------------------------------------------
    stream_refresh: float = 1.2  # growth of the rows that renews the preconditioner
    stream_overfit: float = 1.6  # loss of new rows before and after the steps


TUNED = Tuned()


@contextmanager
def override(**values):
    """Other values for a while: for measurements of what a threshold is worth."""
    known = {f.name for f in fields(Tuned)}
    unknown = set(values) - known
    if unknown:
        raise TypeError(f"no such threshold: {sorted(unknown)}")
    before = {name: getattr(TUNED, name) for name in values}
    try:
        for name, value in values.items():
            setattr(TUNED, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(TUNED, name, value)
