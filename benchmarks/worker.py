"""A process per contestant: it holds the data, fits on request, and can be stopped."""

import multiprocessing
import os
import pickle
import signal
import sys
import time
import warnings

from benchmarks.rivals import all_rivals

START_LIMIT = 120.0  # seconds to import a library, or to take over the data
SPIN = 0.3  # seconds until the idle threads of all libraries have ceased to spin


class Failed(Exception):
    """The fit raised, or the library cannot be used; the message says why."""


class Stopped(Exception):
    """The fit was stopped at its time limit."""


def serve(connection, name, root):
    """Import and warm up rival `name`, then answer requests until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # some libraries print whatever one says
    os.dup2(1, 2)
    warnings.simplefilter("ignore")
    if root:
        sys.path.insert(0, str(root))
    X = y = None

    def start():
        from sklearn.datasets import load_iris

        X, y = load_iris(return_X_y=True)
        if root:
            import skfc

            assert skfc.__file__.startswith(str(root)), f"{skfc.__file__} is not of {root}"
        rival.fit(*rival.prepare(X, y), 1.0, rival.ladder[0], False)

    def take(path):
        nonlocal X, y
        X = y = None
        with open(path, "rb") as file:
            X, y = rival.prepare(*pickle.load(file))

    def fit(C, setting, count):
        begin = time.perf_counter()
        fitted = rival.fit(X, y, C, setting, count)
        return time.perf_counter() - begin, fitted

    requests = {"start": start, "take": take, "fit": fit}
    rival = None
    while True:
        try:
            request, *arguments = connection.recv()
        except EOFError:
            return
        try:
            rival = rival or all_rivals()[name]
            answer = requests[request](*arguments)
        except Exception as error:
            answer = Failed(f"{type(error).__name__}: {error}"[:300])
        connection.send(answer)


class Worker:
    """The process of one rival, started again after a stop.

    Parameters
    ----------
    name : str, of the rival
    root : path whose `skfc` is imported, or None for the one installed here
    """

    def __init__(self, name, root=None):
        self.name, self.root = name, root
        self.data = self.process = None

    def launch(self):
        """Start the process, without waiting for it."""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=serve, args=(theirs, self.name, self.root), daemon=True
        )
        self.process.start()
        theirs.close()
        self.connection.send(("start",))
        self.is_ready = False

    def _ready(self):
        if self.process is None:
            self.launch()
        if not self.is_ready:
            self._answer(START_LIMIT)
            self.is_ready = True
            if self.data:
                self._ask(START_LIMIT, "take", self.data)

    def _ask(self, limit, *request):
        self.connection.send(request)
        return self._answer(limit)

    def _answer(self, limit):
        try:
            if not self.connection.poll(limit):
                self.close()
                raise Stopped(f"{self.name}: stopped after {limit:.3g} s")
            answer = self.connection.recv()
        except (EOFError, ConnectionError) as error:
            self.close()
            raise Failed(f"the process ended: {error!r}") from error
        if isinstance(answer, Failed):
            raise answer
        return answer

    def wait(self):
        """Wait until the library is imported and warm."""
        self._ready()

    def take(self, path):
        """Read the pickled (X, y) at `path`."""
        self.data = None
        self._ready()
        self.data = path
        self._ask(START_LIMIT, "take", path)

    def fit(self, C, setting, limit, count=False):
        """Seconds and `Fitted`; raises `Stopped` after `limit` seconds, or `Failed`."""
        self._ready()
        time.sleep(SPIN)
        return self._ask(limit, "fit", C, setting, count)

    def close(self):
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process.close()
            self.connection.close()
            self.process = None
