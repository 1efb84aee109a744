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
    batch_share: int = (
        16  # batches of an epoch; in a stream, the share of new rows that asks for steps
    )
    small_block_bytes: int = 2**20  # stays in the cache: copied rows, residuals of sparse ones
    piece_bytes: int = 2**19  # weights that a thread adds at a time
    dense_share: float = 0.02  # stored values from which a Gram matrix of dense rows is faster
    row_major_from: int = 16  # classes from which sparse logits stay as products give them
    few: int = 64  # classes, features: matrices that are cheap all at once
    few_numbers: int = 2**25  # of a copy of all rows, or of folds solved together

    # -- precision: float32-first.md --------------------------------------------------------------
    single_from: int = 2**17  # numbers from which float32 saves time
    single_until: float = 1e-6  # decrement / F down to which float32 passes serve
    single_until_coarse: float = 1e-4  # the same without a penalty, or with means far from zero
    small_loss: float = 1e-3  # mean loss below which float32 has no digits, or classes part
    near_zero: float = 10.0  # mean in standard deviations that leaves float32 squares digits
    few_single: int = 2**21  # numbers of float32 rows that are held in float64
    stored_share: float = 0.05  # of rows: sparse columns that are looked into
    next_to_one_another: float = 1e-2  # spread of most values, in standard deviations, that is
    lost_digits: float = 1e-3  # share of a standard deviation that rounding of a column may be
    cancelled: float = 1e-6  # variance / square below which it is computed in two passes

    # -- samples of rows: block-diagonal.md -------------------------------------------------------
    nearly_all: float = 1.5  # rows, in sizes of a sample, of which all are taken; drawn anew
    least_chance: float = 0.1  # chance of a row of no weight beside one of mean weight
    hessian_rows: int = 2000  # rows of a sampled Hessian, and more per feature
    rows_per_feature: int = 8  # more rows of a sample, for every feature
    all_rows_small: float = 5.0  # the same of the rows of a Hessian, where a copy is small
    gram_rows: int = 1000  # rows of a Gram matrix, and more per feature; of typical values
    probes: int = 10  # random vectors that tell the leverage of rows
    pilot_rows: int = 4000  # rows of the mean of diag(p) - p pᵀ

    # -- preconditioners ------------------------------------------------------------------------
    no_curvature: float = 1e-13  # relative to the largest: curvature that is rounding
    rounding_of_gram: float = 1e-10  # of its diagonal: what rounding of a Gram matrix may be
    least_ridge: float = 1e-6  # of the curvature: the least penalty in float32, or of low rank
    diagonal_price: float = 5.0  # steps that a look at the diagonal costs
    block_price: float = 4.0  # steps that blocks cost, and more with features x classes
    numbers_per_step: float = 200.0
    hessian_patience: float = 3.0  # steps after which the second Hessian is formed at the latest
    hessian_rows_per_direction: int = 55  # rows of a Hessian per effective degree of freedom
    operations_per_logit: float = 100.0  # of exponentials, in operations of a matrix product

    # -- the ladder of "auto" -------------------------------------------------------------------
    hessian_size: int = 500  # features x classes of the largest Hessian
    hessian_passes: float = 10.0  # what it may cost
    blocks_numbers: int = 2**24  # of all blocks; of products of pairs of features
    most_passes: float = 30.0  # what another preconditioner may cost to form
    speed_of_matrices: float = 10.0  # of operations of matrices, beside those of a pass
    merge_share: float = 0.8  # features left from which merging columns pays

    # -- conjugate gradients and Newton -----------------------------------------------------------
    look_back: int = 3  # terms that tell the speed of a series, iterations that tell of none
    most_steps: int = 100  # products of a step, and of an estimate
    wolfe_newton: float = 0.25  # a trial on the line costs less than a step
    short_step: float = 0.5  # a step below goes beyond where its model holds
    stronger: float = 10.0  # from a penalty to the next
    most_damping: int = 12  # times that a penalty is made stronger, at the most
    arrived: float = 0.3  # decrement / F at which a stronger penalty is left
    kept: float = 0.1  # of what a step promises: below, rows are missing from the sample
    contraction: float = 0.2  # of the decrement: what a step of a good sample leaves
    near: float = 0.03  # decrement / F from which that is asked
    heavy_features: int = 500  # features and classes from which gradients wait for the step
    heavy_classes: int = 100

    # -- L-BFGS, gradient descent, line searches --------------------------------------------------
    switch_after: int = 20  # iterations of L-BFGS after which Newton steps go on
    memory: int = 10  # pairs of L-BFGS
    refresh_growth: float = 2.0  # of the steps between refreshes that make L-BFGS forget
    armijo: float = 1e-4
    wolfe: float = 0.9
    smooth_share: float = 0.5  # of the slope's promise, for steps without momentum
    most_halvings: int = 40  # trials of a line search
    lanczos_accuracy: float = 0.01

    # -- proximal steps: elastic-net.md -----------------------------------------------------------
    least_working_set: int = 150  # zero weights that may enter at a time, and as many as are not
    most_coordinates: int = 3000  # weights of the largest Hessian
    pairs_operations: float = 1e11  # what it may cost
    rough: float = 1e-3  # gap / F from which float32 curvature serves
    inner_accuracy: float = 0.01  # of a step: what is left of the distance from its optimum
    sweeps: int = 10  # of coordinate descent before signs are tried
    mixed: float = 0.5  # share of the targets in the curvature, until full steps are taken
    mixed_steps: int = 3  # full steps with such curvature, after a short one without
    faces: int = 4  # on which a step may come to its end, where it need not be exact
    relaxation: float = 0.95  # of the bound of the curvature, from a step to the next

    # -- the gap: gap-estimate.md -----------------------------------------------------------------
    share_to_come: float = 0.3  # of the decrement: what steps and estimates may leave
    thorough_steps: int = 30  # products of an estimate where nothing is proven, and of Lanczos
    small_tol: float = 1e-6  # tol at which no row may move by more than a logit
    far_logits: float = 0.25  # nor may it by more than this if it is
    farther: float = 20.0  # as many times what is typical
    loose: float = 1e6  # bound of the gap, relatively, from which a penalty is next to nothing
    steps_per_root: float = 0.5  # products of an estimate, times the root of the condition
    decided_loss: float = 0.05  # mean loss below which nearly all rows are decided
    decided_steps: int = 12  # products of an estimate there
    most_intercept_steps: int = 4  # Newton steps of intercepts alone, for a proof
    farthest_intercept: float = 100.0  # logits that the intercepts may be from the minimum's
    ask_again: float = 3.0  # fall of the solver's decrement after a doubtful estimate
    least_claim: float = 1e-3  # of tol: the least gap that is stated after a doubtful estimate
    largest_program: int = 2**19  # coefficients of a linear program that finds separation
    patience: int = 25  # iterations without progress at the floor of the arithmetic

    # -- streams: streams.md ----------------------------------------------------------------------
    stream_refresh: float = 1.2  # growth of the rows that renews the preconditioner
    stream_overfit: float = 2.0  # loss of new rows before and after the steps

    # -- searches: search.md, path-of-c.md --------------------------------------------------------
    apart: float = 100.0  # scales of a fold and of all rows that are solved apart


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
