"""scikit-learn's callbacks, where the release has them (1.9 and later).

This is the one module that knows what differs between releases. A fit is a task, and every
iteration is a subtask of it; what a callback asks for is computed when it asks.
"""

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:

    class CallbackSupportMixin:
        """Nothing: this release of scikit-learn has no callbacks."""

    def with_callbacks(method):
        """The method itself."""
        return method


__all__ = ["CallbackMonitor", "CallbackSupportMixin", "FitTask", "with_callbacks"]


class FitTask:
    """The task of a fit, or of a part of it.

    Parameters
    ----------
    estimator : what is fitted
    X, y, sample_weight : as `fit` was given them
    context : that of scikit-learn, or None where there are no callbacks
    """

    def __init__(self, estimator, X, y, sample_weight, context):
        self.estimator, self.context = estimator, context
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self.given = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}

    @classmethod
    def of_fit(cls, estimator, X, y, sample_weight, max_subtasks=None):
        """The outermost task, which `with_callbacks` ends whatever happens.

        It has at most `max_subtasks` parts, of which nobody knows how many where that is None.
        """
        begin, context = getattr(estimator, "_init_callback_context", None), None
        # Nobody looks at a fit without callbacks; those of a meta-estimator are among its own.
        if begin is not None and hasattr(estimator, "_skl_callbacks"):
            context = begin(max_subtasks=max_subtasks)
        return cls(estimator, X, y, sample_weight, context)

    def part(self, name, max_subtasks=0):
        """A task within this one."""
        part = FitTask(self.estimator, None, None, None, None)
        part.given = self.given
        if self.context is not None:
            part.context = self.context.subcontext(task_name=name, max_subtasks=max_subtasks)
        return part

    def begin(self, attributes=None):
        """Tell the callbacks; `attributes` is a function that gives fitted ones."""
        if self.context is not None:
            self.context.call_on_fit_task_begin(**self.given, reconstruction_attributes=attributes)
        return self

    def end(self, attributes=None):
        """Tell the callbacks; returns whether one of them asks to stop."""
        if self.context is None:
            return False
        return self.context.call_on_fit_task_end(
            **self.given, reconstruction_attributes=attributes
        )


class CallbackMonitor:
    """The monitor that makes a task of every iteration.

    Parameters
    ----------
    task : FitTask of which the iterations are parts
    complete : function from the coefficients and intercepts of a solve to those of all classes
    classes : (n_classes,)
    """

    def __init__(self, task, complete, classes):
        self.task, self.complete, self.classes = task, complete, classes
        self.open = self.attributes = None

    def begin(self):
        """An iteration begins, unless it is the start or goes on in another stage."""
        if self.open is None and self.attributes is not None:
            self.open = self.task.part("iteration").begin(self.attributes)

    def step(self, progress):
        def attributes():
            coef, intercept = self.complete(*progress.coefficients())
            return {
                "coef_": coef, "intercept_": intercept, "classes_": self.classes,
                "n_iter_": progress.n_iter,
            }  # fmt: skip

        self.attributes = attributes
        if self.open is None:  # the start
            return False
        task, self.open = self.open, None
        return task.end(attributes)

    def end(self, fits):
        """End an iteration that came to nothing, and let go of the rows."""
        if self.open is not None:
            self.open.end(self.attributes)
        self.open = self.attributes = None
