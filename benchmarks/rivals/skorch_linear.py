"""skorch's `NeuralNetClassifier` round `nn.Linear`, with L-BFGS on the whole data."""

from benchmarks.rivals import Fitted, Rival, dense_only


def fit(X, y, C, epochs, count):
    import torch
    from skorch import NeuralNetClassifier

    class PenalisedNet(NeuralNetClassifier):
        def get_loss(self, y_pred, y_true, *args, **kwargs):
            mean = super().get_loss(y_pred, y_true, *args, **kwargs)
            return mean + 0.5 / (C * len(y)) * self.module_.weight.square().sum()

    torch.manual_seed(0)
    net = PenalisedNet(
        torch.nn.Linear(X.shape[1], int(y.max()) + 1, dtype=torch.as_tensor(X[:1]).dtype),
        criterion=torch.nn.CrossEntropyLoss, optimizer=torch.optim.LBFGS,
        optimizer__line_search_fn="strong_wolfe", optimizer__max_iter=20, lr=1.0, batch_size=-1,
        max_epochs=epochs, train_split=None, verbose=0,
    )  # fmt: skip
    net.fit(X, y)
    layer = net.module_
    return Fitted(layer.weight.detach().numpy(), layer.bias.detach().numpy(), None)


RIVALS = [
    Rival("skorch-lbfgs", "skorch", "skorch", fit, (1, 2, 4, 8, 16, 32, 64, 128, 256), dense_only)
]
