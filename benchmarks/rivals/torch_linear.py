"""PyTorch's `nn.Linear` with L-BFGS on the whole data, and with Adam on batches."""

from benchmarks.rivals import Fitted, Rival, dense_only, tolerances

BATCH = 256


def prepare(X, y):
    import torch

    return torch.as_tensor(X), torch.as_tensor(y)


def make(X, y, C):
    """A linear layer started at zero, and its loss."""
    import torch

    torch.manual_seed(0)
    layer = torch.nn.Linear(X.shape[1], int(y.max()) + 1, dtype=X.dtype)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    l2 = 0.5 / (C * len(y))

    def loss(X, y):
        mean = torch.nn.functional.cross_entropy(layer(X), y)
        return mean + l2 * layer.weight.square().sum()

    return layer, loss


def fitted(layer, passes):
    return Fitted(layer.weight.detach().numpy(), layer.bias.detach().numpy(), float(passes))


def lbfgs(X, y, C, tol, count):
    import torch

    layer, loss = make(X, y, C)
    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=100_000, max_eval=1_000_000, tolerance_grad=tol,
        tolerance_change=tol * 1e-6, line_search_fn="strong_wolfe",
    )  # fmt: skip
    evaluations = 0

    def closure():
        nonlocal evaluations
        evaluations += 1
        optimizer.zero_grad()
        value = loss(X, y)
        value.backward()
        return value

    optimizer.step(closure)
    return fitted(layer, evaluations)


def adam(X, y, C, epochs, count):
    import torch

    layer, loss = make(X, y, C)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    steps = epochs * -(-len(y) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(y)).split(BATCH):
            optimizer.zero_grad()
            loss(X[rows], y[rows]).backward()
            optimizer.step()
            schedule.step()
    return fitted(layer, epochs)


RIVALS = [
    Rival("torch-lbfgs", "torch", "torch", lbfgs, tolerances(), dense_only, prepare),
    Rival("torch-adam", "torch", "torch", adam, (1, 3, 10, 30, 100, 300), dense_only, prepare),
]
